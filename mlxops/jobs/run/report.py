"""Reports on runs: what one is made of, and putting what was drawn of it on disk. Draws nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlxops import files, registry
from mlxops.config import CompareConfig, ReportConfig
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.jobs import commands
from mlxops.jobs.run import show
from mlxops.jobs.run.compare import MOST, compare
from mlxops.jobs.run.comparison import Comparison
from mlxops.jobs.run.show import RunDetails
from mlxops.projects.invocation import Invocation
from mlxops.registry import NamedSeries, Range, Ranges, opening

_RANGES = 400  # of a loss curve: the page has two to three pixels for each
_FEW_RANGES = 160  # of the small curves beside it
_LOSSES = ("train_loss", "validation_loss")
_SMALL = ("learning_rate", "gradient_norm", "tokens_per_second", "peak_memory", "active_memory")
_AXES: tuple[Literal["iterations", "tokens", "time"], ...] = ("iterations", "tokens", "time")
_LONGEST = 200  # bytes of a file name that is made of runs' names
_ENDINGS = {"html": (".html", ".htm"), "png": (".png",)}


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """What a report tells of one run: its details, what its weights depend on, its curves in ranges.

    `no_settings` names the stored settings that are none of the training.
    """

    details: RunDetails
    model_identity: str
    data_identity: str
    series: Mapping[str, NamedSeries]
    curves: Mapping[str, Sequence[Range]]
    no_settings: Collection[str]


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report tells: of one run, or of several compared by each of the axes."""

    names: tuple[str, ...]
    run: ReportedRun | None = None
    comparisons: Mapping[str, Comparison] | None = None


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that was written, its kind (html or png) and its size in bytes."""

    file: str
    kind: str
    bytes: int


def check(config: ReportConfig) -> None:
    """Raise `BadRequest` where no run is named or too many are, or a file's name does not say what it is.

    With --yes what is there is replaced, so a slip like `--output runs.db` must not get that far.
    """
    if not config.runs:
        raise BadRequest("a report needs the name of a run", hint="`inv run.report latest`")
    if len(config.runs) > MOST:
        raise BadRequest(f"run.report takes 1 to {MOST} runs, not {len(config.runs)}", hint="`inv run.report 1,2`")
    for kind, given in (("html", config.output), ("png", config.png)):
        if given is not None and not files.expanded(given).name.lower().endswith(_ENDINGS[kind]):
            option = "--output" if kind == "html" else "--png"
            raise BadRequest(
                f"{option} takes a file that ends in {_ENDINGS[kind][0]}, not {given!r}",
                hint=f"`{option} report{_ENDINGS[kind][0]}`",
            )


def gather(invocation: Invocation, config: ReportConfig) -> ReportContent:
    """What the report on these runs tells; several are compared as `run.compare` does it.

    Raises `NotFound` for a run that is not there, and `Refused` where a file of the report's name is.
    """
    if len(config.runs) == 1:
        found = _of_one(invocation, config.runs[0])
        _refuse_existing(invocation, config, found.names)
        return found
    compared: dict[str, Comparison] = {
        by: compare(invocation, CompareConfig(runs=config.runs, by=by, all=True)) for by in _AXES
    }
    names = tuple(row.name for row in compared["iterations"].runs)
    _refuse_existing(invocation, config, names)
    return ReportContent(names=names, comparisons=compared)


def _of_one(invocation: Invocation, name: str) -> ReportContent:
    details = show.run(invocation, name)
    name = details.run["name"]
    with opening.reading(invocation.project.registry_path) as db:
        row = registry.find_run(db, name)
        reported = ReportedRun(
            details=details,
            model_identity=row["model_identity"],
            data_identity=row["data_identity"],
            series=registry.curve_summary(db, row["id"]),
            curves={
                curve: Ranges(row["id"], curve, _RANGES if curve in _LOSSES else _FEW_RANGES).read(db)
                for curve in (*_LOSSES, *_SMALL)
            },
            no_settings=commands.NO_SETTINGS,
        )
    return ReportContent(names=(name,), run=reported)


def write(
    invocation: Invocation, config: ReportConfig, names: Sequence[str], drawn: Mapping[str, bytes]
) -> list[WrittenFile]:
    """Write the page and the picture; returns what was written.

    Each is whole or absent, and takes the place of a file of that name.
    """
    places = _places(invocation, config, names)
    return [_write_file(places[kind], kind, content) for kind, content in drawn.items()]


def _places(invocation: Invocation, config: ReportConfig, names: Sequence[str]) -> dict[str, Path]:
    """Where the page goes, and the picture where one is asked for."""
    given = {"html": config.output or _file_name(names), "png": config.png}
    return {kind: invocation.project.cwd / files.expanded(path) for kind, path in given.items() if path is not None}


def _refuse_existing(invocation: Invocation, config: ReportConfig, names: Sequence[str]) -> None:
    taken = [place for place in _places(invocation, config, names).values() if os.path.lexists(place)]
    if taken and not config.yes:
        shown = os.path.relpath(taken[0], invocation.project.cwd)
        raise Refused(f"{shown!r} is there already", hint="`--yes` replaces it, `--output` names another")


def _file_name(names: Sequence[str]) -> str:
    """The page's name after the runs: in the current folder, whatever the names hold, and not too long for a disk."""
    stem = re.sub(r"[/\\\x00-\x1f]", "_", "-".join(names))
    stem = stem.encode()[:_LONGEST].decode(errors="ignore")
    return f"./{stem}.html"


def _write_file(file: Path, kind: str, content: bytes) -> WrittenFile:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(file) as beside:
            beside.write_bytes(content)
    except OSError as error:
        hint = f"name another {'`--output`' if kind == 'html' else '`--png`'}, or make room"
        raise Failed(f"{str(file)!r} cannot be written: {error.strerror}", hint=hint) from error
    return WrittenFile(file=str(file), kind=kind, bytes=len(content))
