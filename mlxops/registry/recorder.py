"""Writing what training says into the registry."""

from __future__ import annotations

from mlxops import registry
from mlxops.events import Event, Notice, Report, Saved, Skipped, Stopped, Validation


def diverged_before(db: registry.Registry, run_id: int) -> list[Notice]:
    """What to say where a run's last attempt diverged: resuming is right only if something outside it was to blame."""
    attempts = registry.attempts_of(db, run_id)
    if not attempts or attempts[-1]["end_reason"] != "diverged":
        return []
    message = (
        f"it diverged when it last came this way, and the same settings lead there again: {attempts[-1]['error']}; "
        "`--branch` or `--new` with a smaller `--learning-rate` or other rows leads elsewhere"
    )
    return [Notice(kind="diverged before", message=message, level="warning")]


class Recorder:
    """A listener that has written an event when it returns. `saved_at` is the iteration of the newest checkpoint."""

    def __init__(self, db: registry.Registry, run_id: int, attempt_id: int, saved_at: int) -> None:
        self._to = (db, run_id, attempt_id)
        self.saved_at = saved_at

    def __call__(self, event: Event) -> None:
        match event:
            case Report():
                registry.record_report(
                    *self._to,
                    iteration=event.iteration,
                    epoch=event.epoch,
                    trained_tokens=int(event.metrics["trained_tokens"]),
                    metrics=event.metrics,
                )
            case Validation():
                registry.record_validation(
                    *self._to,
                    iteration=event.iteration,
                    loss=event.loss,
                    standard_error=event.standard_error,
                    metrics=event.metrics,
                )
            case Saved():
                registry.add_checkpoint(
                    *self._to,
                    iteration=event.iteration,
                    adapter_file=event.adapter_file,
                    state_file=event.state_file,
                    bytes=event.bytes,
                    adapter_sha256=event.adapter_sha256,
                    state_sha256=event.state_sha256,
                    train_loss=event.train_loss,
                    validation_loss=event.validation_loss,
                )
                self.saved_at = event.iteration
            case Skipped():
                registry.add_event(
                    *self._to,
                    kind="skipped",
                    level="warning",
                    iteration=event.iteration,
                    message=f"{event.reason}, so the batch was left out: {', '.join(event.origins)}",
                    detail={"origins": list(event.origins), "in_a_row": event.in_a_row},
                )
            case Notice():
                if event.kind == "spoilt" and event.iteration is not None:
                    db, run_id, _ = self._to
                    registry.mark_checkpoint(db, run_id, event.iteration, "corrupt")
                registry.add_event(
                    *self._to,
                    kind=event.kind,
                    level=event.level,
                    iteration=event.iteration,
                    message=event.message,
                    detail=event.detail,
                )
            case Stopped():
                if event.reason == "diverged":
                    self.saved_at = event.iteration
                how = f"by {event.signal_name}" if event.signal_name else event.reason
                registry.add_event(
                    *self._to,
                    kind="stopped",
                    level="error" if event.reason == "diverged" else "info",
                    iteration=event.iteration,
                    message=f"{how} at iteration {event.iteration:,}",
                )
