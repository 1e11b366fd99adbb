"""The models there are: in models/, in the hub's cache, and on the hub, and which of them fit this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlxops import files
from mlxops.config import ModelsConfig
from mlxops.errors import MlxopsError
from mlxops.jobs.model import needs
from mlxops.jobs.model.hub_cache import hub_cache
from mlxops.jobs.model.hub_list import HubList, hub_list
from mlxops.jobs.model.record import recorded
from mlxops.models import folders, memory
from mlxops.models.weight_headers import weight_files
from mlxops.projects import known_projects, machine
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

_VERSION = 4  # of what is remembered about a folder
_STAMPED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model and what is known of it; of one that cannot be used only the `problem`.

    `where` is models, cache (the hub's, on this machine), project (another one, whose folder is `project`) or hub;
    `source` is what a model came from or was made of, where that is recorded; `format` is mlx, safetensors or gguf on
    the hub, and None on this machine. `loading` and `training` are the bytes of memory that it is estimated to take to
    make text and to train with LoRA, and `fit` what comes of them here: trains, loads, too large, or None where it is
    not known.
    """

    name: str
    where: str = "models"
    project: str | None = None
    type: str | None = None
    layers: int | None = None
    parameters: int | None = None
    bytes: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    format: str | None = None
    downloads: int | None = None
    updated: str | None = None
    source: str | None = None
    loading: int | None = None
    training: int | None = None
    fit: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """The models, and what to know of the list."""

    entries: tuple[ModelEntry, ...]
    notes: tuple[str, ...]


def models(invocation: Invocation, config: ModelsConfig) -> ModelList:
    """The models that are asked for; the hub is asked only for a search, or for what is available there.

    Without a network the list of the hub is the one of the last time, or missing, and a note says so.
    """
    asks_hub = config.filter != "downloaded" and (config.search is not None or config.filter == "available")
    local = on_this_machine(invocation, other_projects=True)
    room = needs.room()
    found = [] if config.filter == "available" else local
    remote = HubList(entries=(), notes=())
    notes: list[str] = []
    if asks_hub:
        cache = invocation.cache or machine.user_cache()
        remote = hub_list(config.search, config.sort, config.limit, cache)
        notes += remote.notes
    if config.search is not None:
        text = config.search.casefold()
        found = [each for each in found if any(text in name.casefold() for name in (each.name, each.source or ""))]
    there = _ids_of([each for each in local if each.where != "project"])
    found += [
        ModelEntry(where="hub", **asdict(each))
        for each in remote.entries
        if each.name.casefold() not in there and each.name.rpartition("/")[2].casefold() not in there
    ]
    found = [replace(each, fit=_fit(each, room)) for each in found]
    ordered = sorted(found, key=_orders(config.sort))
    if config.limit is not None and len(ordered) > config.limit:
        notes.append(f"{len(ordered) - config.limit:,} more; `--limit` shows more")
    if any(each.where == "project" for each in ordered):
        notes.append("`--model FOLDER/models/NAME` takes a model of another project")
    if not asks_hub and config.filter == "all":
        notes.append("`inv models --search TEXT` searches the hub, too")
    return ModelList(entries=tuple(ordered[: config.limit]), notes=tuple(notes))


def _ids_of(entries: Iterable[ModelEntry]) -> set[str]:
    """What these models are called on the hub: by where they are recorded to come from, else by their names."""
    return {(each.source or each.name).casefold() for each in entries}


def _fit(entry: ModelEntry, room: int) -> str | None:
    if entry.loading is None or entry.problem is not None:
        return None
    if entry.loading > room:
        return "too large"
    return "trains" if entry.training is not None and entry.training <= room else "loads"


def _orders(sort: str) -> Callable[[ModelEntry], tuple[Any, ...]]:
    fits = ("trains", "loads", "too large", None)
    by: dict[str, Callable[[ModelEntry], Any]] = {
        "name": lambda each: each.name.casefold(),
        "size": lambda each: -(each.bytes or 0),
        "downloads": lambda each: -(each.downloads or 0),
        "updated": lambda each: _latest_first(each.updated),
        "fit": lambda each: (fits.index(each.fit), -(each.bytes or 0)),
    }
    # what is here stands first, then what is on this machine
    places = {"project": 1, "hub": 2}
    return lambda each: (places.get(each.where, 0), by[sort](each), each.name)


def _latest_first(time: str | None) -> tuple[int, ...]:
    return tuple(-ord(letter) for letter in time or "")


def on_this_machine(invocation: Invocation, *, other_projects: bool = False) -> list[ModelEntry]:
    """The models of the project and of the hub's cache, and those of other projects of this machine where asked for.

    What is known of unchanged folders is not read again.
    """
    project = invocation.project
    folder = project.models_folder
    places = [("models", name, folder / name) for name in folders.list_models(folder)]
    cache = invocation.cache or machine.user_cache()
    if places:
        known_projects.remember(cache, project.root)
    sources = _sources(project) if places else {}
    places += [("cache", name, place) for name, place in _in_hub_cache()]
    remembered_in = project.root / ".mlxops" / "model_list.json"
    known = _read(remembered_in)
    entries, stamps = [], {}
    for where, name, place in places:
        stamp = _stamp(place)
        remembered = known.get(str(place))
        if stamp is not None and remembered is not None and remembered[0] == stamp:
            entry = ModelEntry(**remembered[1])
        else:
            entry = _entry(where, name, place)
        if stamp is not None:
            stamps[str(place)] = [stamp, vars(entry)]
        is_recorded = where == "models" and sources
        entries.append(replace(entry, source=sources.get(project.relative(place))) if is_recorded else entry)
    # a folder that is no project stays as it is
    is_project = folder.is_dir() or remembered_in.parent.is_dir()
    if is_project and stamps != {place: [*each] for place, each in known.items()}:
        _write(remembered_in, stamps)
    if other_projects:
        for root in known_projects.others(cache, project.root):
            entries += _of_project(root, seen={folder.resolve()})
    return entries


def _sources(project: Project) -> Mapping[str, str | None]:
    """What is recorded that models come from, by path; a registry that cannot be read hides no model."""
    try:
        return {path: row["source"] for path, row in recorded(project).items()}
    except MlxopsError:
        return {}


def _of_project(root: Path, *, seen: set[Path]) -> list[ModelEntry]:
    """The models of another project, as its own list remembers them; none where nobody may look."""
    folder = root / "models"
    try:
        names = folders.list_models(folder) if folder.resolve() not in seen else []
    except MlxopsError:
        return []
    known = _read(root / ".mlxops" / "model_list.json")
    entries = []
    for name in names:
        stamp, remembered = _stamp(folder / name), known.get(str(folder / name))
        is_known = stamp is not None and remembered is not None and remembered[0] == stamp
        entry = ModelEntry(**remembered[1]) if is_known and remembered else _entry("models", name, folder / name)
        entries.append(replace(entry, where="project", project=str(root)))
    return entries


def _entry(where: str, name: str, folder: Path) -> ModelEntry:
    try:
        info, config, tensors = folders.check_with_headers(folder, parses_tokenizer=False)
    except MlxopsError as error:
        return ModelEntry(name=name, where=where, problem=str(error))
    found = needs.of_shape(memory.shape(config, tensors, info.embedding_rows), info.dtype)
    return ModelEntry(
        name=name,
        where=where,
        type=info.model_type,
        layers=info.layers,
        parameters=info.parameters,
        bytes=info.bytes,
        dtype="quantized" if info.quantization else info.dtype,
        quantization=info.packing,
        loading=found.loading,
        training=found.training,
    )


def _in_hub_cache() -> list[tuple[str, Path]]:
    """Id and folder of each model that the hub's client keeps on this machine, at the revision main."""
    cache = hub_cache()
    found = []
    for folder in sorted(cache.glob("models--*")) if cache.is_dir() else []:
        try:
            snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if (snapshot / "config.json").is_file() and weight_files(snapshot):
            found.append((folder.name.removeprefix("models--").replace("--", "/"), snapshot))
    return found


def _stamp(folder: Path) -> list[Any] | None:
    """What tells whether a folder's files are those of the last time; None where that cannot be seen."""
    try:
        with os.scandir(folder) as listed:
            present = [
                each for each in listed if each.name in _STAMPED or each.name.endswith((".safetensors", ".json"))
            ]
            stats = sorted((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in present)
    except OSError:
        return None
    return [_VERSION, *([*each] for each in stats)]


def _read(file: Path) -> Mapping[str, Sequence[Any]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {place: (stamp, entry) for place, (stamp, entry) in known.items() if set(entry) == set(_FIELDS)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(exist_ok=True)
        files.write_text(file, json.dumps(content))
    except OSError:  # it only saves time
        return


_FIELDS = tuple(ModelEntry.__dataclass_fields__)
