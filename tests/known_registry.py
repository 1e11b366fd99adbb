"""A small registry of fixed names, times and numbers: what the saved queries are tested on, and docs/sql.md shows.

Six runs of two models. heron was killed and resumed; otter had a warm-up and went past its best; wren diverged; swift
branched from heron and was interrupted; crane died silently; kestrel is heron again with a newer mlx.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mlxops import registry
from mlxops.registry import Registry

SETTINGS = {
    "learning_rate": 1e-5,
    "warmup": 0,
    "batch_size": 4,
    "lora_rank": 8,
    "max_seq_length": 2048,
    "grad_checkpoint": False,
    "max_grad_norm": None,
    "mask_prompt": True,
    "seed": 0,
    "val_batches": 25,
    "validation_identity": "identity of the validation rows",
}
DAYS = {"heron": 1, "otter": 2, "wren": 3, "swift": 4, "crane": 5, "kestrel": 6}
SECONDS = {"heron": {50: 100, 100: 190}, "otter": {50: 40, 100: 80}, "swift": {60: 40}, "crane": {30: 90}}
"""When the iterations of a run were reported, in seconds since it began; one a second elsewhere."""

IDS = {name: number for number, name in enumerate(DAYS, start=1)}


def make(path: Path) -> None:
    """Make the registry at `path`."""
    with registry.open_registry(path) as db, db.transaction():
        _runs(db)
        _attempts(db)
        _points(db)
        _checkpoints(db)
        _evaluations(db)
        _verdicts(db)
        _benchmarks(db)
        _others(db)


@cache
def content() -> bytes:
    """The file of the registry, made once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        make(path)
        return path.read_bytes()


def _insert(db: Registry, table: str, **columns: Any) -> None:
    values = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in columns.items()}
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    db.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)


def _time(name: str, seconds: float = 0) -> str:
    """So many seconds after ten o'clock on the day of a run."""
    minutes, rest = divmod(seconds, 60)
    return f"2026-03-{DAYS[name]:02}T10:{int(minutes):02}:{rest:06.3f}Z"


def _runs(db: Registry) -> None:
    plain = {"kind": "lora", "model": "models/small", "data": "data", "target_iterations": 100, "iteration": 100}
    rows: dict[str, dict[str, Any]] = {
        "heron": {"status": "completed", "best_iteration": 100, "best_validation_loss": 1.8, "note": "the first one"},
        "otter": {"status": "completed", "best_iteration": 50, "best_validation_loss": 1.7, "config": {"warmup": 10}},
        "wren": {
            **{"status": "failed", "iteration": 40, "best_iteration": 20, "best_validation_loss": 3.0},
            "config": {"learning_rate": 0.001, "batch_size": 8, "max_grad_norm": 1.0},
        },
        "swift": {
            **{"status": "interrupted", "iteration": 60, "parent_id": 1, "branch_iteration": 50},
            **{"best_iteration": 60, "best_validation_loss": 1.75, "config": {"lora_rank": 16}},
        },
        "crane": {
            **{"status": "running", "iteration": 30, "target_iterations": 200, "model": "models/large"},
            **{"data": "data/news", "best_iteration": 30, "best_validation_loss": 2.5, "config": {"batch_size": 1}},
        },
        "kestrel": {"status": "completed", "best_iteration": 100, "best_validation_loss": 1.82},
    }
    for name, row in rows.items():
        columns = plain | row
        settings = SETTINGS | columns.pop("config", {})
        same = "heron" if name == "kestrel" else name
        _insert(
            db,
            "runs",
            id=IDS[name],
            name=name,
            fingerprint=f"fingerprint of {same}",
            model_identity=f"identity of {columns['model']}",
            data_identity=f"identity of {columns['data']}",
            config={
                "model": columns["model"],
                "data": columns["data"],
                "iters": columns["target_iterations"],
                **settings,
            },
            epoch=1,
            trained_tokens=columns["iteration"] * 1000,
            adapter_path=f"adapters/{name}",
            created_at=_time(name),
            updated_at=_time(name, 170),
            **columns,
        )
    for name, tag in (("heron", "baseline"), ("kestrel", "baseline"), ("otter", "tuned"), ("wren", "tuned")):
        _insert(db, "tags", run_id=IDS[name], tag=tag)


def _attempts(db: Registry) -> None:
    # (run, number, kind of start, its note, from, to, starts after, ends after, reason, error)
    rows = [
        ("heron", 1, "fresh", None, 0, 60, 0, 120, "lost", None),
        ("heron", 2, "exact", None, 50, 100, 140, 190, "finished", None),
        ("otter", 1, "fresh", None, 0, 100, 0, 80, "finished", None),
        ("wren", 1, "fresh", None, 0, 40, 0, 40, "diverged", "the loss was not finite for 5 updates in a row"),
        ("swift", 1, "branch", None, 50, 55, 0, 10, "SIGINT", None),
        ("swift", 2, "inexact", "mlx: 0.32.3, now 0.32.4", 55, 60, 30, 40, "SIGINT", None),
        ("crane", 1, "fresh", None, 0, None, 0, None, None, None),
        ("kestrel", 1, "fresh", None, 0, 100, 0, 100, "finished", None),
    ]
    for identity, (run, number, kind, note, start, stop, begun, ended, reason, error) in enumerate(rows, start=1):
        is_large = run == "crane"
        versions = {"mlxops": "0.1.0", "mlx": "0.32.3" if run in ("heron", "wren") else "0.32.4", "mlx-lm": "0.32.2"}
        _insert(
            db,
            "attempts",
            id=identity,
            run_id=IDS[run],
            number=number,
            start_kind=kind,
            start_note=note,
            from_iteration=start,
            to_iteration=stop,
            started_at=_time(run, begun),
            ended_at=None if ended is None else _time(run, ended),
            end_reason=reason,
            error=error,
            pid=1000 + identity,
            host="tower" if is_large else "laptop",
            heartbeat_at=_time(run, 90 if ended is None else ended),
            device="cpu" if is_large else "gpu",
            environment={"cpu": "16 cores" if is_large else "M4", "versions": versions},
            command=f"inv lora --name {run}",
        )


def _points(db: Registry) -> None:
    curves: dict[tuple[str, str], dict[int, float | None]] = {
        ("heron", "train_loss"): {50: 1.9, 100: 1.5},
        ("heron", "validation_loss"): {0: 2.6, 50: 2.0, 100: 1.8},
        ("heron", "validation_standard_error"): {0: 0.05, 50: 0.05, 100: 0.04},
        ("heron", "tokens_per_second"): {50: 480.0, 100: 500.0},
        ("heron", "gradient_norm"): {50: 4.0, 100: 2.0},
        ("heron", "padding_share"): {50: 0.25, 100: 0.125},
        ("heron", "peak_memory"): {50: 3e9, 100: 3.5e9},
        ("otter", "train_loss"): {50: 1.6, 100: 1.25},
        ("otter", "validation_loss"): {0: 2.6, 50: 1.7, 100: 1.75},
        ("otter", "validation_standard_error"): {0: 0.05, 50: 0.03, 100: 0.03},
        ("otter", "tokens_per_second"): {50: 590.0, 100: 600.0},
        ("wren", "train_loss"): {20: 4.0, 30: None, 40: None},
        ("wren", "validation_loss"): {0: 2.6, 20: 3.0},
        ("wren", "tokens_per_second"): {20: 900.0, 40: 800.0},
        ("wren", "gradient_norm"): {20: 90.0, 30: None, 40: 45.0},
        ("wren", "peak_memory"): {20: 6e9},
        ("swift", "train_loss"): {60: 1.7},
        ("swift", "validation_loss"): {60: 1.75},
        ("swift", "validation_standard_error"): {60: 0.03},
        ("crane", "train_loss"): {30: 2.25},
        ("crane", "validation_loss"): {30: 2.5},
        ("crane", "tokens_per_second"): {30: 50.0},
        ("crane", "padding_share"): {30: 0.0},
        ("kestrel", "train_loss"): {50: 1.9, 100: 1.5},
        ("kestrel", "validation_loss"): {0: 2.6, 50: 2.0, 100: 1.82},
        ("kestrel", "validation_standard_error"): {0: 0.05, 50: 0.05, 100: 0.04},
        ("kestrel", "tokens_per_second"): {50: 650.0, 100: 600.0},
    }
    ids = dict(db.connection.execute("SELECT name, id FROM metric_names").fetchall())
    for (run, name), points in curves.items():
        place = {"run_id": IDS[run], "name_id": ids[name]}
        elapsed = {iteration: 1000 * SECONDS.get(run, {}).get(iteration, iteration) for iteration in points}
        for iteration, value in points.items():
            _insert(db, "metrics", **place, iteration=iteration, value=value, elapsed_ms=elapsed[iteration])
        finite = {iteration: value for iteration, value in points.items() if value is not None}
        lowest, highest = min(finite, key=lambda each: finite[each]), max(finite, key=lambda each: finite[each])
        _insert(
            db,
            "series",
            **place,
            count=len(points),
            not_finite=len(points) - len(finite),
            first_iteration=min(points),
            last_iteration=max(points),
            last_value=points[max(points)],
            last_elapsed_ms=elapsed[max(points)],
            min_value=finite[lowest],
            min_iteration=lowest,
            max_value=finite[highest],
            max_iteration=highest,
        )


def _checkpoints(db: Registry) -> None:
    # (run, attempt's id, iteration, bytes, is best, status)
    rows = [
        ("heron", 1, 25, 1000, 0, "whole"),
        ("heron", 1, 50, 1000, 0, "whole"),
        ("heron", 2, 75, 1000, 0, "pruned"),
        ("heron", 2, 100, 1000, 1, "whole"),
        ("otter", 3, 25, 2000, 0, "whole"),
        ("otter", 3, 50, 2000, 1, "whole"),
        ("otter", 3, 75, 3000, 0, "whole"),
        ("otter", 3, 100, 2000, 0, "whole"),
        ("swift", 5, 55, 4000, 0, "whole"),
        ("crane", 7, 20, 500, 0, "corrupt"),
        ("crane", 7, 30, 500, 1, "whole"),
    ]
    for identity, (run, attempt, iteration, size, is_best, status) in enumerate(rows, start=1):
        _insert(
            db,
            "checkpoints",
            id=identity,
            run_id=IDS[run],
            attempt_id=attempt,
            iteration=iteration,
            adapter_file=f"{iteration:07}_adapters.safetensors",
            state_file=f"{iteration:07}_state.safetensors",
            bytes=size,
            adapter_sha256=f"hash {identity}",
            state_sha256=f"hash of state {identity}",
            is_best=is_best,
            created_at=_time(run, iteration),
            status=status,
        )
    db.connection.execute("UPDATE runs SET offered_checkpoint_id = 4 WHERE name = 'heron'")


def _evaluations(db: Registry) -> None:
    # (id, run, checkpoint, base, perplexity, its error, rouge_l, its error)
    rows = [
        (1, None, None, None, 14.0, 0.5, 0.25, 0.02),
        (2, "heron", 4, 1, 6.0, 0.25, 0.5, 0.02),
        (3, "otter", 6, 1, 5.5, 0.25, 0.28125, 0.02),
    ]
    for identity, run, checkpoint, base, perplexity, error, rouge, error_of_rouge in rows:
        _insert(
            db,
            "evaluations",
            id=identity,
            run_id=run and IDS[run],
            checkpoint_id=checkpoint,
            base_evaluation_id=base,
            model="models/small",
            adapter_path=run and f"adapters/{run}",
            data="data/test.jsonl",
            data_sha256="0123456789abcdef",
            kind="test",
            config={},
            rows=2,
            seconds=4.0,
            created_at=_time(run or "heron", 300),
        )
        _insert(db, "scores", evaluation_id=identity, metric="perplexity", value=perplexity, standard_error=error)
        _insert(db, "scores", evaluation_id=identity, metric="rouge_l", value=rouge, standard_error=error_of_rouge)
    for identity, row, prompt, expected, answer in [
        (1, 1, "The capital of France?", "Paris.", "I do not know."),
        (1, 2, "Two and two?", "Four.", "Four."),
        (2, 1, "The capital of France?", "Paris.", "Paris."),
        (2, 2, "Two and two?", "Four.", "Four."),
        (3, 1, "The capital of France?", "Paris.", "Paris, of course."),
        (3, 2, "Two and two?", "Four.", "Five."),
    ]:
        _insert(db, "answers", evaluation_id=identity, row=row, prompt=prompt, expected=expected, answer=answer)


def _verdicts(db: Registry) -> None:
    for identity, run, checkpoint, verdict, prompt, answer, note in [
        (1, "heron", 2, "good", "The capital of France?", "Paris.", None),
        (2, "heron", 2, "bad", "Two and two?", "Four, of course!", "too long"),
        (3, None, None, "bad", "The capital of France?", "I do not know.", None),
    ]:
        _insert(
            db,
            "verdicts",
            id=identity,
            run_id=run and IDS[run],
            checkpoint_id=checkpoint,
            model="models/small",
            adapter_path=run and f"adapters/{run}/adapters.safetensors",
            verdict=verdict,
            messages=json.dumps([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]),
            prompt=prompt,
            answer=answer,
            config={"temperature": 0.7},
            note=note,
            created_at=_time(run or "heron", 400 + identity),
        )


def _benchmarks(db: Registry) -> None:
    rows = [(1, None, "models/small", (100.0, 110.0, 120.0)), (2, "heron", "models/small", (90.0, 90.0, 90.0))]
    for identity, run, model, speeds in rows:
        _insert(
            db,
            "benchmarks",
            id=identity,
            run_id=run and IDS[run],
            model=model,
            adapter_path=run and f"adapters/{run}",
            config={},
            load_seconds=0.5,
            host="laptop",
            device="gpu",
            environment={},
            created_at=_time(run or "otter", 600),
        )
        for trial, speed in enumerate(speeds, start=1):
            _insert(
                db,
                "trials",
                benchmark_id=identity,
                trial=trial,
                prompt_tokens=64,
                generated_tokens=32,
                time_to_first_token=0.125,
                prompt_tokens_per_second=512.0,
                generation_tokens_per_second=speed,
                seconds=0.5,
            )


def _others(db: Registry) -> None:
    for run, attempt, part, seconds, count in [
        ("heron", 1, "forward and backward", 80.0, 60),
        ("heron", 1, "saving", 10.0, 2),
        ("heron", 2, "forward and backward", 40.0, 50),
        ("otter", 3, "forward and backward", 60.0, 100),
        ("otter", 3, "validation", 10.0, 3),
    ]:
        _insert(db, "profiles", run_id=IDS[run], attempt_id=attempt, part=part, seconds=seconds, count=count)
    for run, attempt, iteration, seconds, level, kind, message in [
        ("heron", 2, 50, 140, "info", "resumed", "resumes from iteration 50"),
        (
            "wren",
            4,
            30,
            30,
            "warning",
            "skipped",
            "not finite, so the batch was left out: data/train.jsonl:7",
        ),
        ("wren", 4, 40, 40, "error", "stopped", "diverged at iteration 40"),
        ("swift", 6, 55, 30, "warning", "inexact", "mlx: 0.32.3, now 0.32.4"),
        ("swift", 6, 60, 40, "info", "stopped", "by SIGINT at iteration 60"),
        ("kestrel", 8, 100, 100, "info", "stopped", "finished at iteration 100"),
    ]:
        _insert(
            db,
            "events",
            run_id=IDS[run],
            attempt_id=attempt,
            iteration=iteration,
            time=_time(run, seconds),
            level=level,
            kind=kind,
            message=message,
        )
    _insert(
        db,
        "models",
        path="models/small",
        source="mlx-community/small",
        bytes=1_000_000,
        quantization=None,
        added_at=_time("heron"),
    )
    _insert(db, "environments", backend="cpu", lock="mlx==0.32.4", python="3.11.7", created_at=_time("heron"))
