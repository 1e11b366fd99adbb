"""Fetching a model from the hub: whole under its name or not there, and recorded with revision and hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlxops import registry, words
from mlxops.config import ConvertConfig, DownloadConfig
from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.jobs.model import convert, models
from mlxops.jobs.model.record import hashes_of, record, recorded
from mlxops.models import downloading, hub, loading, model_files, provenance
from mlxops.models.downloading import Staged
from mlxops.models.folders import ModelInfo, check_config, check_model, find_model
from mlxops.models.hub import RemoteFile
from mlxops.models.provenance import ConvertedModel
from mlxops.projects import entering
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """A download that is checked: the repository at one commit, the files wanted of it, and where they go."""

    invocation: Invocation
    config: DownloadConfig
    repository: hub.Repository
    wanted: tuple[RemoteFile, ...]
    target: Path
    is_there: bool

    @property
    def bytes(self) -> int:
        """What the files have together."""
        return sum(each.bytes for each in self.wanted)

    @property
    def says(self) -> list[str]:
        """What to know before the work begins."""
        kind = "in MLX's format" if self.repository.is_mlx else "in Hugging Face's format"
        said = [f"{self.repository.id}: {words.plural(len(self.wanted), 'file')}, {words.size(self.bytes)}, {kind}"]
        if self.config.quantize is not None:
            said.append(f"it is converted to {self.config.quantize} bits after the download")
        elif not self.repository.is_mlx:
            said.append(
                "MLX loads such files, so they stay as they are; if mlx-lm would rearrange their tensors at each load, "
                "they are converted after the download, with the same numbers"
            )
            said.append("`--quantize 4` makes it smaller")
        if code := [each.name for each in self.repository.files if each.name.endswith(".py")]:
            said.append(f"code of the repository is left out, because nothing here runs it: {words.listed(code, 3)}")
        return said


@dataclass(frozen=True, kw_only=True)
class DownloadResult:
    """A model that was fetched: where it is, what `--model` takes for it, where it came from, and what it is."""

    path: str
    typed: str
    source: str
    revision: str
    was_there: bool
    type: str
    parameters: int
    bytes: int
    quantization: str | None
    is_converted: bool

    def to_json(self) -> registry.JsonObject:
        """All of it as values that JSON has."""
        return {("model" if name == "typed" else name): value for name, value in asdict(self).items()}


def plan(invocation: Invocation, config: DownloadConfig) -> DownloadPlan:
    """Ask the hub what there is, and check all that can be checked before anything is fetched.

    Raises `NotFound`, `Refused` or `Failed` as the hub answers, `BadRequest` for what is no language model, and
    `Refused` where something else stands under the name.
    """
    project = invocation.project
    target = models.target(project, config.name, config.output, _usual_name(config))
    is_there = os.path.lexists(target)
    if is_there and not target.is_dir():
        model_files.refuse_existing(target)
    repository = hub.repository(config.id, config.revision)
    return DownloadPlan(
        invocation=invocation,
        config=config,
        repository=repository,
        wanted=tuple(downloading.needed(repository)),
        target=target,
        is_there=is_there,
    )


def local_name(project: Project, text: str | None) -> str | None:
    """What `--model` takes for a model of the hub that was downloaded before; None for all that is no such id."""
    if text is None or not _is_missing_id(project, text):
        return None
    for path, row in recorded(project).items():
        if row["source"] == text and (project.from_root(path) / "config.json").is_file():
            return path
    return None


def offered(project: Project, text: str | None) -> DownloadConfig | None:
    """The download of an id that is neither here nor in the hub's cache; None for all else."""
    if text is None or not _is_missing_id(project, text) or local_name(project, text) is not None:
        return None
    return DownloadConfig(id=text)


def _is_missing_id(project: Project, text: str) -> bool:
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", text):
        return False
    try:
        find_model(text, resolve=project.resolve, models_folder=project.models_folder)
    except NotFound:
        return True
    except BadRequest:  # it is something here, and its own error says what
        return False
    return False


def _usual_name(config: DownloadConfig) -> str:
    name = config.id.rstrip("/").rpartition("/")[2]
    return name if config.quantize is None else f"{name}-{config.quantize}bit"


def download(plan: DownloadPlan, progress: Progress) -> DownloadResult:
    """Fetch what is missing, compare every file with the hub's hash, and only then give the folder its name.

    Killed at any instant it leaves nothing half-made under the name, and the same command resumes. Raises `Failed`
    where the hub or the disk fails, `Busy` where another process does the same, `Refused` where another model stands.
    """
    quantizes = plan.config.quantize is not None
    if plan.is_there and quantizes and not _may_be_the_same(plan):
        model_files.refuse_existing(plan.target)
    with downloading.staged(plan.target, plan.repository.id) as staging:
        result = _there(plan) if plan.is_there else None
        if result is None:
            hashes = _fill(plan, staging, progress)
            if quantizes or _is_rearranged(plan, staging):
                hashes = _convert(plan, staging, progress)
            else:
                model_files.place(staging.folder, plan.target)
            result = _record(plan, hashes, was_there=False)
        staging.remove()
    return result


def _there(plan: DownloadPlan) -> DownloadResult | None:
    is_converted = plan.config.quantize is not None or _may_be_the_same(plan)
    return _converted_before(plan) if is_converted else _recognised(plan)


def _fill(plan: DownloadPlan, staging: Staged, progress: Progress) -> Mapping[str, str]:
    wanted = list(plan.wanted)
    downloading.check_room(plan.target, wanted, staging, copies=0 if plan.config.quantize is None else 1)
    hashes = downloading.fetch(
        plan.repository,
        wanted,
        staging,
        checked=check_config,
        progress=lambda done, total: progress("download", done, total),
    )
    try:
        check_model(staging.folder)
    except BadRequest:
        staging.remove()  # it is what the hub has, and would be again
        raise
    return hashes


def _is_rearranged(plan: DownloadPlan, staging: Staged) -> bool:
    """Whether mlx-lm would rearrange the tensors at each load; where MLX is not installed, nothing is rearranged."""
    if plan.repository.is_mlx or not entering.has_mlx():
        return False
    try:
        return loading.is_rearranged(staging.folder)
    except BadRequest:
        staging.remove()  # it cannot be loaded, and the hub would send the same again
        raise


def _convert(plan: DownloadPlan, staging: Staged, progress: Progress) -> Mapping[str, str]:
    """The model of other numbers under the name, made of the one that was fetched; the SHA-256 of its files."""
    config = ConvertConfig(source=str(staging.folder), quantize=plan.config.quantize, output=str(plan.target))
    work = convert.plan(plan.invocation, config, progress)
    if work.there is not None and not work.is_done:
        model_files.refuse_existing(plan.target)
    convert.make(work, progress)
    return hashes_of(plan.target)


def _may_be_the_same(plan: DownloadPlan) -> bool:
    """Whether the folder under the name was made of a download of this repository, to as many bits."""
    there = provenance.read(plan.target, ConvertedModel)
    made_of = f"models--{plan.repository.id.replace('/', '--')}"
    bits = str(there.settings.get("q_bits")) if there else None
    return there is not None and made_of in there.source and bits == (plan.config.quantize or "None")


def _recognised(plan: DownloadPlan) -> DownloadResult:
    """The model that stands under the name, if each of its files is the hub's; raises `Refused` else."""
    found, hashes = downloading.differences(plan.target, list(plan.wanted))
    if found:
        raise Refused(
            f"{plan.invocation.project.relative(plan.target)!r} is there already and differs from "
            f"{plan.repository.id!r} at {plan.repository.commit[:8]}: {words.listed(found, 3)}",
            hint="`--name` takes another name; `inv model.remove` removes the model that is there",
        )
    return _record(plan, hashes, was_there=True)


def _converted_before(plan: DownloadPlan) -> DownloadResult | None:
    """The converted model that an earlier download of the same commit recorded under the name."""
    project = plan.invocation.project
    if not project.registry_path.is_file():
        return None
    with registry.open_read_only(project.registry_path) as db:
        row = registry.recorded_models(db).get(project.relative(plan.target))
    if row is None or (row["source"], row["revision"]) != (plan.repository.id, plan.repository.commit):
        return None
    return _result(plan, check_model(plan.target), was_there=True)


def _record(plan: DownloadPlan, hashes: Mapping[str, str], *, was_there: bool) -> DownloadResult:
    result = _result(plan, check_model(plan.target), was_there=was_there)
    record(
        plan.invocation.project,
        plan.target,
        source=result.source,
        revision=result.revision,
        quantization=result.quantization,
        hashes=hashes,
    )
    return replace(result, was_there=was_there)


def _result(plan: DownloadPlan, info: ModelInfo, *, was_there: bool) -> DownloadResult:
    project = plan.invocation.project
    return DownloadResult(
        path=project.relative(plan.target),
        typed=models.as_typed(project, plan.target),
        source=plan.repository.id,
        revision=plan.repository.commit,
        was_there=was_there,
        type=info.model_type,
        parameters=info.parameters,
        bytes=info.bytes,
        quantization=info.packing,
        is_converted=provenance.read(plan.target, ConvertedModel) is not None,
    )
