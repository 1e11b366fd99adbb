"""Runs: making, changing, finding and listing them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from mlxops import layout, system, texts
from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.likeness import nearest
from mlxops.registry import naming
from mlxops.registry.database import Registry
from mlxops.registry.names import readable_name
from mlxops.registry.processes import boot_id, this_host
from mlxops.registry.rows import JsonObject, RunRow
from mlxops.registry.views import RunSummaryView


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """A run just made; `adapter_path` is as stored, relative to the project's root."""

    id: int
    name: str
    adapter_path: str


class FoundRun(RunRow):
    """A run with its tags; its `status` may be `lost`."""

    tags: list[str]


class CandidateRun(TypedDict):
    """What deciding between new, resume and finished needs of a run."""

    id: int
    name: str
    status: str
    fingerprint: str
    config: JsonObject
    model: str
    model_identity: str
    data: str
    data_identity: str
    iteration: int
    target_iterations: int
    adapter_path: str
    imported_from: str | None
    created_at: str


def create_run(
    db: Registry,
    *,
    name: str | None,
    kind: str,
    fingerprint: str,
    model: str,
    model_identity: str,
    data: str,
    data_identity: str,
    config: JsonObject,
    target_iterations: int,
    adapter_path: str | None,
    note: str | None = None,
    tags: Iterable[str] = (),
    parent_id: int | None = None,
    branch_iteration: int | None = None,
    word_seed: int | None = None,
    avoid: Collection[str] = (),
) -> CreatedRun:
    """Record a new run.

    Without a name it gets a readable one, unlike all in `avoid`, within the transaction; without an
    adapter path it gets `adapters/NAME`. Raises `Refused` for a name that is there already.
    """
    if name is not None:
        check_new_name(None, name)
    with db.transaction():
        if name is None:
            name = new_name(db, model, word_seed, avoid)
        else:
            check_new_name(db, name)
        path = f"adapters/{name}" if adapter_path is None else adapter_path
        inserted = db.tables["runs"].insert(
            {
                "name": name,
                "kind": kind,
                "fingerprint": fingerprint,
                "parent_id": parent_id,
                "branch_iteration": branch_iteration,
                "model": model,
                "model_identity": model_identity,
                "data": data,
                "data_identity": data_identity,
                "config": to_json(config),
                "target_iterations": target_iterations,
                "adapter_path": path,
                "note": note,
            }
        )
        run_id = int(inserted.last_pk)
        _insert_tags(db, run_id, tags)
    return CreatedRun(run_id, name, path)


def new_name(db: Registry, model: str, word_seed: int | None, avoid: Collection[str] = ()) -> str:
    """A readable name that no run has; only within a transaction does it stay so."""
    taken = {layout.folded(name) for name in (*_names(db), *avoid)}
    return readable_name(model, word_seed, lambda name: layout.folded(name) in taken)


def check_new_name(db: Registry | None, name: str) -> None:
    """Raise `BadRequest` or `Refused` for a name that no new run can have; without a registry no run has it."""
    texts.check_name(name, texts.RUN)
    if db is not None:
        check_is_free(db, name)


def check_is_free(db: Registry, name: str) -> None:
    """Raise `Refused` for a name that a run has, in this spelling or in one that some system takes for the same."""
    there = layout.known_spelling(name, names := _names(db))
    if there in names:
        why = "" if there == name else f", and {name!r} is the same folder on some systems"
        raise Refused(f"there is a run {there!r} already{why}", hint="choose another `--name`, or give none")


def is_free(db: Registry, name: str) -> bool:
    """Whether no run has this name, nor one that some system takes for the same."""
    return layout.known_spelling(name, names := _names(db)) not in names


def _names(db: Registry) -> list[str]:
    return [row["name"] for row in db.rows("SELECT name FROM runs ORDER BY id DESC")]


_CHANGEABLE = ("model", "data", "config", "target_iterations", "adapter_path", "note")


def update_run(db: Registry, run_id: int, **columns: Any) -> None:
    """Change what does not touch the fingerprint: model and data paths, config, target, adapter path, note."""
    if unknown := columns.keys() - set(_CHANGEABLE):
        raise TypeError(f"update_run() cannot change {', '.join(sorted(unknown))}")
    if "config" in columns:
        columns["config"] = to_json(columns["config"])
    with db.transaction() as connection:
        db.tables["runs"].update(run_id, columns)
        if columns.keys() - {"note"}:  # what a person says of a run is no work on it
            connection.execute(
                "UPDATE runs SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE id = ?", (run_id,)
            )


def set_created(db: Registry, run_id: int, created_at: str) -> None:
    """Have a run whose row was made again count its time from when it was first created."""
    with db.transaction() as connection:
        connection.execute("UPDATE runs SET created_at = min(created_at, ?) WHERE id = ?", (created_at, run_id))
    db.created_ms.pop(run_id, None)


def set_tags(db: Registry, run_id: int, tags: Iterable[str]) -> None:
    """Give a run these tags and no others."""
    with db.transaction() as connection:
        connection.execute("DELETE FROM tags WHERE run_id = ?", (run_id,))
        _insert_tags(db, run_id, tags)


def change_tags(db: Registry, run_id: int, *, add: Iterable[str], remove: Iterable[str]) -> list[str]:
    """Give a run more tags and take others away; returns those it has now. One in both is taken away."""
    with db.transaction() as connection:
        _insert_tags(db, run_id, add)
        connection.executemany(
            "DELETE FROM tags WHERE run_id = ? AND tag = ?", [(run_id, tag.strip()) for tag in remove]
        )
        found = connection.execute("SELECT tag FROM tags WHERE run_id = ? ORDER BY tag", (run_id,)).fetchall()
    return [tag for (tag,) in found]


def all_tags(db: Registry) -> list[str]:
    """Every tag that some run has, each once."""
    return [tag for (tag,) in db.connection.execute("SELECT DISTINCT tag FROM tags ORDER BY tag").fetchall()]


def _insert_tags(db: Registry, run_id: int, tags: Iterable[str]) -> None:
    cleaned = sorted({texts.check_name(tag.strip(), texts.TAG) for tag in tags if tag.strip()})
    db.connection.executemany(
        "INSERT INTO tags (run_id, tag) VALUES (?, ?) ON CONFLICT DO NOTHING", [(run_id, tag) for tag in cleaned]
    )


def speeds_here(db: Registry, *, model: str) -> list[float]:
    """How fast each run of a model trained on this machine, in trained tokens per second."""
    return [
        float(speed)
        for (speed,) in db.connection.execute(
            """
            SELECT run_speed.tokens_per_second
            FROM run_speed
            JOIN runs ON runs.id = run_speed.run_id
            JOIN attempts ON attempts.id = run_speed.attempt_id
            WHERE runs.model = ? AND (attempts.host = ? OR attempts.boot_id = ?)
            """,
            (model, this_host(), boot_id() if system.ON_MACOS else None),
        )
    ]


def list_runs(
    db: Registry,
    *,
    status: str | None = None,
    model: str | None = None,
    tag: str | None = None,
    text: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int | None = None,
    order: str | None = None,
) -> list[RunSummaryView]:
    """The runs, the newest first, or by the column `order` (`-column` turns it round; NULL comes last).

    `status` and `tag` are whole words; `model` and `text` are found anywhere, in any case: `text` in name, note, tags,
    model and data. `since` and `until` are times of the registry: begun at or after the one and before the other.
    """
    return db.rows(
        f"""
        SELECT *
        FROM run_summary
        WHERE (:status IS NULL OR status = :status)
            AND (:model IS NULL OR instr(lower(model), lower(:model)))
            AND (:tag IS NULL OR id IN (SELECT run_id FROM tags WHERE tag = :tag))
            AND (:text IS NULL OR instr(
                lower(name || ' ' || model || ' ' || data || ' ' || coalesce(note, '') || ' ' || coalesce(tags, '')),
                lower(:text)
            ))
            AND (:since IS NULL OR created_at >= :since)
            AND (:until IS NULL OR created_at < :until)
        ORDER BY {_order(db, order)}
        LIMIT :limit
        """,
        {
            "status": status,
            "model": model,
            "tag": tag,
            "text": text,
            "since": since,
            "until": until,
            "limit": -1 if limit is None else limit,
        },
        of=RunSummaryView,
    )


def summary_columns(db: Registry) -> list[str]:
    """The names of the columns of `run_summary`, in their order."""
    return [row["name"] for row in db.rows("SELECT name FROM pragma_table_info('run_summary')")]


def check_column(db: Registry, column: str) -> None:
    """Raise `BadRequest`, with the nearest, for a name that is no column of `run_summary`."""
    columns = summary_columns(db)
    if column not in columns:
        near = nearest(column, columns)
        raise BadRequest(
            f"runs have no column {column!r}",
            hint=f"did you mean {near!r}?" if near else f"there are {', '.join(columns)}",
        )


def _order(db: Registry, order: str | None) -> str:
    if order is None:
        return "id DESC"
    column = order.removeprefix("-")
    check_column(db, column)
    direction = "DESC" if order.startswith("-") else "ASC"
    # of two runs begun in one millisecond the later one is the one with the higher id
    later = direction if column == "created_at" else "DESC"
    return f'"{column}" {direction} NULLS LAST, id {later}'


def find_run(db: Registry, text: str) -> FoundRun:
    """The run that a text means (`naming.resolve`); `latest` is the newest that was trained here, where there is any.

    Raises `NotFound` with the names most like it, and `BadRequest` for a part of several names.
    """
    there = db.connection.execute("SELECT name, id, imported_from IS NULL FROM runs ORDER BY id DESC").fetchall()
    newest = next((name for name, _, is_own in there if is_own), there[0][0] if there else None)
    return run_named(db, naming.resolve(text, {name: number for name, number, _ in there}, newest))


def run_named(db: Registry, name: str) -> FoundRun:
    """The run of exactly this name, for what knows it already; raises `NotFound` where it was deleted since."""
    found = db.rows(
        """
        SELECT runs.*, (SELECT status FROM run_summary WHERE run_summary.id = runs.id) AS status
        FROM runs WHERE runs.name = :name
        """,
        {"name": name},
        of=FoundRun,
    )
    if not found:
        raise NotFound(f"the run {name!r} is not there any more", hint="`inv runs` shows the runs there are")
    (run,) = found
    run["tags"] = [row["tag"] for row in db.rows("SELECT tag FROM tags WHERE run_id = ? ORDER BY tag", (run["id"],))]
    return run


def candidate_runs(db: Registry) -> list[CandidateRun]:
    """What deciding between new, resume and finished needs of every run, the newest first."""
    return db.rows(
        """
        SELECT runs.id, runs.name, run_summary.status, runs.fingerprint, runs.config, runs.model, runs.model_identity,
            runs.data, runs.data_identity, runs.iteration, runs.target_iterations, runs.adapter_path,
            runs.imported_from, runs.created_at
        FROM runs JOIN run_summary ON run_summary.id = runs.id
        ORDER BY runs.id DESC
        """,
        of=CandidateRun,
    )


def to_json(value: object) -> str:
    """JSON text that SQLite takes as valid: NaN and the infinities raise ValueError."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def id_of(db: Registry, name: str) -> int | None:
    """The id of the run of this name, None where there is none."""
    found = db.connection.execute("SELECT id FROM runs WHERE name = ?", (name,)).fetchall()
    return found[0][0] if found else None


def find_runs(db: Registry, names: Sequence[str]) -> list[FoundRun]:
    """The runs of these names, each once, in the order named; raises `NotFound` before anything is done to one."""
    found = {run["id"]: run for run in (find_run(db, name) for name in whole_names(db, names))}
    return list(found.values())


def whole_names(db: Registry, words: Sequence[str]) -> list[str]:
    """The words of a list with commas, those put together again that are one name: runs were once called so."""
    known = {",".join(map(str.strip, name.split(","))): name for name in _names(db) if "," in name}
    found, place = [], 0
    while place < len(words):
        longest = (end for end in range(len(words), place, -1) if ",".join(words[place:end]) in known)
        end = next(longest, place + 1)
        typed = ",".join(words[place:end])
        found.append(known.get(typed, typed))
        place = end
    return found
