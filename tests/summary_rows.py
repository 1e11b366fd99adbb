"""Rows of `run_summary`, for tests of drawings."""


def run_row(**changes):
    return {
        "id": 1,
        "name": "smollm2-135m-quiet-heron",
        "kind": "lora",
        "status": "running",
        "model": "models/SmolLM2-135M-Instruct",
        "data": "data",
        "iteration": 400,
        "target_iterations": 1000,
        "is_target_known": 1,
        "progress": 0.4,
        "epoch": 2,
        "trained_tokens": 204_800,
        "train_loss": 1.79,
        "validation_loss": 1.89,
        "best_train_loss": 1.7,
        "best_validation_loss": 1.85,
        "best_iteration": 300,
        "tokens_per_second": 1234.5,
        "iterations_per_second": 2.5,
        "seconds": 160.0,
        "eta_seconds": 240.0,
        "attempts": 1,
        "checkpoints": 4,
        "parent": None,
        "tags": None,
        "note": None,
        "adapter_path": "adapters/quiet-heron",
        "imported_from": None,
        "fingerprint": "ab" * 32,
        "created_at": "2026-11-22T11:00:00.000Z",
        "updated_at": "2026-11-22T11:59:57.000Z",
        "ended_at": None,
        **changes,
    }


def untouched_run_row(**changes):
    """The row of a run that has not trained yet: everything it has not measured is NULL."""
    known = ("id", "name", "kind", "model", "data", "target_iterations", "created_at", "updated_at", "fingerprint")
    zero = {
        "status": "created",
        "is_target_known": 1,
        "iteration": 0,
        "progress": 0.0,
        "epoch": 0,
        "trained_tokens": 0,
        "attempts": 0,
    }
    return {**{name: value if name in known else None for name, value in run_row().items()}, **zero, **changes}
