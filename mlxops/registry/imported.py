"""Runs of other tools as the registry is told of them, and what it says of an import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from mlxops.registry.rows import JsonObject


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """What is known of a run of another tool. `name` is the one asked for, `short_name` the one it has without.

    `begins` tells one training of a source from the next in the same place, None where nothing does. Times are the
    registry's.
    """

    source: str
    name: str | None
    short_name: str
    begins: str | None
    identity: str
    kind: str
    status: str
    model: str
    data: str
    config: JsonObject
    iteration: int
    target_iterations: int
    trained_tokens: int
    created_at: str
    ended_at: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did: the run, whether it was made now, and how many rows of each table are new or changed.

    `is_log_gone` says that its points were kept, since the log they came from is no longer there.
    """

    run_id: int
    name: str
    is_new: bool
    is_log_gone: bool
    status: str
    iteration: int
    changed: Mapping[str, int]


class ImportedAttempt(TypedDict):
    """An attempt of such a run; of its process nothing is known."""

    start_kind: str
    start_note: str | None
    from_iteration: int
    to_iteration: int
    started_at: str
    ended_at: str
    end_reason: str


class ImportedCheckpoint(TypedDict):
    """A file of weights of such a run."""

    iteration: int
    adapter_file: str
    bytes: int
    adapter_sha256: str
    created_at: str


class ImportedEvent(TypedDict):
    """A line of such a run's history."""

    iteration: int
    level: str
    kind: str
    message: str
    detail: JsonObject


class ImportSource(TypedDict):
    """What another import of the same source goes by."""

    id: int
    name: str
    status: str
    imported_from: str
    config: JsonObject
    iteration: int
    target_iterations: int
    trained_tokens: int
    updated_at: str
