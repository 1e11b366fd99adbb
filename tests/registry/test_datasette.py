"""Datasette over the known registry with the shipped metadata: every page and every saved query, read in process."""

from __future__ import annotations

import asyncio
import html
import json
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import known_registry
import pytest
import yaml
from commands import ROOT, run_python

from mlxops import registry
from mlxops.resources import folder

SCRIPT = str(ROOT / "docs" / "datasette_yaml.py")
FILE = folder("db") / "datasette.yaml"
METADATA = yaml.safe_load(FILE.read_text(encoding="utf-8"))
DESCRIBED = METADATA["databases"]["runs"]["tables"]
QUERIES = {saved.name: saved for saved in registry.saved_queries()}
GIVEN: dict[str, dict[str, Any]] = {
    "attempts": {"run": "heron"},
    "best_runs": {"model": "small", "limit": 2},
    "by_setting": {"setting": "lora_rank"},
    "deletable": {"keep": 0},
    "evaluations": {"metric": "rouge_l"},
    "settings": {"one": "heron", "other": "otter"},
    "time_to_loss": {"loss": 1.9},
    "troubles": {"limit": 2, "run": "wren"},
    "versions": {"package": "mlx-lm"},
}


class Pages:
    """Datasette over one database; `get` is what a browser would ask."""

    def __init__(self, path: Path) -> None:
        # Datasette 0.65 leaves connections open, of which Python 3.13 warns
        self._opened: list[sqlite3.Connection] = []
        with self._keeping(), warnings.catch_warnings():
            # of what Datasette 0.65 is made of, not of ours
            warnings.simplefilter("ignore", DeprecationWarning)
            from datasette.app import Datasette  # half a second, which no other test needs

            # without threads of its own nothing is left open at the end of a test
            self._datasette = Datasette([str(path)], metadata=METADATA, settings={"num_sql_threads": 0})
        self._loop = asyncio.new_event_loop()

    def get(self, path: str, **parameters: Any) -> str:
        with self._keeping():
            asked = self._datasette.client.get(f"{path}?{urlencode(parameters)}" if parameters else path)
            answer = self._loop.run_until_complete(asked)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return str(answer.text)

    def rows(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get(f"{path}.json", _shape="objects", **parameters))["rows"]
        return found

    def connect(self) -> sqlite3.Connection:
        (database,) = [each for name, each in self._datasette.databases.items() if name == "runs"]
        with self._keeping():
            connection: sqlite3.Connection = database.connect()
        return connection

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        connect = sqlite3.connect

        def keep(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            # some of them are opened by other threads
            self._opened.append(connect(*args, **{**kwargs, "check_same_thread": False}))
            return self._opened[-1]

        sqlite3.connect = keep
        try:
            yield
        finally:
            sqlite3.connect = connect

    def close(self) -> None:
        for connection in self._opened:
            connection.close()
        self._loop.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("datasette") / "runs.db"
    file.write_bytes(known_registry.content())
    return file


@pytest.fixture(scope="module")
def pages(path: Path) -> Iterator[Pages]:
    """One for all tests, which only read: to open it takes as long as a page."""
    opened = Pages(path)
    yield opened
    opened.close()


def counted(path: Path, name: str) -> int:
    with registry.open_read_only(path) as db:
        return int(db.rows(f"SELECT count(*) AS number FROM {name}")[0]["number"])


def test_the_metadata_is_current() -> None:
    assert run_python(SCRIPT, "--check") == (0, "", "")


@pytest.mark.slow
def test_metadata_that_is_not_current_is_noticed_and_written_anew() -> None:
    ours = Path("datasette.yaml")
    ours.write_text(FILE.read_text(encoding="utf-8").replace("ORDER BY", "order by", 1), encoding="utf-8")

    code, out, _ = run_python(SCRIPT, "--check", "--file", str(ours))
    assert (code, out) == (1, "datasette.yaml is not current: python docs/datasette_yaml.py writes it again\n")
    run_python(SCRIPT, "--file", str(ours))
    assert ours.read_bytes() == FILE.read_bytes()


def test_every_table_view_and_column_is_described(path: Path) -> None:
    there = {entry["name"]: [each["name"] for each in entry["columns"]] for entry in registry.schema(path)}

    assert {name: list(about["columns"]) for name, about in DESCRIBED.items()} == there
    assert all(about["title"] and about["description"] for about in DESCRIBED.values())
    assert all(meaning for about in DESCRIBED.values() for meaning in about["columns"].values())


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *(("runs", column) for column in ("fingerprint", "model_identity", "data_identity")),
        *((name, "elapsed_seconds") for name in ("metric", "latest_metric")),
        ("metrics", "elapsed_ms"),
        ("series", "last_elapsed_ms"),
    ],
)
def test_what_is_another_thing_for_an_imported_run_is_described_so(name: str, column: str) -> None:
    assert "; of an imported run, " in DESCRIBED[name]["columns"][column]


@pytest.mark.slow
@pytest.mark.parametrize("name", DESCRIBED)
def test_a_table_has_its_page_with_title_columns_and_rows(pages: Pages, path: Path, name: str) -> None:
    page = html.unescape(pages.get(f"/runs/{name}"))

    about = DESCRIBED[name]
    assert f"<h1>{about['title']}" in page
    assert about["description"] in page
    assert all(meaning in page for meaning in about["columns"].values())
    assert len(pages.rows(f"/runs/{name}")) == min(counted(path, name), 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_a_saved_query_answers_as_inv_sql_does_when_its_fields_are_empty(pages: Pages, path: Path, name: str) -> None:
    saved = QUERIES[name]
    given = GIVEN.get(name, {}) if saved.required else {}

    page = html.unescape(pages.get(f"/runs/ask_{name}", **given))

    assert saved.question in page
    assert pages.rows(f"/runs/ask_{name}", **given) == asked(path, name, given)


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_typed_into_the_fields_of_a_saved_query_counts(pages: Pages, path: Path, name: str) -> None:
    rows = pages.rows(f"/runs/ask_{name}", **GIVEN[name])

    assert rows == asked(path, name, GIVEN[name])
    assert rows


def asked(path: Path, name: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    saved = QUERIES[name]
    found = registry.query(path, saved.sql, dict.fromkeys(saved.parameters) | given)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_the_front_page_has_the_views_and_the_questions_first_and_hides_what_is_behind_them(pages: Pages) -> None:
    page = pages.get("/runs")

    places = [page.index(text) for text in ('<a href="runs/run_summary">runs</a>', ">Queries<", ">Tables<")]
    assert places == sorted(places)
    assert all(f">{html.escape(saved.question, quote=True)}<" in page for saved in QUERIES.values())
    assert re.search(r"<h3><a href=\"/runs/runs\">", page)
    assert not re.search(r"<h3><a href=\"/runs/(metrics|series|sqlite_stat1)\">", page)


def test_runs_come_newest_first_and_numbers_of_runs_are_names(pages: Pages) -> None:
    names = [row["name"] for row in pages.rows("/runs/run_summary")]
    attempts = pages.get("/runs/attempts")

    assert names == list(known_registry.DAYS)[::-1]
    assert '<a href="/runs/runs/1">heron</a>' in attempts


def test_sizes_have_units(pages: Pages) -> None:
    assert "4.0&nbsp;kB" in pages.get("/runs/checkpoint_summary")


@pytest.mark.slow
def test_datasette_writes_nothing(pages: Pages, path: Path) -> None:
    before = path.read_bytes()

    for name in DESCRIBED:
        pages.get(f"/runs/{name}")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        pages.connect().execute("DELETE FROM tags")
    assert path.read_bytes() == before


def test_the_command_of_the_page_names_the_file_that_ships() -> None:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    (program,) = set(re.findall(r"-m \"\$\(python -c '([^']+)'\)\"", page))

    assert run_python("-c", program) == (0, f"{FILE}\n", "")
