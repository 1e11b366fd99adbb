"""Benchmarks: how fast a model answered, trial by trial."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxops.errors import MlxopsError
from mlxops.registry.database import Registry, open_read_only
from mlxops.registry.rows import BenchmarkRow, JsonObject, TrialRow
from mlxops.registry.views import BenchmarkSummaryView

_PATIENCE_ELSEWHERE = 0.2  # seconds that a registry of another project is waited for


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One request that was timed; see `TrialRow`. Times are in seconds, memory is in bytes."""

    prompt_tokens: int
    context_tokens: int
    batch_size: int
    generated_tokens: int
    time_to_first_token: float
    prompt_tokens_per_second: float
    generation_tokens_per_second: float | None
    token_latencies: Sequence[float]
    peak_memory: int
    active_memory: int
    seconds: float


def record_benchmark(
    db: Registry,
    *,
    run_id: int | None,
    model: str,
    adapter_path: str | None,
    config: JsonObject,
    load_seconds: float,
    host: str,
    device: str,
    environment: JsonObject,
) -> int:
    """Record a benchmark that begins, and return its id."""
    with db.transaction() as connection:
        ((benchmark_id,),) = connection.execute(
            """
            INSERT INTO benchmarks (run_id, model, adapter_path, config, load_seconds, host, device, environment)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            RETURNING id
            """,
            (
                run_id,
                model,
                adapter_path,
                json.dumps(dict(config), allow_nan=False),
                load_seconds,
                host,
                device,
                json.dumps(dict(environment), allow_nan=False),
            ),
        ).fetchall()
    return int(benchmark_id)


def add_trial(db: Registry, benchmark_id: int, number: int, trial: Trial) -> None:
    """Record a trial of a benchmark; `number` counts from 1 over all its shapes."""
    with db.transaction() as connection:
        connection.execute(
            "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                benchmark_id,
                number,
                trial.prompt_tokens,
                trial.context_tokens,
                trial.batch_size,
                trial.generated_tokens,
                trial.time_to_first_token,
                trial.prompt_tokens_per_second,
                trial.generation_tokens_per_second,
                json.dumps(list(trial.token_latencies)),
                trial.peak_memory,
                trial.active_memory,
                trial.seconds,
            ),
        )


def mark_interrupted(db: Registry, benchmark_id: int) -> None:
    """Note that a benchmark ended before its last trial."""
    with db.transaction() as connection:
        connection.execute(
            "UPDATE benchmarks SET config = json_set(config, '$.interrupted', json('true')) WHERE id = ?",
            (benchmark_id,),
        )


def benchmark_summary(db: Registry, benchmark_id: int) -> list[BenchmarkSummaryView]:
    """The figures of a benchmark, as the view `benchmark_summary` has them: shape by shape in the order of trials."""
    return db.rows(
        """
        SELECT *
        FROM benchmark_summary
        WHERE id = ?
        ORDER BY context_tokens, prompt_tokens, generated_tokens, batch_size, metric
        """,
        (benchmark_id,),
        of=BenchmarkSummaryView,
    )


def speeds_of(db: Registry, run_id: int) -> list[BenchmarkSummaryView]:
    """How fast a run's adapter read and wrote, in tokens per second: its benchmarks from old to new."""
    return db.rows(
        """
        SELECT benchmark_summary.*
        FROM benchmarks
        CROSS JOIN benchmark_summary ON benchmark_summary.id = benchmarks.id
        WHERE benchmarks.run_id = ?
            AND benchmark_summary.metric IN ('prompt_tokens_per_second', 'generation_tokens_per_second')
        ORDER BY benchmarks.id, context_tokens, prompt_tokens, benchmark_summary.generated_tokens, batch_size,
            metric DESC
        """,
        (run_id,),
        of=BenchmarkSummaryView,
    )


def trials_of(db: Registry, benchmark_id: int) -> list[TrialRow]:
    """The trials of a benchmark in their order."""
    return db.rows("SELECT * FROM trials WHERE benchmark_id = ? ORDER BY trial", (benchmark_id,), of=TrialRow)


def benchmark_before(db: Registry, benchmark_id: int) -> BenchmarkRow | None:
    """The last benchmark before this one in this registry that has trials: same model, adapter and machine."""
    found = db.rows(
        """
        SELECT earlier.*
        FROM benchmarks AS this
        CROSS JOIN benchmarks AS earlier
        WHERE this.id = ?
            AND earlier.id < this.id
            AND earlier.model = this.model
            -- versions before this one did not store it
            AND coalesce(earlier.config ->> '$.model_identity', this.config ->> '$.model_identity')
                IS this.config ->> '$.model_identity'
            AND earlier.adapter_path IS this.adapter_path
            AND earlier.host = this.host
            AND earlier.device = this.device
            AND earlier.config ->> '$.draft_model' IS this.config ->> '$.draft_model'
            AND EXISTS (SELECT * FROM trials WHERE benchmark_id = earlier.id)
        ORDER BY earlier.id DESC
        LIMIT 1
        """,
        (benchmark_id,),
        of=BenchmarkRow,
    )
    return found[0] if found else None


@dataclass(frozen=True, kw_only=True)
class BenchmarkElsewhere:
    """A benchmark of another registry, with its trials."""

    registry: Path
    row: BenchmarkRow
    trials: Sequence[TrialRow]


def last_benchmark_elsewhere(
    paths: Iterable[Path],
    *,
    host: str,
    device: str,
    model_identity: str,
    adapter_sha256: str | None,
    draft_model: str | None,
) -> BenchmarkElsewhere | None:
    """The newest benchmark in some registries that has trials, of a model and adapter by their content.

    They are only read. One that is not there, or that cannot be read now or by this version, has none.
    """
    found: list[BenchmarkElsewhere] = []
    for path in paths:
        try:
            with open_read_only(path, patience=_PATIENCE_ELSEWHERE, is_foreign=True) as db:
                rows = db.rows(
                    """
                    SELECT *
                    FROM benchmarks
                    WHERE host = ?
                        AND device = ?
                        AND config ->> '$.model_identity' = ?
                        AND config ->> '$.adapter_sha256' IS ?
                        AND config ->> '$.draft_model' IS ?
                        AND EXISTS (SELECT * FROM trials WHERE benchmark_id = benchmarks.id)
                    ORDER BY created_at DESC, id DESC
                    LIMIT 1
                    """,
                    (host, device, model_identity, adapter_sha256, draft_model),
                    of=BenchmarkRow,
                )
                found += [BenchmarkElsewhere(registry=path, row=row, trials=trials_of(db, row["id"])) for row in rows]
        except (MlxopsError, sqlite3.Error, OSError):
            continue
    return max(found, key=lambda each: each.row["created_at"], default=None)
