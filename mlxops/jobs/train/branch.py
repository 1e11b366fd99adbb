"""Which run a branch leaves, at which of its checkpoints, and what goes over to the child."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops import files, layout, registry
from mlxops.errors import BadRequest, Failed, NotFound, SettingsDiffer
from mlxops.jobs.train.prepare import Prepared
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.projects.project import Project
from mlxops.registry import CheckpointRow, naming
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint
from mlxops.training.decide import differences
from mlxops.training.origin import SHAPE, Origin, origin_of, without_origin


@dataclass(frozen=True, kw_only=True)
class _Point:
    """Where a branch is asked for, what was left open being None; a word is `best` or `last`."""

    run: str | None
    iteration: int | None = None
    word: str = "last"


def settle(
    project: Project, db: registry.Registry | None, rows: Mapping[str, ResumableRun], prepared: Prepared
) -> Origin:
    """Where the child that the command asks for begins; `rows` are the runs there are, newest first.

    What the command leaves open (which run, which checkpoint) was settled when its child was made, and stays so: the
    same command resumes that child, however far its parent has come since.
    """
    config = prepared.config
    point = _parse(config.branch_from, rows, {each["name"] for each in registry.imports_of(db)} if db else set())
    own = named(project, rows, prepared)
    if own is not None or not config.new:
        children = [own] if own is not None else list(rows.values())
        made = [each for each in children if _is_asked_for(each, point, prepared, is_named=own is not None)]
        unfinished = [each for each in made if each.status != "completed"]
        if made:
            origin = origin_of((unfinished or made)[0].config)
            assert origin is not None
            return origin
    parent = rows[point.run] if point.run is not None else _most_similar(project, rows, prepared)
    _check_shape(parent, prepared)
    return _origin(project, db, parent, point, prepared)


def _parse(text: str | None, rows: Mapping[str, ResumableRun], imported: Collection[str]) -> _Point:
    if text is None:
        return _Point(run=None)
    name, place = naming.split_place(text, rows)
    if name in imported:
        raise BadRequest(
            f"the run {name!r} was imported, so nothing branches from it",
            hint="`--adopt DIR` continues an adapter folder of mlx_lm.lora",
        )
    run = naming.resolve(name, {each: row.id for each, row in rows.items()}, next(iter(rows), None))
    if place is None or place in ("best", "last"):
        return _Point(run=run, word=place or "last")
    return _Point(run=run, iteration=int(place))


def named(project: Project, rows: Mapping[str, ResumableRun], prepared: Prepared) -> ResumableRun | None:
    """The run that the command names as its own."""
    config = prepared.config
    if config.name in rows:
        return rows[str(config.name)]
    if config.adapter_path is None:
        return None
    stored = [row.adapter_path for row in rows.values()]
    place = project.relative(project.as_known(project.resolve(config.adapter_path), stored))
    return next((row for row in rows.values() if row.adapter_path == place), None)


def _is_asked_for(row: ResumableRun, point: _Point, prepared: Prepared, *, is_named: bool) -> bool:
    """Whether a run is the child that such a command made before."""
    origin = origin_of(row.config)
    if origin is None or origin.kind != "branch":
        return False
    if not is_named and without_origin(row.config.get("deciding", {})) != prepared.settings:
        return False
    # what was left open, or `latest`, means what it meant then
    is_same_point = point.iteration is not None and (origin.run, origin.iteration) == (point.run, point.iteration)
    return is_same_point or origin.asked == prepared.config.branch_from


def _most_similar(project: Project, rows: Mapping[str, ResumableRun], prepared: Prepared) -> ResumableRun:
    """The run with checkpoints that differs least from what is asked for; of several, the newest."""
    there = [row for row in rows.values() if checkpoints.iterations(project.from_root(row.adapter_path))]
    if not there:
        raise NotFound(
            "there is no run with a checkpoint to branch from", hint="the same without `--branch` starts a new run"
        )
    return min(there, key=lambda row: (bool(_misfits(row, prepared)), len(_differences(row, prepared))))


def _differences(row: ResumableRun, prepared: Prepared) -> tuple[tuple[str, Any, Any], ...]:
    return differences(without_origin(row.config.get("deciding", {})), prepared.settings)


def _misfits(row: ResumableRun, prepared: Prepared) -> list[tuple[str, Any, Any]]:
    """What keeps the weights of a run from being those a child begins with."""
    layers = prepared.model.layers

    def plain(name: str, value: Any) -> Any:
        return layers if name == "num_layers" and value == -1 else value

    return [
        (name, there, asked)
        for name, there, asked in _differences(row, prepared)
        if name in (*SHAPE, "model_identity") and plain(name, there) != plain(name, asked)
    ]


def _check_shape(parent: ResumableRun, prepared: Prepared) -> None:
    misfits = _misfits(parent, prepared)
    if not misfits:
        return
    flags = [
        f"--{name.replace('_', '-')} {','.join(there) if isinstance(there, list) else there}"
        for name, there, _ in misfits
        if name in SHAPE and there != []
    ]
    raise SettingsDiffer(
        f"a branch keeps the model and the LoRA shape of the run it leaves, and {parent.name!r} has another",
        misfits,
        hint=f"give {' '.join(flags)}" if flags else "`--model` names the model it was trained on",
    )


def _origin(
    project: Project, db: registry.Registry | None, parent: ResumableRun, point: _Point, prepared: Prepared
) -> Origin:
    """Where a new child begins: its parent's checkpoint, read through."""
    name, folder = parent.name, project.from_root(parent.adapter_path)
    rows = registry.checkpoints_of(db, parent.id) if db and parent.id else ()
    records = {record["iteration"]: record for record in rows}
    there = _usable(folder, records)
    iteration = point.iteration
    if point.word == "best":
        iteration = next((each for each, record in records.items() if record["is_best"]), None)
        if iteration is None:
            raise NotFound(f"no checkpoint of {name!r} is its best: none was validated", hint=_choice(there))
    if iteration is None:
        newest, damaged = checkpoints.newest(folder, fingerprint=parent.fingerprint)
        if newest is None:
            reason = f": {damaged[0].reason}" if damaged else ""
            raise NotFound(f"the run {name!r} has no whole checkpoint to branch from{reason}", hint=_choice(there))
        return _from(project, parent, newest, point, prepared)
    found = checkpoints.read(folder, iteration, fingerprint=parent.fingerprint)
    if isinstance(found, Checkpoint):
        return _from(project, parent, found, point, prepared)
    record = records.get(iteration)
    if record is None and not (folder / layout.state_name(iteration)).exists():
        raise NotFound(f"the run {name!r} has no checkpoint at iteration {iteration:,}", hint=_choice(there))
    if record is not None and record["status"] == "pruned":
        raise NotFound(f"the checkpoint of {name!r} at iteration {iteration:,} was pruned", hint=_choice(there))
    if record is not None and _has_weights_alone(folder, record):
        return _make(project, parent, point, prepared, iteration, record["adapter_sha256"], None, 0)
    others = [each for each in there if each != iteration]
    raise Failed(
        f"the checkpoint of {name!r} at iteration {iteration:,} cannot be used: {found.reason}", hint=_choice(others)
    )


def _usable(folder: Path, records: Mapping[int, CheckpointRow]) -> list[int]:
    """The iterations of which a checkpoint is there, by the looks of it."""
    weights = {each for each, record in records.items() if record["status"] == "whole" and record["state_pruned_at"]}
    there = {*checkpoints.iterations(folder), *weights}
    return sorted(each for each in there if (folder / layout.adapter_name(each)).exists())


def _choice(iterations: Sequence[int]) -> str:
    if not iterations:
        return "it has none; `inv runs` shows the runs there are"
    shown = ", ".join(map(str, iterations[-8:]))
    return f"there are checkpoints at {'…, ' if len(iterations) > 8 else ''}{shown}"


def _has_weights_alone(folder: Path, record: CheckpointRow) -> bool:
    """Whether a checkpoint whose state was pruned still has its weights, byte for byte."""
    return bool(record["state_pruned_at"]) and not files.problem(
        folder / record["adapter_file"], record["adapter_sha256"]
    )


def _from(project: Project, parent: ResumableRun, found: Checkpoint, point: _Point, prepared: Prepared) -> Origin:
    is_same = parent.config.get("deciding", {}).get("optimizer") == prepared.config.optimizer
    state = found.state_sha256 if is_same else None
    tokens = found.counters.trained_tokens
    return _make(project, parent, point, prepared, found.iteration, found.adapter_sha256, state, tokens)


def _make(
    project: Project,
    parent: ResumableRun,
    point: _Point,
    prepared: Prepared,
    iteration: int,
    adapter_sha256: str,
    state_sha256: str | None,
    trained_tokens: int,
) -> Origin:
    optimizer = "its optimizer state is kept" if state_sha256 else "the optimizer starts fresh"
    return Origin(
        kind="branch",
        iteration=iteration,
        folder=parent.adapter_path,
        file=layout.adapter_name(iteration),
        adapter_sha256=adapter_sha256,
        state_sha256=state_sha256,
        trained_tokens=trained_tokens,
        run=parent.name,
        asked=prepared.config.branch_from,
        note=f"a branch of {parent.name} at iteration {iteration:,}; {optimizer}",
    )
