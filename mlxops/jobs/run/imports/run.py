"""Importing what `mlx_lm.lora` trained: an adapter folder, or a log. Both are read and never written to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlxops import layout, recipe, registry
from mlxops.adapters import folders, foreign
from mlxops.config import ImportRunConfig, LoraConfig, older_names
from mlxops.errors import MlxopsError
from mlxops.jobs import commands
from mlxops.jobs.run.imports import log as import_log
from mlxops.jobs.run.imports import source as import_source
from mlxops.jobs.run.imports import weights as import_weights
from mlxops.jobs.run.imports.log import Story
from mlxops.jobs.run.imports.source import Source
from mlxops.jobs.run.imports.weights import Progress, Weights, in_words, whole
from mlxops.options import options_of
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import JsonObject


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """A source that is of a run of ours, which is in the registry."""

    name: str
    is_own: Literal[True] = True
    is_new: Literal[False] = False
    source: str
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What was read of a source, and what to know of it."""

    source: str
    log: str | None
    attempts: int
    reports: int
    validations: int
    checkpoints: int
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import did: the run, how many rows of each table are new or changed, what was read.

    `goes_on` is the command that resumes it in a run of its own. The target is None where the source does not tell it.
    """

    name: str
    is_own: Literal[False] = False
    is_new: bool
    changed: Mapping[str, int]
    status: str
    iteration: int
    target_iterations: int | None
    source: str
    log: str | None
    attempts: int
    reports: int
    validations: int
    checkpoints: int
    notes: Sequence[str]
    goes_on: str | None


def _silent(what: str, done: int, total: int) -> None:
    return None


def import_run(
    invocation: Invocation, config: ImportRunConfig, progress: Progress = _silent, defaults: LoraConfig | None = None
) -> ImportResult | OwnRun:
    """Bring a training of `mlx_lm.lora` into the registry, or what is new of one that was imported before.

    Of a folder or log of a run of ours nothing is imported. `defaults` are the project's settings of a training without
    options: the command that continues leaves them out. Raises `NotFound` or `BadRequest` where there is nothing to
    import.
    """
    project = invocation.project
    path = project.resolve(config.source)
    if own := import_source.own_run(invocation, path):
        return OwnRun(name=own, source=project.relative(path))
    source = import_source.find(project, path, config.source)
    said = _read_settings(source)
    with registry.open_registry(invocation.project.registry_path) as db, registry.gather_points(db) as points:
        story = _read_log(source.log, points, progress)
        points.close()
        hashes = _hashes(project, db, source)
        weights = import_weights.read(source, whole(said.get("iters")), story, hashes, progress)
        run = _run(project, source, config.name, said, story, weights)
        facts = _read_facts(project, source, story, weights)
        done = registry.record_import(
            db,
            run,
            is_same_source=lambda stored: import_source.is_same(project, stored, source.path),
            attempts=_attempts(source, said, story, weights, run),
            checkpoints=weights.rows,
            unread=weights.unread,
            offered=weights.offered,
            events=[_event(run, facts, story)],
        )
    command, needs = _goes_on(invocation, project, source, said, weights, asdict(defaults or LoraConfig()))
    if done.is_log_gone:
        needs = ["its log is gone: what that told stays as it was", *needs]
    return ImportResult(
        name=done.name,
        is_new=done.is_new,
        changed=done.changed,
        status=done.status,
        iteration=done.iteration,
        target_iterations=run.target_iterations if run.config["imported"]["is_target_known"] else None,
        goes_on=command,
        **vars(replace(facts, notes=[*facts.notes, *needs])),
    )


# reading it ----------------------------------------------------------------------------------------------------------


def _read_log(log: Path | None, points: registry.Points, progress: Progress) -> Story:
    if log is None:
        return Story()
    size = max(log.stat().st_size, 1)
    return import_log.read(log, points, lambda done: progress(f"reading {log.name}", done, max(size, done)))


def _hashes(project: Project, db: registry.Registry, source: Source) -> dict[tuple[str, int, str], str]:
    """What the files of this folder were hashed to before, by name, size and time."""
    for known in registry.imports_of(db) if source.folder else ():
        if import_source.is_same(project, known["imported_from"], source.path):
            rows = registry.checkpoints_of(db, known["id"])
            return {(row["adapter_file"], row["bytes"], row["created_at"]): row["adapter_sha256"] for row in rows}
    return {}


def _read_settings(source: Source) -> JsonObject:
    """What `adapter_config.json` says, nothing where it cannot be read."""
    return _writable(folders.read_settings(source.folder.folder)[0] or {}) if source.folder else {}


def _writable(values: JsonObject) -> JsonObject:
    """Settings as they can be written in UTF-8: JSON may hold halves of letters."""
    return dict(json.loads(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")))


# what the registry is told -------------------------------------------------------------------------------------------


def _run(
    project: Project, source: Source, name: str | None, said: JsonObject, story: Story, weights: Weights
) -> registry.ImportedRun:
    last = story.attempts[-1] if story.attempts else None
    iteration = max(weights.reached, last.reached if last else 0)
    target = whole(said.get("iters")) or (last.target if last else None)
    is_ended = last is not None and last.is_ended and (target is None or iteration >= target)
    is_finished = is_ended or (target is not None and iteration >= target)
    config = _config(source, said, story)
    identity = hashlib.sha256(f"{source.stored}\0{story.begins or ''}".encode()).hexdigest()
    begun, ended = _times(source, story, weights)
    return registry.ImportedRun(
        source=source.stored,
        name=name,
        short_name=source.path.name if source.folder else source.path.stem,
        begins=story.begins,
        identity=f"imported:{identity}",
        kind=config["fine_tune_type"],
        status="completed" if is_finished else "interrupted",
        model=_path(project, config.get("model")),
        data=_path(project, config.get("data")),
        config={
            **config,
            "imported": {
                "from": source.stored,
                "log": project.relative(source.log) if source.log else None,
                "begins": story.begins,
                "is_target_known": is_finished or target is not None,
                "settings": dict(said) or None,
            },
        },
        iteration=iteration,
        target_iterations=target or iteration,
        trained_tokens=last.trained_tokens if last else 0,
        created_at=in_words(begun[0]),
        ended_at=in_words(ended),
    )


def _config(source: Source, said: JsonObject, story: Story) -> JsonObject:
    """The settings by the names of `LoraConfig`, as far as they are known."""
    values: dict[str, Any] = dict(story.settings)
    if story.attempts and story.attempts[-1].target:
        values["iters"] = story.attempts[-1].target
    if source.folder and said:
        try:
            values |= _checked(recipe.read(source.folder.folder / layout.SETTINGS).values)
        except MlxopsError:  # written by a version with other settings: those that are the same are kept
            values |= _as_they_are(said)
    if values.get("fine_tune_type") not in ("lora", "dora", "full"):
        found = older_names.kind_of({**said, "fine_tune_type": None})
        values["fine_tune_type"] = found or "lora"
    optimizers = values.get("optimizer_config") or {}
    values["optimizer_config"] = {name: given for name, given in optimizers.items() if given}
    return _writable({name: value for name, value in values.items() if name not in commands.NO_SETTINGS})


def _as_they_are(said: JsonObject) -> JsonObject:
    lora = said.get("lora_parameters")
    lora = lora if isinstance(lora, Mapping) else {}
    flat = {**said, **{f"lora_{name}": value for name, value in lora.items()}}
    flat["num_layers"] = older_names.layers_of(said)
    return _checked(flat)


def _checked(values: JsonObject) -> JsonObject:
    """The settings that a training here could have."""
    checked = {}
    for option in options_of(LoraConfig):
        if values.get(option.name) is not None:
            try:
                checked[option.name] = option.check(values[option.name], option.name)
            except MlxopsError:
                continue
    return checked


def _attempts(
    source: Source, said: JsonObject, story: Story, weights: Weights, run: registry.ImportedRun
) -> list[registry.ImportedAttempt]:
    """The trainings of a log one after the other, the last one ending when the newest file was written."""
    attempts = story.attempts or [import_log.Attempt(from_iteration=0, reached=run.iteration)]
    begun, ended = _times(source, story, weights)
    resumed = said.get("resume_adapter_file")
    rows: list[registry.ImportedAttempt] = []
    for number, attempt in enumerate(attempts):
        is_last = number == len(attempts) - 1
        adapter = attempt.adapter or (resumed if is_last and isinstance(resumed, str) else None)
        is_finished = run.status == "completed" if is_last else attempt.is_finished
        rows.append(
            {
                "start_kind": "warm" if adapter else "fresh",
                "start_note": f"with the weights of {adapter}" if adapter else None,
                "from_iteration": attempt.from_iteration,
                "to_iteration": run.iteration if is_last else attempt.reached,
                "started_at": in_words(begun[number]),
                "ended_at": in_words(ended if is_last else begun[number + 1]),
                "end_reason": "finished" if is_finished else "unknown",
            }
        )
    return rows


def _times(source: Source, story: Story, weights: Weights) -> tuple[list[float], float]:
    """When each training began and the last ended, in seconds since 1970.

    The last ended when its newest weights were written, else its log. How long each took is what the log's rates add up
    to; without any, the settings were written when it began.
    """
    settings = source.folder.named(layout.SETTINGS) if source.folder else None
    other = source.log or source.path
    ended = max(weights.written, default=settings.modified if settings and not source.log else other.stat().st_mtime)
    begun, at = [], ended
    for attempt in reversed(story.attempts):
        at -= attempt.seconds
        begun.append(at)
    if not any(attempt.seconds for attempt in story.attempts):
        earliest = min([ended, *weights.written, *([settings.modified] if settings else [])])
        begun = [ended] * (len(begun) - 1) + [earliest]
    return begun[::-1], ended


def _read_facts(project: Project, source: Source, story: Story, weights: Weights) -> SourceFacts:
    notes = [*source.notes, *weights.notes]
    if source.folder and folders.read_settings(source.folder.folder)[0] is None:
        notes.append("there is no adapter_config.json that can be read, so its settings are not known")
    if len(story.attempts) > 1:
        notes.append(
            f"the log holds {len(story.attempts):,} trainings: where they overlap, the points are the later ones"
        )
    return SourceFacts(
        source=source.stored,
        log=project.relative(source.log) if source.log else None,
        attempts=max(len(story.attempts), 1),
        reports=story.reports,
        validations=story.validations,
        checkpoints=len(weights.rows),
        notes=notes,
    )


def _event(run: registry.ImportedRun, facts: SourceFacts, story: Story) -> registry.ImportedEvent:
    read = (("report", facts.reports), ("validation", facts.validations), ("checkpoint", facts.checkpoints))
    counts = ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in read)
    return {
        "iteration": run.iteration,
        "level": "info",
        "kind": "imported",
        "message": f"imported from {run.source}: {counts}",
        "detail": {**asdict(facts), "trainings": [attempt.to_json() for attempt in story.attempts]},
    }


def _goes_on(
    invocation: Invocation,
    project: Project,
    source: Source,
    said: JsonObject,
    weights: Weights,
    defaults: JsonObject,
) -> tuple[str | None, list[str]]:
    """The command that resumes a folder's weights in a run of ours, and what it needs; None without weights."""
    if source.folder is None or not weights.rows:
        return None, []
    # what programs load may be another training's
    path = source.path if weights.offered is not None else source.path / weights.rows[-1]["adapter_file"]
    file = source.path / weights.rows[-1]["adapter_file"]
    try:
        read = foreign.read(path, layers=_layers(file))
    except MlxopsError as error:
        return None, [f"it cannot be taken over: {error.message}"]
    more = whole(said.get("iters")) or 100
    target = more if more > read.iteration else read.iteration + more
    given = {**commands.DEFAULTS_OF_MLX_LM, **said} if said else said
    typed = commands.path_of(project, path)
    return commands.adopting(invocation, project, given, path=typed, target=target, shape=read.shape, defaults=defaults)


def _layers(file: Path) -> int:
    """How many layers the model has, of which an adapter trains the last."""
    places = (name.partition("layers.")[2].partition(".")[0] for name in folders.read_header(file).tensors)
    return 1 + max((int(place) for place in places if place.isdecimal()), default=0)


def _path(project: Project, text: object) -> str:
    """A model or data as the registry names it: from the root where it is there, else as it was written."""
    if not isinstance(text, str) or not text:
        return commands.UNKNOWN
    path = project.resolve(text)
    return project.relative(path) if path.exists() else text
