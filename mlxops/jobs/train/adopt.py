"""Taking over an adapter that mlx_lm.lora trained: its shape is kept, all else comes from the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files, layout, registry
from mlxops.adapters import adapter_config, foreign
from mlxops.adapters.adapter_config import DescribedRun
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, InvalidData, Refused, SettingsDiffer
from mlxops.models.folders import ModelInfo
from mlxops.options import given
from mlxops.projects.project import Project
from mlxops.registry import JsonObject, opening
from mlxops.training.fingerprint import complete
from mlxops.training.origin import SHAPE, Origin, origin_of

if TYPE_CHECKING:
    import mlx.core as mx


KEPT = (*SHAPE, "lora_scale", "lora_dropout")
"""The settings that come from the adapter and not from the command."""


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A training that begins with another program's adapter. `file` is None where it has been taken over before."""

    config: LoraConfig
    origin: Origin
    file: Path | None
    notes: tuple[str, ...]


def adopt(project: Project, config: LoraConfig, info: ModelInfo, model_folder: Path) -> Adopted:
    """Find the adapter that `--adopt` names, and the settings that it brings.

    Raises `SettingsDiffer` where the command asks for another shape, and `Refused` for the folder of a run of ours.
    """
    path = project.resolve(config.adopt or "")
    folder = path if path.is_dir() else path.parent
    if run := adapter_config.describes_itself(folder):
        return _again(project, config, path, folder, run)
    found = foreign.read(path, layers=info.layers)
    settled = _with_shape(config, found.shape, info.layers, f"the adapter in {project.relative(folder)!r}")
    place = project.relative(folder)
    origin = Origin(
        kind="warm",
        iteration=found.iteration,
        folder=place,
        file=found.name,
        adapter_sha256=found.sha256,
        note=f"began with {place}/{found.name} as iteration {found.iteration:,}, with a fresh optimizer",
    )
    notes = (_in_words(settled), *found.notes, *_other_model(project, found.model, config.model, model_folder))
    imported = _imported_from(project, folder)
    if imported is not None:
        placed = _in_a_place_of_its_own(project, settled, folder, imported)
    else:
        placed = _in_its_place(project, settled, folder)
    return Adopted(config=placed, origin=origin, file=found.file, notes=notes)


def source(project: Project, origin: Origin) -> Path:
    """The file whose weights a run begins with, be it kept under its other name by now."""
    path = project.from_root(origin.folder) / origin.file
    before = path.with_name(path.name + layout.BEFORE)
    return before if before.exists() else path


def check_fit(file: Path, wanted: Mapping[str, mx.array]) -> None:
    """Raise `InvalidData` with every array that does not fit what the model trains, `wanted` by name."""
    from mlxops.adapters import folders
    from mlxops.training import first_checkpoint

    header = folders.read_header(file)
    found = {name: shape for name, (_, shape) in header.tensors.items()}
    raise_misfits(file.name, first_checkpoint.misfits(found, {name: value.shape for name, value in wanted.items()}))


def raise_misfits(name: str, problems: list[str]) -> None:
    """Raise `InvalidData` if there are any problems."""
    if problems:
        raise InvalidData(
            f"the arrays of {name} do not fit the model", problems, hint="`--model` names the model it was trained on"
        )


def inherit(project: Project, config: LoraConfig) -> LoraConfig:
    """The settings of a command without `--adopt`: of a run that was adopted, the shape that the command leaves out."""
    if config.adapter_path is not None:
        folder = project.resolve(config.adapter_path)
    elif config.name is not None:
        folder = project.adapters_folder / config.name
    else:
        return config
    run = adapter_config.describes_itself(folder)
    origin = origin_of(run["config"]) if run else None
    if run is None or origin is None or origin.kind != "warm":
        return config
    typed = given(config)
    stored = complete(run["config"])
    return replace(config, **{name: stored[name] for name in KEPT if name not in typed})


def _again(project: Project, config: LoraConfig, path: Path, folder: Path, run: DescribedRun) -> Adopted:
    """The same once more: the folder is a run's by now, and says itself what it began with."""
    origin = origin_of(run["config"])
    asked = config.name or run["name"]
    place = folder if config.adapter_path is None else project.resolve(config.adapter_path)
    is_same = files.is_same(path, folder) or (origin is not None and origin.file == path.name)
    is_named = layout.folded(asked) == layout.folded(run["name"]) and files.is_same(place, folder)
    if origin is None or origin.kind != "warm" or not is_named or not is_same:
        raise Refused(
            f"{project.relative(folder)!r} is the folder of the run {run['name']!r}",
            hint=f"`--branch --from {run['name']}` begins from one of its checkpoints",
        )
    stored = complete(run["config"])
    shape = {name: stored[name] for name in KEPT}
    settled = _with_shape(config, shape, None, f"the run {run['name']!r}")
    return Adopted(config=_in_its_place(project, settled, folder), origin=origin, file=None, notes=())


def _with_shape(config: LoraConfig, shape: JsonObject, layers: int | None, whose: str) -> LoraConfig:
    typed = {name for name in given(config) if getattr(config, name) is not None}

    def plain(name: str, value: Any) -> Any:
        if name == "num_layers" and value < 0 and layers is not None:
            return layers
        return sorted(value) if name == "lora_keys" else value

    differ = [
        (name, value, getattr(config, name))
        for name, value in shape.items()
        if name in typed and plain(name, getattr(config, name)) != plain(name, value)
    ]
    if differ:
        raise SettingsDiffer(
            f"{whose} has another shape than the one asked for", differ, hint="leave these out, or give them as it has"
        )
    return replace(config, **shape)


def _in_its_place(project: Project, config: LoraConfig, folder: Path) -> LoraConfig:
    """The run lives where the adapter is, unless the command names another place."""
    if config.adapter_path is not None or config.name is not None:
        return config
    place = project.relative(folder)
    return replace(config, adapter_path=place if project.resolve(place) == folder else str(folder))


def _in_a_place_of_its_own(project: Project, config: LoraConfig, folder: Path, imported: str) -> LoraConfig:
    """What was imported is only read: the run has a folder in `adapters/`, unless the command names another place.

    Raises `Refused` where that is the imported folder itself.
    """
    asked = config.adapter_path
    if asked is None and config.name is None:
        return config
    place = project.adapters_folder / str(config.name) if asked is None else project.resolve(asked)
    if files.is_same(place, folder):
        hint = (
            "another `--name` gives the new run a folder of its own"
            if asked is None
            else "without `--adapter-path` the new run has a folder of its own in adapters/"
        )
        raise Refused(f"{project.relative(folder)!r} was imported as the run {imported!r}, and is only read", hint=hint)
    return config


def _imported_from(project: Project, folder: Path) -> str | None:
    """The run that was imported from a folder, None where none was."""
    if not project.registry_path.exists():
        return None
    with opening.reading(project.registry_path) as db:
        known = registry.imports_of(db)
    return next((run["name"] for run in known if files.is_same(project.from_root(run["imported_from"]), folder)), None)


def _in_words(config: LoraConfig) -> str:
    if config.fine_tune_type == "full":
        return f"the adapter's shape: full weights of {config.num_layers} layers"
    keys = f" of {', '.join(config.lora_keys)}" if config.lora_keys else ""
    return (
        f"the adapter's shape: {config.fine_tune_type} of rank {config.lora_rank}, scale {config.lora_scale:g}, "
        f"dropout {config.lora_dropout:g}, {config.num_layers} layers{keys}"
    )


def _other_model(project: Project, trained_on: str | None, asked: str | None, folder: Path) -> tuple[str, ...]:
    if trained_on is None or trained_on == asked or Path(trained_on).name == folder.name:
        return ()
    if files.is_same(project.resolve(trained_on), folder):
        return ()
    return (f"the adapter was trained on {trained_on!r}, and resumes {project.relative(folder)!r}",)


def check_asked(config: LoraConfig) -> None:
    """Raise `BadRequest` for options that contradict each other."""
    if config.adopt is not None and config.branch:
        raise BadRequest("--adopt and --branch are two ways to begin", hint="give one of them")
    if config.branch_from is not None and not config.branch:
        raise BadRequest("--from says where a branch begins", hint="give `--branch` with it")
