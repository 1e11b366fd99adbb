"""Models that came from somewhere: where from, at which revision, and the hash of each file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypedDict

from mlxops.registry.database import Registry
from mlxops.registry.rows import ModelRow

_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


def record_model(
    db: Registry,
    path: str,
    *,
    source: str | None,
    revision: str | None,
    bytes: int,
    quantization: str | None,
    sha256: Mapping[str, str],
) -> None:
    """Record a model whose files were just compared with their hashes, in place of what was known of that folder."""
    with db.transaction(durable=True) as connection:
        connection.execute(
            f"""
            INSERT INTO models (path, source, revision, bytes, quantization, sha256, verified_at)
            VALUES (?, ?, ?, ?, ?, ?, {_NOW})
            ON CONFLICT (path) DO UPDATE SET source = excluded.source, revision = excluded.revision,
                bytes = excluded.bytes, quantization = excluded.quantization, sha256 = excluded.sha256,
                verified_at = excluded.verified_at
            """,
            (path, source, revision, bytes, quantization, json.dumps(dict(sorted(sha256.items())))),
        )


def recorded_models(db: Registry) -> dict[str, ModelRow]:
    """What is recorded of models, by path."""
    return {row["path"]: row for row in db.rows("SELECT * FROM models", of=ModelRow)}


class ModelRun(TypedDict):
    """A run that was trained on a model: its name and its status, which may be lost."""

    name: str
    status: str


def runs_of_model(db: Registry, path: str) -> list[ModelRun]:
    """The runs of a model, by its path as it is stored, the newest first."""
    return db.rows("SELECT name, status FROM run_summary WHERE model = ? ORDER BY id DESC", (path,), of=ModelRun)


def mark_verified(db: Registry, path: str) -> None:
    """Record that a model's files are now what their hashes say."""
    with db.transaction() as connection:
        connection.execute(f"UPDATE models SET verified_at = {_NOW} WHERE path = ?", (path,))


def forget_model(db: Registry, path: str) -> None:
    """Remove what is recorded of a model whose folder is gone."""
    with db.transaction() as connection:
        connection.execute("DELETE FROM models WHERE path = ?", (path,))
