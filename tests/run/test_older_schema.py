"""A registry of an older schema in a folder that cannot be written, which nothing migrates, is read as today's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import known_registry
import pytest
from ready_programs import run_forked

from mlxops import registry

ADDED: dict[int, list[tuple[str, str | None]]] = {
    2: [("runs", "imported_from")],
    3: [("verdicts", None)],
    5: [
        ("attempts", "at_iteration"),
        ("attempts", "step_loss"),
        ("attempts", "iterations_per_second"),
        ("attempts", "tokens_per_second"),
        ("attempts", "expected_end_at"),
    ],
    6: [("checkpoints", "closing_standard_error"), ("checkpoints", "closing_elapsed_ms")],
}
"""Tables and columns, by the version of the schema that they came with."""

READING = [
    "runs",
    "runs --json",
    "run.show heron",
    "run.compare heron,otter --json",
    "checkpoints",
    "monitor --once",
    "monitor --json",
    "status --json",
    "run.export --run heron --output points.csv",
    *(f"sql @{each.name}" for each in registry.saved_queries() if not each.required),
    *(f"sql 'select * from {view} limit 1'" for view in ("run_summary", "metric", "checkpoint_summary", "verdict")),
]


def made_older(path: Path, version: int) -> None:
    """The known registry as that version had it."""
    path.write_bytes(known_registry.content())
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for (view,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall():
            db.execute(f"DROP VIEW {view}")
        db.execute("DROP INDEX imported_runs")
        for table, column in [each for since, added in ADDED.items() if since > version for each in added]:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}" if column else f"DROP TABLE {table}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("PRAGMA journal_mode = DELETE")


ASKING = """
import io, json, shlex, sys
from contextlib import redirect_stderr, redirect_stdout
import training_runs
from mlxops.__main__ import program
training_runs.obey_permissions()
failed = {}
for command in json.loads(sys.argv[1]):
    err = io.StringIO()
    try:
        with redirect_stdout(io.TextIOWrapper(io.BytesIO())), redirect_stderr(err):
            program.run(["mlx-toolkit", *shlex.split(command)])
    except SystemExit as ended:
        if ended.code or "bug" in err.getvalue():
            failed[command] = err.getvalue()
print(json.dumps(failed))
"""
"""Runs commands one after the other, without root's right to write everywhere."""


@pytest.mark.slow
@pytest.mark.parametrize("version", range(1, 6))
def test_what_only_reads_works_on_a_registry_of_any_version_that_cannot_be_written(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "read-only" / "runs.db"
    path.parent.mkdir()
    made_older(path, version)
    before = path.read_bytes()
    path.parent.chmod(0o555)

    code, out, err = run_forked("-c", ASKING, json.dumps(READING), environment={"MLXOPS_DB": str(path)})
    path.parent.chmod(0o755)

    assert (code, err) == (0, "")
    assert json.loads(out) == {}
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["runs.db"]


def test_what_is_shown_of_an_older_registry_is_its_connections_own_and_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    made_older(path, 1)

    with registry.open_read_only(path) as db:
        row = db.rows("SELECT id, imported_from FROM runs LIMIT 1")[0]
        verdicts = db.rows("SELECT * FROM verdicts")
        for table in ("runs", "main.runs", "verdicts"):
            with pytest.raises(sqlite3.Error):
                db.connection.execute(f"DELETE FROM {table}")

    assert (row["imported_from"], verdicts) == (None, [])
