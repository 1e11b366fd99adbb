"""What `run.import` is pointed at: an adapter folder of mlx_lm.lora, a log, or after all a run of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, layout, registry, texts, words
from mlxops.adapters import adapter_config, folders, foreign, mlx_lm_log
from mlxops.adapters.folders import Contents
from mlxops.errors import BadRequest, InvalidData, NotFound
from mlxops.jobs.run.imports import log as import_log
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

_LOGS = ("training.log", "train.log")
_SHOWN = 5  # lines of a log, or folders, that an error names
_OURS = re.compile(r"run (.+?) in .+?: ")
_PROGRESS = re.compile(r"iteration \d+/\d+  ")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is imported: a folder with or without a log in it, or a log alone. `stored` is how the registry names it.

    `notes` say what of it cannot be read.
    """

    path: Path
    stored: str
    folder: Contents | None
    log: Path | None
    notes: tuple[str, ...] = ()


def is_same(project: Project, stored: str, path: Path) -> bool:
    """Whether a source on record is this path, links followed."""
    return files.is_same(project.from_root(stored), path)


def check_name(path: Path) -> None:
    """Raise `BadRequest` for a path that no registry, JSON or terminal can hold."""
    texts.check_utf8(str(path), "the path")


@contextmanager
def readable() -> Iterator[None]:
    """Turn a file that cannot be read into `BadRequest`."""
    try:
        yield
    except OSError as error:
        raise BadRequest(
            f"{str(error.filename)!r} cannot be read: {error.strerror}", hint="it has to be readable for this user"
        ) from error


def own_run(invocation: Invocation, path: Path) -> str | None:
    """The run of ours that a folder, or a log in it or of it, belongs to; None for what others made.

    Raises `BadRequest` for a run that the registry does not know.
    """
    described = adapter_config.describes_itself(path if path.is_dir() else path.parent)
    name = described["name"] if described else _printed_by(path)
    if name is None:
        return None
    if invocation.project.registry_path.exists():
        with registry.open_registry(invocation.project.registry_path) as db:
            if any(row["name"] == name and row["imported_from"] is None for row in registry.candidate_runs(db)):
                return str(name)
    raise BadRequest(
        f"{str(path)!r} is of the run {name!r} of this toolkit, which this registry does not know",
        hint="`inv lora` with the run's folder as `--adapter-path` takes it up",
    )


def _printed_by(path: Path) -> str | None:
    """The run of ours whose progress was printed into a file, None where it is another file."""
    if not path.is_file() or _is_adapter(path):
        return None
    with readable():
        lines = mlx_lm_log.head(path, 50)
        found = next(filter(None, map(_OURS.match, lines)), None)
        if found is None or not any(map(_PROGRESS.match, lines)) or import_log.has_points(path):
            return None
    return found[1]


def find(project: Project, path: Path, typed: str) -> Source:
    """What a path means: an adapter folder, a log, or for the log of an adapter folder that folder.

    Raises `NotFound`, `BadRequest` or `InvalidData` where it is none of them.
    """
    check_name(path.resolve())
    if not path.exists():
        raise NotFound(f"there is no folder or log {typed!r}", hint="run.import takes an adapter folder or a log")
    if path.is_dir():
        return _folder(project, path, typed)
    if not path.is_file():
        raise BadRequest(f"{typed!r} is no file that can be read twice", hint="write what comes from it to a file")
    if _is_adapter(path):
        raise BadRequest(f"{typed!r} is one file of an adapter", hint=f"its folder is {str(path.parent)!r}")
    with readable():
        if not import_log.has_points(path):
            raise InvalidData(
                f"there is no line of mlx_lm.lora in {typed!r}",
                [f"{path.name}: {line}" for line in mlx_lm_log.head(path, _SHOWN)],
                hint=f"what was looked for is {mlx_lm_log.LOOKED_FOR}",
            )
    beside = folders.look(path.parent)
    if beside.is_adapter_folder and _log_of(beside)[0] == path:
        return _folder(project, path.parent, typed)
    return Source(path=path, stored=project.relative(path), folder=None, log=path)


def _folder(project: Project, path: Path, typed: str) -> Source:
    contents = folders.look(path)
    if contents.problem is not None:
        raise BadRequest(f"the folder {typed!r} {contents.problem}", hint="it has to be readable for this user")
    foreign.refuse_peft(path)
    log, notes = _log_of(contents)
    if contents.of("weights", "offered", "settings"):
        return Source(path=path, stored=project.relative(path), folder=contents, log=log, notes=tuple(notes))
    below = [
        str(each.folder.relative_to(path))
        for each in folders.discover(path)
        if each.is_adapter_folder and adapter_config.describes_itself(each.folder) is None
    ]
    if below:
        raise BadRequest(
            f"{typed!r} is no adapter folder, but holds {len(below):,}",
            hint=f"import them one by one: {words.listed(below, _SHOWN)}",
        )
    hint = f"it holds a log: {log.name}" if log else "what mlx_lm.lora writes is adapters.safetensors"
    raise NotFound(f"there is no adapter in {typed!r}", hint=hint)


def _is_adapter(path: Path) -> bool:
    return layout.recognise(path.name)[0] != "other" or path.suffix in (".safetensors", ".npz")


def _log_of(contents: Contents) -> tuple[Path | None, list[str]]:
    """The log beside an adapter, the one by its usual name first, and what cannot be read."""
    names = [each.name for each in contents.files if each.kind == "other" and each.problem is None]
    logs = [name for name in _LOGS if name in names] + [
        name for name in names if name.endswith(".log") and name not in _LOGS
    ]
    notes: list[str] = []
    for name in logs:
        try:
            check_name(Path(name))
            with readable():
                if import_log.has_points(contents.folder / name):
                    return contents.folder / name, notes
        except BadRequest as error:
            notes.append(f"{error.message}, so it is left out")
    return None, notes
