"""What a training has to write, as values with the time of their making: written at once, later, or by another command.

An entry is JSON, so that it can wait beside a checkpoint. Writing one that is in the registry already changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlxops.errors import NotFound
from mlxops.events import Event, Notice, Profiled, Report, Saved, Skipped, Stopped, Validation
from mlxops.registry.attempts import end_attempt
from mlxops.registry.checkpoints import add_checkpoint, checkpoints_of, mark_checkpoint
from mlxops.registry.database import Registry
from mlxops.registry.history import add_event, finite
from mlxops.registry.metrics import record_report, record_validation
from mlxops.registry.profiles import record_profile
from mlxops.registry.rows import JsonObject

EntryKind = Literal["report", "validation", "checkpoint", "event", "spoilt", "profile", "end"]


@dataclass(frozen=True)
class Entry:
    """One thing to write. `at` is when it was made, in seconds since 1970; `values` are what its kind takes."""

    kind: EntryKind
    at: float
    values: JsonObject

    def to_json(self) -> str:
        """One line that `from_json` turns back into an equal entry, numbers that are not finite being None."""
        return json.dumps([self.kind, self.at, finite(self.values)], allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """The entry that `to_json` wrote; raises ValueError for what it did not write."""
        kind, at, values = json.loads(text)
        if kind not in _WRITERS:
            raise ValueError(f"an entry of the unknown kind {kind!r}")
        return cls(kind, at, values)


def entries_of(event: Event, at: float) -> Sequence[Entry]:
    """What is to be written of an event that was emitted at that moment."""
    match event:
        case Report():
            values = {
                "iteration": event.iteration,
                "epoch": event.epoch,
                "trained_tokens": int(event.metrics["trained_tokens"]),
                "metrics": event.metrics,
            }
            return [Entry("report", at, values)]
        case Validation():
            values = {
                "iteration": event.iteration,
                "loss": event.loss,
                "standard_error": event.standard_error,
                "metrics": event.metrics,
            }
            return [Entry("validation", at, values)]
        case Saved():
            values = {
                "iteration": event.iteration,
                "adapter_file": event.adapter_file,
                "state_file": event.state_file,
                "bytes": event.bytes,
                "adapter_sha256": event.adapter_sha256,
                "state_sha256": event.state_sha256,
                "train_loss": event.train_loss,
                "validation_loss": event.validation_loss,
            }
            return [Entry("checkpoint", at, values)]
        case Skipped():
            message = f"{event.reason}, so the batch was left out: {', '.join(event.origins)}"
            detail = {"origins": list(event.origins), "in_a_row": event.in_a_row}
            return [_event(at, "skipped", message, event.iteration, "warning", detail)]
        case Notice():
            said = _event(at, event.kind, event.message, event.iteration, event.level, event.detail)
            if event.kind == "spoilt" and event.iteration is not None:
                return [Entry("spoilt", at, {"iteration": event.iteration, "status": "corrupt"}), said]
            return [said]
        case Profiled():
            return [Entry("profile", at, {"parts": {name: list(each) for name, each in event.parts.items()}})]
        case Stopped():
            how = f"stopped by {event.signal_name}" if event.signal_name else event.reason
            level = "error" if event.reason == "diverged" else "info"
            return [_event(at, "stopped", f"{how} at iteration {event.iteration:,}", event.iteration, level)]
    return []


def _event(
    at: float, kind: str, message: str, iteration: int | None, level: str, detail: JsonObject | None = None
) -> Entry:
    values = {"kind": kind, "message": message, "iteration": iteration, "level": level, "detail": detail or None}
    return Entry("event", at, values)


def write(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    """Write an entry of a run, in one transaction."""
    _WRITERS[entry.kind](db, run_id, attempt_id, entry)


def _report(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    record_report(db, run_id, attempt_id, at=entry.at, **entry.values)


def _validation(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    record_validation(db, run_id, attempt_id, at=entry.at, **entry.values)


def _checkpoint(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    add_checkpoint(db, run_id, attempt_id, at=entry.at, **entry.values)


def _add_event(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    add_event(db, run_id, attempt_id, at=entry.at, **entry.values)


def _spoilt(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    try:
        mark_checkpoint(db, run_id, **entry.values)
    except NotFound:  # its row is gone, or was never made: there is nothing to take back
        return


def _profile(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    if attempt_id is not None:
        record_profile(db, run_id, attempt_id, **entry.values)


def _end(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    if attempt_id is not None:
        end_attempt(db, attempt_id, at=entry.at, **entry.values)


_WRITERS: dict[str, Callable[[Registry, int, int | None, Entry], None]] = {
    "report": _report,
    "validation": _validation,
    "checkpoint": _checkpoint,
    "event": _add_event,
    "spoilt": _spoilt,
    "profile": _profile,
    "end": _end,
}


def write_again(db: Registry, run_id: int, attempt_id: int | None, entry: Entry) -> None:
    """Write an entry that may be there already: a checkpoint's row is left as it is unless its files alone made it."""
    if entry.kind == "checkpoint":
        wanted = (entry.values["iteration"], entry.values["state_sha256"])
        for row in checkpoints_of(db, run_id):
            if (row["iteration"], row["state_sha256"]) == wanted and row["attempt_id"] is not None:
                return
    write(db, run_id, attempt_id, entry)
