"""What is to be fused, checked before a model is loaded: adapter and base, the place, and the rows to compare on."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxops import layout, registry
from mlxops.adapters import adapter_config
from mlxops.adapters.adapter_config import DescribedRun
from mlxops.config import FuseConfig
from mlxops.errors import BadRequest
from mlxops.jobs.eval import loading
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.model import models, parity
from mlxops.jobs.model.parity import ParityRows
from mlxops.models import model_files, provenance
from mlxops.models.folders import ModelInfo, check_model
from mlxops.models.identity import model_identity
from mlxops.models.provenance import FusedModel
from mlxops.projects.invocation import Invocation

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class FusePlan:
    """A fusion that is checked: what is fused, where it goes, and the rows to compare on.

    `there` is the fused model of this toolkit that stands in that place; `run` is the run's row in the registry.
    """

    invocation: Invocation
    config: FuseConfig
    chosen: ChosenModel
    info: ModelInfo
    target: Path
    work: FusedModel
    run_id: int | None
    trained: DescribedRun | None
    rows: ParityRows | None
    there: FusedModel | None
    notes: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether what is asked for stands there already, compared where that is asked for."""
        there = self.there
        return there is not None and there.is_same_work(self.work) and (there.check is not None or self.rows is None)

    @property
    def stays_packed(self) -> bool:
        """Whether a quantized base stays quantized, so that fusing rounds the adapter."""
        return bool(self.info.quantization) and not self.config.de_quantize and self.config.quantize is None


def plan(invocation: Invocation, config: FuseConfig, progress: Progress) -> FusePlan:
    """Check all that can be checked before a model is loaded.

    Raises `Refused` for a place where something else stands, and what choosing a model and reading data raise.
    """
    project = invocation.project
    chosen = _choose(invocation, config)
    assert chosen.adapter is not None
    adapter = chosen.adapter.adapter
    info = check_model(chosen.folder, trust_remote_code=config.trust_remote_code)
    run_id, iteration = _of_run(invocation, chosen)
    target = _target(invocation, config, chosen)
    there = provenance.read(target, FusedModel)
    if there is None:
        model_files.refuse_existing(target)
    trained = adapter_config.describes_itself(adapter.file.parent)
    rows = None
    if config.check:
        rows = parity.read_rows(
            project,
            trained=trained,
            path=config.data,
            count=config.num_samples,
            folder=chosen.folder,
            info=info,
            trust_remote_code=config.trust_remote_code,
            progress=progress,
        )
    work = FusedModel(
        id=secrets.token_hex(8),
        base=project.relative(chosen.folder),
        base_identity=model_identity(
            chosen.folder, _hashes(invocation), lambda done, total: progress("model files", done, total)
        ),
        adapter_sha256=adapter.sha256,
        run=adapter.run,
        iteration=iteration,
        de_quantize=config.de_quantize,
        quantize=None if config.quantize is None else int(config.quantize),
    )
    return FusePlan(
        invocation=invocation,
        config=config,
        chosen=chosen,
        info=info,
        target=target,
        work=work,
        run_id=run_id,
        trained=trained,
        rows=rows,
        there=there,
        notes=(*_notes(config, info, chosen), *(rows.notes if rows else ())),
    )


def question(plan: FusePlan) -> str | None:
    """What to ask before the fused model that stands there is replaced by another; None where nothing is replaced."""
    if plan.there is None or plan.is_done:
        return None
    of = plan.there.run or plan.there.base
    at = "" if plan.there.iteration is None else f", iteration {plan.there.iteration:,}"
    return f"replace {plan.invocation.project.relative(plan.target)}, fused of {of}{at}?"


def _choose(invocation: Invocation, config: FuseConfig) -> ChosenModel:
    """The adapter that a person names by a path or by its run, and its base model."""
    adapter_path, run = config.adapter_path, config.run
    given = [each for each in (config.source, adapter_path, run) if each]
    if len(given) != 1:
        what = "nothing says what is fused" if not given else f"{' and '.join(map(repr, given))} both say what is fused"
        raise BadRequest(
            what, hint="give one RUN or ADAPTER: `inv model.fuse latest`; `inv runs` shows the runs there are"
        )
    if config.source:
        path = invocation.project.resolve(config.source)
        is_path = path.is_file() or any((path / name).is_file() for name in (layout.SETTINGS, layout.OFFERED))
        adapter_path, run = (config.source, None) if is_path else (None, config.source)
    return loading.choose(
        invocation,
        model=config.model,
        adapter_path=adapter_path,
        run=run,
        trust_remote_code=config.trust_remote_code,
    )


def _of_run(invocation: Invocation, chosen: ChosenModel) -> tuple[int | None, int | None]:
    """The run in this registry that the adapter is of, and the iteration of the checkpoint that it is."""
    assert chosen.adapter is not None
    adapter = chosen.adapter.adapter
    if adapter.run is None or not invocation.project.registry_path.is_file():
        return None, adapter.iteration
    with registry.open_read_only(invocation.project.registry_path) as db:
        run_id = chosen.adapter.run_id or registry.id_of(db, adapter.run)
        checkpoints = registry.checkpoints_of(db, run_id) if run_id is not None else []
    found = [row["iteration"] for row in checkpoints if row["adapter_sha256"] == adapter.sha256]
    return run_id, found[-1] if found else adapter.iteration


def _target(invocation: Invocation, config: FuseConfig, chosen: ChosenModel) -> Path:
    assert chosen.adapter is not None
    adapter = chosen.adapter.adapter
    name = adapter.run or adapter.file.parent.name
    # the adapter that a run offers changes as the run continues; a checkpoint stays what it is
    at = "" if adapter.iteration is None else f"-{adapter.iteration}"
    bits = f"-{config.quantize}bit" if config.quantize else ""
    return models.target(invocation.project, config.name, config.output, f"{name}{at}-fused{bits}")


def _hashes(invocation: Invocation) -> Path:
    return invocation.project.root / ".mlxops" / "model_hashes.json"


def _notes(config: FuseConfig, info: ModelInfo, chosen: ChosenModel) -> list[str]:
    notes = []
    if config.de_quantize and not info.quantization:
        notes.append("the base model is not quantized, so `--de-quantize` has no effect")
    if chosen.adapter is not None and (told := chosen.adapter.template_config):
        notes.append(f"in training its chat template was told {json.dumps(dict(told), ensure_ascii=False)}")
    return notes
