"""Which run a branch leaves, at which of its checkpoints, and what goes over to the child."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxops import files, layout, registry
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, Failed, NotFound, SettingsDiffer
from mlxops.jobs.train import resume
from mlxops.jobs.train.prepare import Prepared
from mlxops.jobs.train.resumable import ResumableRun
from mlxops.options import asked, changed, options_of
from mlxops.projects.project import Project
from mlxops.registry import CheckpointRow, JsonObject, naming
from mlxops.registry.imported import ImportSource
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint
from mlxops.training.decide import differences
from mlxops.training.fingerprint import complete
from mlxops.training.origin import SHAPE, Origin, origin_of, without_origin


@dataclass(frozen=True, kw_only=True)
class _Point:
    """Where a branch is asked for; `run` is None where that was left open."""

    run: str | None
    place: naming.Place = "last"

    @property
    def iteration(self) -> int | None:
        """The iteration that was named."""
        return self.place if isinstance(self.place, int) else None


def inherit(project: Project, config: LoraConfig) -> LoraConfig:
    """The settings of a command that branches from a run: those of that run where the command gives none.

    Settings of the project are none of the command's. A child that was made when nothing was inherited is meant by the
    command that made it, as long as no other child is. Raises `NotFound` where there is no such run.
    """
    if not config.branch or config.branch_from is None or not project.registry_path.is_file():
        return config
    with registry.open_read_only(project.registry_path) as db:
        rows = registry.candidate_runs(db)
        text, _ = naming.split_place(config.branch_from, [row["name"] for row in rows])
        try:
            run = registry.find_run(db, text)
        except BadRequest:
            # the text may have meant one run alone when a child of it was made, which has a part of it in its name
            origins = [origin for row in rows if (origin := origin_of(row["config"])) and origin.run]
            parent = next((origin.run for origin in origins if origin.asked == config.branch_from), None)
            if parent is None:
                raise
            run = registry.find_run(db, parent)
    if run["imported_from"] is not None:
        return config  # it is refused where all is checked
    given = asked(config)
    stored = resume.paths_here(project, run, complete(run["config"]))
    values = {name: stored[name] for name in resume.INHERITED if name in stored and name not in given}
    if "iters" in given:
        values["epochs"] = None
    inherited: LoraConfig = changed(config, **values)
    children = [row["config"] for row in rows if (origin := origin_of(row["config"])) and origin.run == run["name"]]
    is_of_before = not any(_has(each, inherited) for each in children) and any(_has(each, config) for each in children)
    return config if is_of_before else inherited


def _has(config: JsonObject, typed: LoraConfig) -> bool:
    """Whether a child has the deciding settings of a command, as far as it knows them without the model."""
    stored = complete(config)
    pairs = [(stored.get(name), getattr(typed, name)) for name in _DECIDING]
    return all(there == asked for there, asked in pairs if asked is not None)


_DECIDING = tuple(each.name for each in options_of(LoraConfig) if each.role == "weights")


def settle(
    project: Project, db: registry.Registry | None, rows: Mapping[str, ResumableRun], prepared: Prepared
) -> Origin:
    """Where the child that the command asks for begins; `rows` are the runs there are, newest first.

    What the command leaves open (which run, which checkpoint) was settled when its child was made, and stays so: the
    same command resumes that child, however far its parent has come since.
    """
    config = prepared.config
    own = named(project, rows, prepared)
    children = [own] if own is not None else [] if config.new else list(rows.values())
    made = _of_this_command(children, prepared, is_named=own is not None)
    # a part of a name may be one of the child's name, too: the text means what it meant when the child was made
    found = [row for row in made if _origin_of(row).asked == config.branch_from]
    if not found:
        point = _parse(config.branch_from, rows, registry.imports_of(db) if db else ())
        found = [row for row in made if _is_at(_origin_of(row), point)]
    if found:
        return _origin_of(next((row for row in found if row.status != "completed"), found[0]))
    parent = rows[point.run] if point.run is not None else _most_similar(project, rows, prepared)
    _check_shape(parent, prepared)
    return _origin(project, db, parent, point, prepared)


def _parse(text: str | None, rows: Mapping[str, ResumableRun], imported: Sequence[ImportSource]) -> _Point:
    if text is None:
        return _Point(run=None)
    known = {name: row.id for name, row in rows.items()} | {each["name"]: each["id"] for each in imported}
    typed, place = naming.split_place(text, known)
    name = naming.resolve(typed, known, next(iter(rows), None))
    if name not in rows:
        raise BadRequest(
            f"the run {name!r} was imported, so nothing branches from it",
            hint="`--adopt DIR` continues an adapter folder of mlx_lm.lora",
        )
    return _Point(run=name, place="last" if place is None else place)


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


def _of_this_command(rows: Iterable[ResumableRun], prepared: Prepared, *, is_named: bool) -> list[ResumableRun]:
    """The branches that such a command can have made before, whatever they branched from."""
    return [
        row
        for row in rows
        if (origin := origin_of(row.config)) is not None
        and origin.kind == "branch"
        and (is_named or without_origin(row.config.get("deciding", {})) == prepared.settings)
    ]


def _is_at(origin: Origin, point: _Point) -> bool:
    return point.iteration is not None and (origin.run, origin.iteration) == (point.run, point.iteration)


def _origin_of(child: ResumableRun) -> Origin:
    origin = origin_of(child.config)
    assert origin is not None
    return origin


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
    hint = naming.choice(name, there)
    iteration = point.iteration
    if point.place == "best":
        iteration = next((each for each, record in records.items() if record["is_best"]), None)
        if iteration is None:
            raise naming.missing_place(name, "best", there)
    if iteration is None:
        newest, damaged = checkpoints.newest(folder, fingerprint=parent.fingerprint)
        if newest is None:
            reason = f": {damaged[0].reason}" if damaged else ""
            raise NotFound(f"the run {name!r} has no whole checkpoint to branch from{reason}", hint=hint)
        return _from(project, parent, newest, point, prepared)
    found = checkpoints.read(folder, iteration, fingerprint=parent.fingerprint)
    if isinstance(found, Checkpoint):
        return _from(project, parent, found, point, prepared)
    record = records.get(iteration)
    if record is None and not (folder / layout.state_name(iteration)).exists():
        raise naming.missing_place(name, iteration, there)
    if record is not None and record["status"] == "pruned":
        raise NotFound(f"the checkpoint of {name!r} at iteration {iteration:,} was pruned", hint=hint)
    if record is not None and _has_weights_alone(folder, record):
        return _make(project, parent, point, prepared, iteration, record["adapter_sha256"], None, 0)
    others = [each for each in there if each != iteration]
    raise Failed(
        f"the checkpoint of {name!r} at iteration {iteration:,} cannot be used: {found.reason}",
        hint=naming.choice(name, others),
    )


def _usable(folder: Path, records: Mapping[int, CheckpointRow]) -> list[int]:
    """The iterations of which a checkpoint is there, by the looks of it."""
    weights = {each for each, record in records.items() if record["status"] == "whole" and record["state_pruned_at"]}
    there = {*checkpoints.iterations(folder), *weights}
    return sorted(each for each in there if (folder / layout.adapter_name(each)).exists())


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
