"""Write db/datasette.yaml: what Datasette says of each table, view and column, and the saved queries as its own.

python docs/datasette_yaml.py [--check] [--file FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mlxops import registry  # noqa: E402
from mlxops.registry import SavedQuery  # noqa: E402
from mlxops.registry.sql.text import tokens  # noqa: E402

HEAD = """\
# What Datasette says of a registry: datasette runs.db -m db/datasette.yaml
# Written by docs/datasette_yaml.py: change that, or db/queries, and not this file.
"""

# title, description, and what else Datasette should know: how to sort, which column names a row, what to count by
VIEWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "run_summary": (
        "Runs",
        "One row a run: how far it is, its losses, its speed. Begin here.",
        {"sort_desc": "id", "facets": ["status", "model"]},
    ),
    "metric": ("Points", "One row a point of a curve: a loss, a learning rate, a speed at an iteration.", {}),
    "loss_curve": (
        "Loss curves",
        "One row for each iteration with a training or a validation loss.",
        {},
    ),
    "latest_metric": ("Newest points", "The newest point of every curve of every run.", {"sort": "run"}),
    "best_checkpoint": (
        "Best checkpoints",
        "The whole checkpoint with the lowest validation loss of each run that has one.",
        {"sort": "validation_loss"},
    ),
    "checkpoint_summary": ("Checkpoints of runs", "One row a checkpoint.", {"facets": ["status"]}),
    "run_speed": (
        "Speed of runs",
        "How fast each run trained: the median of the last 25 reports of its newest attempt.",
        {"sort_desc": "tokens_per_second", "facets": ["device"]},
    ),
    "run_lineage": ("Lineage", "For each run itself and every ancestor.", {"sort": "run"}),
    "event": (
        "What happened",
        "Starts, stops, warnings and errors, each thing once.",
        {"sort_desc": "id", "facets": ["level", "kind"]},
    ),
    "evaluation_summary": ("Scores of runs", "One row a score of an evaluation.", {"sort_desc": "id"}),
    "answer": ("Answers compared", "One row an answer, with and without the adapter.", {}),
    "verdict": (
        "Verdicts",
        "What a person thinks of answers in a chat.",
        {"sort_desc": "id", "facets": ["verdict", "run"]},
    ),
    "benchmark_summary": (
        "Benchmarks in figures",
        "One row a benchmark, shape of request and figure. Percentiles are measured values.",
        {"sort_desc": "id", "facets": ["metric"]},
    ),
    "disk_use": ("Disk use", "What the whole checkpoints of each run take.", {"sort_desc": "bytes"}),
}
TABLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "runs": (
        "Runs as stored",
        "One row a training. A run whose process died is still running here: the view run_summary knows better.",
        {"label_column": "name", "sort_desc": "id"},
    ),
    "tags": ("Tags", "Which tags a person gave to a run.", {}),
    "attempts": (
        "Attempts",
        "One row for each process that worked on a run.",
        {"label_column": "number", "sort_desc": "id"},
    ),
    "metric_names": ("Names of curves", "What is measured, in which unit.", {"label_column": "name", "hidden": True}),
    "metrics": ("Points as stored", "Every point. The view metric has names instead of numbers.", {"hidden": True}),
    "series": ("Curves as stored", "One row a curve: points, first, last, lowest, highest.", {"hidden": True}),
    "checkpoints": (
        "Checkpoints as stored",
        "One row a checkpoint; files are in the run's folder.",
        {"label_column": "iteration", "sort_desc": "id"},
    ),
    "evaluations": (
        "Evaluations",
        "What was asked of a model or of a checkpoint.",
        {"label_column": "kind", "sort_desc": "id"},
    ),
    "scores": ("Scores", "What came of an evaluation, in figures.", {}),
    "answers": ("Answers", "What a model said to a row of the data.", {}),
    "verdicts": ("Verdicts as stored", "One row a verdict on an answer in a chat.", {"sort_desc": "id"}),
    "benchmarks": ("Benchmarks", "One row a benchmark of a model.", {"label_column": "model", "sort_desc": "id"}),
    "trials": ("Trials", "Every trial of a benchmark; the warm-up is none.", {}),
    "profiles": ("Where time went", "Seconds of an attempt by part of the work.", {}),
    "events": ("Events as stored", "The view event shows each thing once.", {"sort_desc": "id"}),
    "models": ("Models", "What models are on disk.", {"label_column": "path"}),
    "environments": ("Environments", "Lock files of environments that worked.", {"label_column": "backend"}),
}  # fmt: skip

ELAPSED = "since the run was created; of an imported run, the time at work that its log accounts for"

# what a column holds, whichever table it is of
COLUMNS = {
    "drift": "how far a straight line through the trials climbs from the first to the last, as a share of the mean",
    "is_interrupted": "1 where it ended before its last trial",
    "active_memory": "memory in use, in bytes",
    "adapter_file": "the weights; from the project's root in views, from the run's folder in tables",
    "adapter_path": "the run's folder",
    "adapter_sha256": "hash of the weights' file",
    "added_at": "when it was added",
    "ancestor": "name of the run itself, its parent, or a parent before that",
    "answer": "what it said",
    "at_iteration": "how far it was at its last heartbeat",
    "attempt": "number of the attempt",
    "attempt_id": "the attempt at work",
    "attempts": "how many there were",
    "backend": "what MLX computes with",
    "base_answer": "what was said without the adapter",
    "base_evaluation_id": "the evaluation that this one is compared with",
    "base_value": "the same score of the evaluation compared with",
    "batch_size": "requests at once",
    "benchmark_id": "the benchmark",
    "best_iteration": "where the validation loss was lowest",
    "best_train_loss": "the lowest train loss",
    "best_validation_loss": "the lowest validation loss",
    "better": "which way is better: lower or higher",
    "boot_id": "which start of the machine",
    "branch_iteration": "the iteration of the parent at which the line left it",
    "bytes": "size of the files",
    "checkpoint_id": "the checkpoint",
    "checkpoints": "how many are whole",
    "closing_elapsed_ms": f"of the validation that ended the run here before it was extended, milliseconds {ELAPSED}",
    "closing_standard_error": "how well the validation loss is known that ended the run here before it was extended",
    "command": "what was typed",
    "config": "all settings, automatic choices included, as JSON",
    "context_tokens": "tokens before the prompt",
    "count": "how many",
    "created_at": "when it was made, in UTC",
    "data": "file or folder of the data",
    "data_identity": "hash of the tokenized data; of an imported run, for which nobody knows it, its name",
    "data_sha256": "hash of the data's file",
    "detail": "more of it, as JSON",
    "device": "what it was computed on",
    "difference": "value minus base_value",
    "elapsed_ms": f"milliseconds {ELAPSED}",
    "elapsed_seconds": f"seconds {ELAPSED}",
    "end_reason": "finished, early stopping, diverged, error, lost, or the signal that stopped it",
    "ended_at": "when it ended, in UTC; empty while it is at work",
    "environment": "versions, BLAS, threads, system and memory, as JSON",
    "epoch": "passes over the data begun",
    "error": "what went wrong",
    "eta_seconds": "seconds left by the estimate of the attempt at work",
    "evaluation_id": "the evaluation",
    "expected": "what the data answers",
    "expected_end_at": "when it will end by its own estimate, in UTC, as of its last heartbeat",
    "fingerprint": "hash of all that decides the weights; of an imported run, for which that is not known, of where it "
    "was read from",
    "first_iteration": "of the first point",
    "from_iteration": "the iteration it began after",
    "generated_tokens": "tokens generated",
    "generations": "0 for the run itself, 1 for its parent",
    "git_commit": "commit of the project",
    "heartbeat_at": "when it last said that it is alive, in UTC",
    "highest": "the highest",
    "host": "name of the machine",
    "id": "number",
    "imported_from": "the log or folder of another tool that it was read from; empty for a training of mlxops",
    "is_best": "1 where the validation loss is the run's lowest",
    "is_offered": "1 where the run's adapter is a copy of it",
    "is_resumable": "1 where a training can resume from it",
    "iteration": "iteration of the training",
    "iterations_per_second": "rate of the newest attempt's last steps, validations and checkpoints left out",
    "kind": "what kind",
    "last_elapsed_ms": f"of the newest point, milliseconds {ELAPSED}",
    "last_iteration": "of the newest point",
    "last_value": "the newest value; empty where it was not finite",
    "level": "info, warning or error",
    "load_seconds": "seconds that loading the model took",
    "lock": "every package with its version",
    "lowest": "the lowest",
    "max_iteration": "where it was highest",
    "max_value": "the highest",
    "mean": "mean of the trials",
    "median": "the middle one of the trials",
    "message": "what happened, in words",
    "messages": "the conversation up to the answer, as JSON",
    "metric": "what was measured",
    "min_iteration": "where it was lowest",
    "min_value": "the lowest",
    "model": "folder of the model, or its id on the hub",
    "model_identity": "hash of the model's files; of an imported run, for which nobody knows it, its name",
    "name": "name",
    "name_id": "which curve",
    "newest_at": "when the newest was written, in UTC",
    "not_finite": "how many points were not finite",
    "note": "what a person noted",
    "number": "number, from 1",
    "offered_checkpoint_id": "the checkpoint that the run's adapter is a copy of",
    "parent": "name of the run that this one branched from",
    "parent_id": "the run that this one branched from",
    "part": "which part of the work",
    "path": "where it is",
    "peak_memory": "most memory in use, in bytes",
    "percentile_90": "nine of ten trials are at or below it",
    "percentile_99": "99 of 100 trials are at or below it",
    "pid": "number of the process",
    "process_started": "when the process started, which tells it from others of its number",
    "progress": "share of the target that is done, 0 to 1",
    "prompt": "what the data asks",
    "prompt_tokens": "tokens of the prompt",
    "prompt_tokens_per_second": "tokens of the prompt read a second",
    "generation_tokens_per_second": "tokens generated a second",
    "python": "version of Python",
    "quantization": "bits a weight, where it is quantized",
    "resumable": "how many a training can resume from",
    "revision": "revision on the hub",
    "row": "row of the data, from 1",
    "rows": "how many rows were asked",
    "run": "name of the run",
    "run_id": "the run",
    "scores": "scores of this answer, as JSON",
    "seconds": "seconds at work",
    "sha256": "hash of each file, as JSON",
    "source": "where it came from",
    "standard_deviation": "of the trials; empty for one",
    "standard_error": "how well the value is known",
    "start_kind": "fresh, exact, inexact, warm (weights of another tool) or branch",
    "start_note": "what was not exact",
    "started_at": "when it started, in UTC",
    "step_loss": "loss of the last step's rows alone",
    "state_file": "what a training needs to continue",
    "state_pruned_at": "since when the weights alone are left",
    "state_sha256": "hash of the state's file",
    "status": "status",
    "tag": "the tag",
    "tags": "tags with commas between",
    "target_iterations": "how far it should go",
    "time": "when, in UTC",
    "time_to_first_token": "seconds until the first token",
    "to_iteration": "the iteration it ended at; empty while it is at work",
    "token_latencies": "milliseconds of each token, as JSON",
    "tokens_per_second": "tokens per second, the newest of the newest attempt",
    "train_loss": "train loss in nats per token; empty where it was not finite",
    "trained_tokens": "tokens trained on",
    "trial": "number of the trial, from 1",
    "trials": "how many trials",
    "unit": "in which unit",
    "updated_at": "when it last changed, in UTC",
    "validation_loss": "validation loss in nats per token; empty where it was not finite",
    "validation_standard_error": "how well the validation loss is known, over its rows",
    "value": "the value; empty where it was not finite",
    "verdict": "good or bad",
    "verified_at": "when its hashes were last compared, in UTC",
}
STATUS_OF_A_RUN = "created, running, interrupted, completed or failed"
PARTICULAR = {
    ("run_summary", "status"): f"{STATUS_OF_A_RUN}, or lost: running without a heartbeat for 60 s",
    ("runs", "status"): STATUS_OF_A_RUN,
    ("checkpoints", "status"): "whole, corrupt, missing or pruned",
    ("checkpoint_summary", "status"): "whole, corrupt, missing or pruned",
    ("run_summary", "is_target_known"): "0 where an imported log does not say how far it was to go",
    ("run_summary", "ended_at"): "when the newest attempt ended",
    ("run_speed", "tokens_per_second"): "the median of those reports",
    ("run_speed", "reports"): "how many reports it is the median of",
    ("run_summary", "kind"): "lora, dora or full",
    ("runs", "kind"): "lora, dora or full",
    ("run_summary", "name"): "name of the run",
    ("runs", "name"): "name of the run",
    **dict.fromkeys((("metric", "name"), ("latest_metric", "name"), ("metric_names", "name")), "name of the curve"),
    ("run_lineage", "path"): "from the ancestor to the run, with > between",
    ("run_summary", "validation_loss"): "the newest validation loss",
    ("run_summary", "train_loss"): "the newest train loss",
    ("evaluations", "seconds"): "seconds it took",
    ("evaluation_summary", "seconds"): "seconds it took",
    ("trials", "seconds"): "seconds it took",
    **dict.fromkeys((("verdict", "config"), ("verdicts", "config")), "settings of the sampling, as JSON"),
    **dict.fromkeys((("verdict", "prompt"), ("verdicts", "prompt")), "the last message of the conversation"),
    **dict.fromkeys((("verdict", "note"), ("verdicts", "note")), "what the person added"),
}
BYTES = {"bytes", "peak_memory", "active_memory"}
WHOLE = {"limit", "keep"}
"""Parameters of saved queries that are whole numbers: a form on a page gives text."""


def main() -> int:
    """Write the file, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where the file is not current")
    parser.add_argument("--file", type=Path, default=ROOT / "db" / "datasette.yaml")
    options = parser.parse_args()
    text = HEAD + yaml.dump(metadata(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    if not options.check:
        options.file.write_text(text, encoding="utf-8")
    elif not options.file.is_file() or options.file.read_text(encoding="utf-8") != text:
        print(f"{options.file.name} is not current: python docs/datasette_yaml.py writes it again")
        return 1
    return 0


class Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines stands as it is."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def metadata() -> dict[str, Any]:
    """What Datasette is told, as it takes it."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "runs.db"
        registry.open_registry(path).close()
        columns = {entry["name"]: [each["name"] for each in entry["columns"]] for entry in registry.schema(path)}
    links = ", ".join(f'<a href="runs/{name}">{title.lower()}</a>' for name, (title, _, _) in VIEWS.items())
    return {
        "title": "mlxops",
        "databases": {
            "runs": {
                "title": "The registry of every run",
                "description_html": f"Views, which are documented and stable: {links}. Below are questions that many "
                "have, and the tables that all this is made of.",
                "tables": {
                    name: described(name, columns[name], *about) for name, about in (VIEWS | TABLES).items()
                },
                # a query hides the table of its name
                "queries": {f"ask_{saved.name}": canned(saved) for saved in registry.saved_queries()},
            }
        },
    }  # fmt: skip


def described(
    name: str, columns: Sequence[str], title: str, description: str, more: Mapping[str, Any]
) -> dict[str, Any]:
    """A table or view with the meaning of each column."""
    units = dict.fromkeys((column for column in columns if column in BYTES), "byte")
    return {
        "title": title,
        "description": description,
        **more,
        **({"units": units} if units else {}),
        "columns": {column: PARTICULAR.get((name, column)) or COLUMNS[column] for column in columns},
    }


def canned(saved: SavedQuery) -> dict[str, Any]:
    """A saved query as Datasette takes it: a field that is left empty is NULL, as a parameter that is not given."""
    notes = [line.removeprefix("-- ") for line in saved.sql.splitlines()[1:] if line.startswith("-- ")]
    meanings = [f"{name}: {saved.meanings[name]}." for name in saved.parameters]
    about = " ".join([*(line for line in notes if not line.startswith(":")), *meanings])
    return {
        "title": saved.question,
        **({"description": about} if about else {}),
        "sql": with_empty_fields(without_head(saved.sql)),
        "params": list(saved.parameters),
    }


def without_head(sql: str) -> str:
    """The query without the comments that it begins with, and without the semicolon at its end."""
    lines = sql.splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(lines[first:]).rstrip().removesuffix(";")


def with_empty_fields(sql: str) -> str:
    """The query with NULL for each parameter that is an empty text, and numbers for those that are written as texts.

    >>> with_empty_fields("SELECT :run LIMIT coalesce(:limit, 20)")
    "SELECT nullif(:run, '') LIMIT coalesce(CAST(nullif(:limit, '') AS INTEGER), 20)"
    """
    for each in reversed(tokens(sql)):
        if each.kind == "parameter":
            known = f"nullif({each.text}, '')"
            if each.text[1:] in WHOLE:
                known = f"CAST({known} AS INTEGER)"
            sql = sql[: each.start] + known + sql[each.stop :]
    return sql


if __name__ == "__main__":
    sys.exit(main())
