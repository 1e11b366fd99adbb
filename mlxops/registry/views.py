"""The rows of the registry's views: a `TypedDict` for each, with the columns in the view's order."""

from __future__ import annotations

from typing import TypedDict

from mlxops.registry.rows import JsonArray, JsonObject


class RunSummaryView(TypedDict):
    """A row of `run_summary`; `status` may be `lost`."""

    id: int
    name: str
    kind: str
    status: str
    model: str
    data: str
    iteration: int
    target_iterations: int
    is_target_known: int
    progress: float
    epoch: int
    trained_tokens: int
    train_loss: float | None
    validation_loss: float | None
    best_train_loss: float | None
    best_validation_loss: float | None
    best_iteration: int | None
    tokens_per_second: float | None
    iterations_per_second: float | None
    seconds: float | None
    eta_seconds: float | None
    attempts: int
    checkpoints: int
    parent: str | None
    tags: str | None
    note: str | None
    adapter_path: str
    imported_from: str | None
    fingerprint: str
    created_at: str
    updated_at: str
    ended_at: str | None


class MetricView(TypedDict):
    """A row of `metric`."""

    run: str
    name: str
    iteration: int
    value: float | None
    elapsed_seconds: float


class LossCurveView(TypedDict):
    """A row of `loss_curve`."""

    run: str
    iteration: int
    train_loss: float | None
    validation_loss: float | None
    validation_standard_error: float | None


class LatestMetricView(TypedDict):
    """A row of `latest_metric`."""

    run: str
    name: str
    iteration: int
    value: float | None
    elapsed_seconds: float
    unit: str | None


class BestCheckpointView(TypedDict):
    """A row of `best_checkpoint`."""

    run: str
    iteration: int
    validation_loss: float
    train_loss: float | None
    adapter_file: str
    bytes: int
    created_at: str


class CheckpointSummaryView(TypedDict):
    """A row of `checkpoint_summary`."""

    run: str
    iteration: int
    attempt: int | None
    status: str
    is_best: int
    is_offered: int
    is_resumable: int
    train_loss: float | None
    validation_loss: float | None
    bytes: int
    adapter_file: str
    state_file: str | None
    created_at: str
    verified_at: str | None


class RunLineageView(TypedDict):
    """A row of `run_lineage`."""

    run: str
    ancestor: str
    generations: int
    branch_iteration: int | None
    path: str


class RunSpeedView(TypedDict):
    """A row of `run_speed`."""

    run_id: int
    run: str
    attempt_id: int
    device: str
    tokens_per_second: float
    reports: int


class EventView(TypedDict):
    """A row of `event`."""

    id: int
    run_id: int
    run: str
    attempt: int | None
    iteration: int | None
    time: str
    level: str
    kind: str
    message: str
    detail: JsonObject | None


class EvaluationSummaryView(TypedDict):
    """A row of `evaluation_summary`."""

    id: int
    run: str | None
    iteration: int | None
    model: str
    adapter_path: str | None
    data: str
    kind: str
    rows: int
    metric: str
    value: float | None
    standard_error: float | None
    base_value: float | None
    difference: float | None
    seconds: float | None
    created_at: str


class AnswerView(TypedDict):
    """A row of `answer`."""

    evaluation_id: int
    run: str | None
    iteration: int | None
    model: str
    kind: str
    data: str
    data_sha256: str
    row: int
    prompt: str
    expected: str | None
    base_answer: str | None
    answer: str
    created_at: str


class BenchmarkSummaryView(TypedDict):
    """A row of `benchmark_summary`."""

    id: int
    run: str | None
    model: str
    adapter_path: str | None
    host: str
    device: str
    prompt_tokens: int
    context_tokens: int
    batch_size: int
    metric: str
    trials: int
    mean: float
    standard_deviation: float | None
    lowest: float
    median: float
    percentile_90: float
    percentile_99: float
    highest: float
    load_seconds: float | None
    created_at: str
    generated_tokens: int
    drift: float | None
    is_interrupted: int


class DiskUseView(TypedDict):
    """A row of `disk_use`."""

    run: str
    adapter_path: str
    checkpoints: int
    bytes: int
    resumable: int
    newest_at: str | None


class VerdictView(TypedDict):
    """A row of `verdict`."""

    id: int
    run: str | None
    iteration: int | None
    model: str
    adapter_path: str | None
    verdict: str
    prompt: str
    answer: str
    note: str | None
    messages: JsonArray
    config: JsonObject
    created_at: str
