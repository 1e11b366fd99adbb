"""Making one model of a base model and an adapter, and comparing it with them before it gets its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops import registry, words
from mlxops.config import FuseConfig
from mlxops.errors import Failed, Refused
from mlxops.jobs.eval import loading
from mlxops.jobs.model import card, fuse_plan, models, needs, parity
from mlxops.jobs.model.fuse_plan import FusePlan
from mlxops.jobs.model.parity import Parity
from mlxops.jobs.model.record import record_made
from mlxops.models import memory, model_files, provenance
from mlxops.models.folders import check_model
from mlxops.models.provenance import FusedModel
from mlxops.projects import blas, machine
from mlxops.projects.invocation import Invocation

if TYPE_CHECKING:
    import mlx.nn

Progress = Callable[[str, int, int], None]

_UNPACKED_BYTES = 4  # of a number, for the comparison on a processor


@dataclass(frozen=True, kw_only=True)
class FuseResult:
    """A fused model in its folder: what `--model` takes for it, how far it is from base and adapter, what to know.

    `layers` is how many were fused, None where none had to be, or nothing was done.
    """

    path: str
    typed: str
    base: str
    adapter: str
    layers: int | None
    was_there: bool
    parity: registry.JsonObject | None
    evaluation_id: int | None
    notes: tuple[str, ...]
    uploaded: str | None = None

    def to_json(self) -> registry.JsonObject:
        """All of it as values that JSON has."""
        return {("model" if name == "typed" else name): value for name, value in asdict(self).items()}


def fuse(plan: FusePlan, progress: Progress) -> FuseResult:
    """Fuse, compare, and record the comparison; the folder is there whole or not at all.

    What is done already is not done again. Raises `Refused` where more of the adapter is lost than `--max-changed`
    allows, and `Failed` for a disk that is full.
    """
    if plan.is_done and plan.there is not None:
        return _result(plan, plan.there, layers=None, progress=progress)
    try:
        return _make(plan, progress)
    except Refused:
        # another process may have made the same meanwhile
        done = replace(plan, there=provenance.read(plan.target, FusedModel))
        if not done.is_done or done.there is None:
            raise
        return _result(done, done.there, layers=None, progress=progress)


def _make(plan: FusePlan, progress: Progress) -> FuseResult:
    cache = plan.invocation.cache or machine.user_cache()
    blas.load(threads=None, core_type=None, cache=cache, setting=plan.invocation.blas)
    if plan.rows:
        _check_memory(plan)
    with model_files.new_folder(plan.target, replaces=plan.there is not None) as filling:
        layers = _write_model(plan, filling, progress)
        made, found = plan.work, _compare(plan, filling, progress) if plan.rows else None
        if plan.rows and found:
            made = replace(made, check=parity.to_check(plan.invocation.project, plan.rows, found))
            if not _is_faithful(plan, found):
                _record(plan, made)
                raise _unfaithful(plan, found)
        _write_texts(plan, filling, made)
    return _result(plan, made, layers=layers, progress=progress)


def fuse_run(invocation: Invocation, config: FuseConfig, progress: Progress) -> FuseResult:
    """Fuse what a run has trained, in place of what was fused of the same run before.

    Raises `Refused` where the model of another run stands there, unless that may be replaced, and as `plan` and `fuse`
    do.
    """
    planned = fuse_plan.plan(invocation, config, progress)
    if planned.there is not None and planned.there.run != planned.work.run and not config.yes:
        raise Refused(
            f"{invocation.project.relative(planned.target)} is a model of {planned.there.run or planned.there.base!r}",
            hint="add `--yes` to replace it, or name another `--output`",
        )
    return fuse(planned, progress)


def _write_model(plan: FusePlan, folder: Path, progress: Progress) -> int | None:
    """Write the fused model; the number of fused layers, None where the weights were trained themselves."""
    from mlxops.models import fusing, saving
    from mlxops.models.adapter_slot import AdapterSlot
    from mlxops.models.loading import load_model

    config, chosen = plan.config, plan.chosen
    assert chosen.adapter is not None
    model, settings = load_model(chosen.folder, lazy=True, trust_remote_code=config.trust_remote_code)
    types = fusing.types_of(model)
    slot = AdapterSlot(model, identify=lambda: plan.work.base_identity, name=chosen.folder.name)
    slot.put_in(loading.spec_of(chosen.adapter.adapter))
    del slot  # it holds what the adapter took the place of
    fusing.restore_types(model, types)
    unpacks = config.de_quantize or config.quantize is not None
    layers = fusing.fuse_layers(model, dequantize=unpacks, progress=partial(progress, "layers fused"))
    if unpacks:
        settings = fusing.unpack(model, settings)
    if config.quantize is not None:
        settings = fusing.pack(model, settings, bits=int(config.quantize))
    saving.check_room(folder, model)
    saving.save(folder, model, settings, source=chosen.folder, progress=partial(progress, "tensors written"))
    return len(layers) if chosen.adapter.adapter.fine_tune_type != "full" else None


def _compare(plan: FusePlan, folder: Path, progress: Progress) -> Parity:
    """Load base and adapter, and beside them what was written, and compare what they say."""
    from mlxops.models import fusing
    from mlxops.models.adapter_slot import AdapterSlot
    from mlxops.models.loading import load_model

    assert plan.rows is not None
    assert plan.chosen.adapter is not None
    on_cpu = machine.device()["kind"] == "cpu"
    trust = plan.config.trust_remote_code
    unpacks = _unpacks(plan)
    both: list[mlx.nn.Module] = []
    for each in (plan.chosen.folder, folder):
        model, settings = load_model(each, lazy=True, dtype="float32" if on_cpu else None, trust_remote_code=trust)
        if unpacks:
            fusing.unpack(model, settings)
        model.eval()
        both.append(model)
    base, made = both
    fusing.share(base, made)
    slot = AdapterSlot(base, identify=lambda: plan.work.base_identity, name=plan.chosen.folder.name)
    slot.put_in(loading.spec_of(plan.chosen.adapter.adapter))
    return parity.measure(base, made, plan.rows, progress)


def _unpacks(plan: FusePlan) -> bool:
    """Whether packed weights are unpacked for the comparison: on a processor they are many times slower packed."""
    on_cpu = machine.device()["kind"] == "cpu"
    return bool(plan.info.quantization) and on_cpu and needs.room() > 2 * _UNPACKED_BYTES * plan.info.parameters


def _check_memory(plan: FusePlan) -> None:
    """Raise `Failed` where base model and fused model do not fit into memory together."""
    assert plan.rows is not None
    assert plan.chosen.adapter is not None
    adapter = plan.chosen.adapter.adapter
    on_cpu = machine.device()["kind"] == "cpu"
    shape = memory.shape_of(plan.chosen.folder)
    # an embedding can be most of a small model
    beside_layers = {each.name for each in shape.others} & set(adapter.keys or ())
    needed = memory.comparing(
        shape,
        layers=-1 if beside_layers else adapter.num_layers,
        tokens=max(row.length for row in plan.rows.tokenized.rows),
        dtype="float32" if on_cpu else plan.info.dtype,
        keeps_scores=on_cpu,
        unpacked=plan.info.parameters if _unpacks(plan) else None,
    )
    free = needs.room()
    if needed > free:
        raise Failed(
            f"comparing the fused model with base model and adapter takes about {words.size(needed)} of memory, "
            f"and {words.size(free)} are free",
            hint="close other programs, or give `--no-check`, which leaves the comparison out",
        )


def _is_faithful(plan: FusePlan, found: Parity) -> bool:
    """Whether what the fused model says is near enough; what a person asked to be quantized is only measured."""
    if found.changed is None:
        return False
    return plan.config.quantize is not None or 100 * found.changed <= plan.config.max_changed


def _unfaithful(plan: FusePlan, found: Parity) -> Exception:
    if found.changed is None:
        return Failed(
            "the fused model gives numbers that are not finite",
            hint="`inv checkpoints --verify` tells whether the adapter is whole",
        )
    percent, most = 100 * found.changed, plan.config.max_changed
    change = f"{percent:.1f} % of the most likely tokens would change, and {most:g} % may"
    if plan.stays_packed:
        bits = (plan.info.quantization or {}).get("bits", "few")
        return Refused(
            f"fused into {bits} bits, part of the adapter is lost: {change}",
            hint="`--de-quantize` keeps all of it; `--max-changed` of `model.fuse` allows more",
        )
    return Failed(
        f"the fused model does not say what base model and adapter say: {change}",
        hint=f"rounding to {plan.info.dtype} should cost less; `--max-changed` allows more",
    )


def _write_texts(plan: FusePlan, folder: Path, made: FusedModel) -> None:
    from mlxops.models.modelfile import modelfile
    from mlxops.models.tokenizer import load_tokenizer

    trust = plan.config.trust_remote_code
    is_packed = bool(check_model(folder, trust_remote_code=trust).quantization)
    if not is_packed:
        # MLX's packed weights are none that Ollama reads
        assert plan.chosen.adapter is not None
        tokenizer = load_tokenizer(folder, trust_remote_code=trust)
        text = modelfile(folder, tokenizer, plan.chosen.adapter.template_config)
        (folder / "Modelfile").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(card.write(plan, made, has_modelfile=not is_packed), encoding="utf-8")
    provenance.write(folder, made)


def _record(plan: FusePlan, made: FusedModel) -> int | None:
    """Record how a fused model was compared, once; the id of its evaluation, None where it was not."""
    check = made.check
    if check is None:
        return None
    project = plan.invocation.project
    adapter = plan.chosen.adapter
    assert adapter is not None
    with registry.open_registry(project.registry_path) as db:
        base: int | None = None
        for side in ("before", "after"):
            is_after = side == "after"
            known = registry.fuse_evaluation(db, made.id, is_after=is_after)
            base = known or registry.record_evaluation(
                db,
                run_id=plan.run_id,
                iteration=made.iteration,
                base_evaluation_id=base,
                model=project.relative(plan.target) if is_after else made.base,
                adapter_path=None if is_after else project.relative(adapter.adapter.file),
                data=check["data"],
                data_sha256=check["data_sha256"],
                kind=parity.KIND,
                config={
                    "fused": made.id,
                    "de_quantize": made.de_quantize,
                    "quantize": made.quantize,
                    **check["config"],
                },
                scores=[registry.Score(**each) for each in check["scores"][side]],
                rows=check["rows"],
                seconds=check["seconds"] if is_after else None,
            )
    return base


def _result(plan: FusePlan, made: FusedModel, *, layers: int | None, progress: Progress) -> FuseResult:
    project = plan.invocation.project
    assert plan.chosen.adapter is not None
    adapter = plan.chosen.adapter.adapter
    of = f"{made.run}:{made.iteration}" if made.run and made.iteration else made.run or project.relative(adapter.file)
    record_made(
        project,
        plan.target,
        source=f"fused from {made.base} + {of}",
        revision=made.key,
        quantization=check_model(plan.target, trust_remote_code=plan.config.trust_remote_code).packing,
        progress=progress,
    )
    return FuseResult(
        path=project.relative(plan.target),
        typed=models.as_typed(project, plan.target),
        base=made.base,
        adapter=plan.chosen.adapter.label,
        layers=layers,
        was_there=plan.is_done,
        parity=parity.figures(made.check),
        evaluation_id=_record(plan, made),
        notes=plan.notes,
    )
