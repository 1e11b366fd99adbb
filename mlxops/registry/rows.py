"""The rows of the registry's tables: a `TypedDict` for each, with the columns in the schema's order.

A JSON column holds the value, parsed. `views.py` has the rows of the views.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

JsonObject = Mapping[str, Any]
"""A JSON object whose keys no type names: settings as a run or another program stored them, and the like."""

JsonArray = list[Any]


class RunRow(TypedDict):
    """A row of `runs`. Its `status` in the table is never `lost`."""

    id: int
    name: str
    kind: str
    status: str
    fingerprint: str
    parent_id: int | None
    branch_iteration: int | None
    model: str
    model_identity: str
    data: str
    data_identity: str
    config: JsonObject
    target_iterations: int
    iteration: int
    epoch: int
    trained_tokens: int
    adapter_path: str
    offered_checkpoint_id: int | None
    best_iteration: int | None
    best_validation_loss: float | None
    created_at: str
    updated_at: str
    note: str | None
    imported_from: str | None


class TagRow(TypedDict):
    """A row of `tags`."""

    run_id: int
    tag: str


class AttemptRow(TypedDict):
    """A row of `attempts`."""

    id: int
    run_id: int
    number: int
    start_kind: str
    start_note: str | None
    from_iteration: int
    to_iteration: int | None
    started_at: str
    ended_at: str | None
    end_reason: str | None
    error: str | None
    pid: int
    host: str
    boot_id: str | None
    process_started: str | None
    heartbeat_at: str
    device: str
    environment: JsonObject
    command: str
    git_commit: str | None
    at_iteration: int | None
    step_loss: float | None
    iterations_per_second: float | None
    tokens_per_second: float | None
    expected_end_at: str | None


class MetricNameRow(TypedDict):
    """A row of `metric_names`."""

    id: int
    name: str
    unit: str | None
    better: str | None


class MetricRow(TypedDict):
    """A row of `metrics`; `value` is None where it was not finite."""

    run_id: int
    name_id: int
    iteration: int
    value: float | None
    elapsed_ms: int


class SeriesRow(TypedDict):
    """A row of `series`, the summary of one curve."""

    run_id: int
    name_id: int
    count: int
    not_finite: int
    first_iteration: int
    last_iteration: int
    last_value: float | None
    last_elapsed_ms: int
    min_value: float | None
    min_iteration: int | None
    max_value: float | None
    max_iteration: int | None


class CheckpointRow(TypedDict):
    """A row of `checkpoints`; `is_best` is 1 or 0."""

    id: int
    run_id: int
    attempt_id: int | None
    iteration: int
    adapter_file: str
    state_file: str | None
    bytes: int
    adapter_sha256: str
    state_sha256: str | None
    train_loss: float | None
    validation_loss: float | None
    is_best: int
    created_at: str
    verified_at: str | None
    status: str
    state_pruned_at: str | None
    closing_standard_error: float | None
    closing_elapsed_ms: int | None


class EvaluationRow(TypedDict):
    """A row of `evaluations`."""

    id: int
    run_id: int | None
    checkpoint_id: int | None
    base_evaluation_id: int | None
    model: str
    adapter_path: str | None
    data: str
    data_sha256: str
    kind: str
    config: JsonObject
    rows: int
    seconds: float | None
    created_at: str


class ScoreRow(TypedDict):
    """A row of `scores`."""

    evaluation_id: int
    metric: str
    value: float | None
    standard_error: float | None


class AnswerRow(TypedDict):
    """A row of `answers`."""

    evaluation_id: int
    row: int
    prompt: str
    expected: str | None
    answer: str
    scores: JsonObject | None


class BenchmarkRow(TypedDict):
    """A row of `benchmarks`."""

    id: int
    run_id: int | None
    model: str
    adapter_path: str | None
    config: JsonObject
    load_seconds: float | None
    host: str
    device: str
    environment: JsonObject
    created_at: str


class TrialRow(TypedDict):
    """A row of `trials`."""

    benchmark_id: int
    trial: int
    prompt_tokens: int
    context_tokens: int
    batch_size: int
    generated_tokens: int
    time_to_first_token: float | None
    prompt_tokens_per_second: float | None
    generation_tokens_per_second: float | None
    token_latencies: JsonArray | None
    peak_memory: int | None
    active_memory: int | None
    seconds: float


class ProfileRow(TypedDict):
    """A row of `profiles`."""

    run_id: int
    attempt_id: int
    part: str
    seconds: float
    count: int


class EventRow(TypedDict):
    """A row of `events`."""

    id: int
    run_id: int
    attempt_id: int | None
    iteration: int | None
    time: str
    level: str
    kind: str
    message: str
    detail: JsonObject | None


class ModelRow(TypedDict):
    """A row of `models`."""

    path: str
    source: str | None
    revision: str | None
    bytes: int | None
    quantization: str | None
    sha256: JsonObject | None
    added_at: str
    verified_at: str | None


class EnvironmentRow(TypedDict):
    """A row of `environments`."""

    id: int
    backend: str
    lock: str
    python: str
    created_at: str


class VerdictRow(TypedDict):
    """A row of `verdicts`; `messages` is the conversation with the answer at its end."""

    id: int
    run_id: int | None
    checkpoint_id: int | None
    model: str
    adapter_path: str | None
    verdict: str
    messages: JsonArray
    prompt: str
    answer: str
    config: JsonObject
    note: str | None
    created_at: str
