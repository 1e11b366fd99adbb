"""What only costs room: found with its size, shown, and removed. All of it is made or fetched again when it is needed.

What a process holds is left alone, no link is followed, and nothing that was trained, downloaded whole or written by a
person is among it, but for models in the hub's cache, which are only removed where that is asked for.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.config import CleanConfig
from mlxops.errors import BadRequest, Failed, MlxopsError
from mlxops.jobs.model.hub_cache import hub_cache
from mlxops.likeness import nearest
from mlxops.projects import machine
from mlxops.projects.invocation import Invocation
from mlxops.training import lock

_SCRATCH = re.compile(r"\..+\.[0-9a-f]{8}")
_FINGERPRINT = 16  # letters of one that name a folder


@dataclass(frozen=True, kw_only=True)
class RoomTaken:
    """What of one kind takes room: its paths and bytes, what it is, and what removing it costs.

    `is_usual` is False for what is only removed where its kind is named.
    """

    kind: str
    what: str
    cost: str
    is_usual: bool
    paths: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of things that take room, and how they are found."""

    name: str
    what: str
    cost: str
    find: Callable[[Invocation], Iterable[Path]]
    is_usual: bool = True


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed, and the bytes that are free for it."""

    removed: tuple[RoomTaken, ...]
    bytes: int


def _check(config: CleanConfig) -> None:
    """Raise `BadRequest` for a kind that is none, with the nearest."""
    for name in config.what:
        if name not in NAMES:
            near = nearest(name, NAMES)
            raise BadRequest(
                f"--what takes {', '.join(NAMES)}, not {name!r}", hint=f"did you mean {near!r}?" if near else None
            )


def find(invocation: Invocation, config: CleanConfig) -> list[RoomTaken]:
    """What takes room and is there, of the kinds that are named, else of all; the largest first.

    Raises `BadRequest` for a kind that is none.
    """
    _check(config)
    found = []
    for kind in _KINDS:
        if config.what and kind.name not in config.what:
            continue
        paths = tuple(sorted(path for path in kind.find(invocation) if os.path.lexists(path)))
        if paths:
            size = sum(map(_size, paths))
            found.append(
                RoomTaken(
                    kind=kind.name,
                    what=kind.what,
                    cost=kind.cost,
                    is_usual=kind.is_usual or kind.name in config.what,
                    paths=paths,
                    bytes=size,
                )
            )
    return sorted(found, key=lambda each: -each.bytes)


def remove(found: Sequence[RoomTaken]) -> Cleaned:
    """Remove what is usual of it. Raises `Failed` for the first path that cannot be; those before it are gone."""
    going = tuple(each for each in found if each.is_usual)
    for each in going:
        for path in each.paths:
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise Failed(
                    f"{str(error.filename or path)!r} cannot be removed: {error.strerror}",
                    hint="the same command removes the rest once it can",
                ) from error
    return Cleaned(removed=going, bytes=sum(each.bytes for each in going))


def _size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; links count for themselves."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:  # gone meanwhile
                continue
    return total if path.is_dir() and not path.is_symlink() else path.lstat().st_size


# where each kind is -------------------------------------------------------------------------------------------------


def _crash_files(invocation: Invocation) -> Iterable[Path]:
    return _entries(invocation.project.root / ".mlxops", r"crash-.*\.txt")


def _prefix(invocation: Invocation) -> Iterable[Path]:
    working = _fingerprints_at_work(invocation)
    return (each for each in _entries(invocation.project.prefix_folder, r".+") if each.name not in working)


def _fingerprints_at_work(invocation: Invocation) -> set[str]:
    project = invocation.project
    if not project.registry_path.is_file():
        return set()
    try:
        with registry.open_read_only(project.registry_path) as db:
            return {
                row["fingerprint"][:_FINGERPRINT]
                for row in registry.candidate_runs(db)
                if lock.is_held(project.from_root(row["adapter_path"]) / lock.NAME)
            }
    except MlxopsError:  # nobody knows who is at work
        return {each.name for each in _entries(project.prefix_folder, r".+")}


def _set_aside(invocation: Invocation) -> Iterable[Path]:
    return _in_runs(invocation, lambda name: layout.recognise(name)[0] == "set aside" and layout.CORRUPT in name)


def _half_written(invocation: Invocation) -> Iterable[Path]:
    return _in_runs(invocation, lambda name: layout.recognise(name)[0] == "half-written")


def _in_runs(invocation: Invocation, is_meant: Callable[[str], bool]) -> Iterable[Path]:
    """Files in folders of adapters/ that no process works on."""
    for folder in _entries(invocation.project.adapters_folder, r"[^.].*"):
        if folder.is_dir() and not folder.is_symlink() and not lock.is_held(folder / lock.NAME):
            yield from (each for each in _entries(folder, r".+") if is_meant(each.name))


def _temporary(invocation: Invocation) -> Iterable[Path]:
    """Folders that a process worked in and left behind when it was killed."""
    project = invocation.project
    for place in (project.root, project.models_folder, project.adapters_folder, project.prefix_folder):
        for folder in _entries(place, _SCRATCH.pattern):
            if folder.is_dir() and not folder.is_symlink():
                with files.locked(folder) as is_free:
                    if is_free:
                        yield folder


def _downloads(invocation: Invocation) -> Iterable[Path]:
    return [invocation.project.models_folder / ".downloads"]


def _machine_cache(*names: str) -> Callable[[Invocation], Iterable[Path]]:
    def found(invocation: Invocation) -> Iterable[Path]:
        cache = invocation.cache or machine.user_cache()
        return [] if cache is None else [cache / name for name in names]

    return found


def _hub(invocation: Invocation) -> Iterable[Path]:
    return _entries(hub_cache(), r"models--.+")


def _entries(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder under names like these; nothing where it cannot be read."""
    try:
        return [each for each in folder.iterdir() if re.fullmatch(pattern, each.name)]
    except OSError:
        return []


_KINDS = (
    _Kind(name="prefix", what="hidden states of lower layers", cost="computed again", find=_prefix),
    _Kind(name="set-aside", what="damaged checkpoints, set aside", cost="nothing is lost", find=_set_aside),
    _Kind(name="half-written", what="files half-written by a kill", cost="nothing is lost", find=_half_written),
    _Kind(name="temporary", what="folders left by a kill", cost="nothing is lost", find=_temporary),
    _Kind(name="crashes", what="tracebacks of bugs", cost="nothing is lost", find=_crash_files),
    _Kind(name="downloads", what="unfinished downloads", cost="downloaded again", find=_downloads),
    _Kind(
        name="compiled",
        what="compiled kernels, OpenBLAS copy",
        cost="made again",
        find=_machine_cache("kernels", "blas"),
    ),
    _Kind(name="lists", what="the hub's list of models", cost="asked again", find=_machine_cache("hub_models.json")),
    _Kind(
        name="samples",
        what="sample model of quickstart",
        cost="downloaded again",
        find=_machine_cache("samples"),
        is_usual=False,
    ),
    _Kind(name="hub", what="models in the hub's cache", cost="downloaded again", find=_hub, is_usual=False),
)
"""A cache that is added later gets a line here, and an entry in the choices of `--what`."""

NAMES = tuple(kind.name for kind in _KINDS)
