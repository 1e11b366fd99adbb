"""What was installed in a project's environment, each time that it changed."""

from __future__ import annotations

from mlxops.registry.database import Registry


def record_environment(db: Registry, *, backend: str, lock: str, python: str) -> None:
    """Record an environment: MLX's backend, its packages as `name==version` lines, and the version of its Python.

    What is the same as the newest row is not recorded again.
    """
    with db.transaction() as connection:
        newest = connection.execute(
            "SELECT backend, lock, python FROM environments ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if newest is None or tuple(newest) != (backend, lock, python):
            connection.execute(
                "INSERT INTO environments (backend, lock, python) VALUES (?, ?, ?)", (backend, lock, python)
            )
