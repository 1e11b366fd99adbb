"""docs/sql.md is what its script writes of the present queries, views and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import ROOT, run_python

from mlxops import registry

SCRIPT = str(ROOT / "docs" / "sql.py")
PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_is_current() -> None:
    assert run_python(SCRIPT, "--check") == (0, "", "")


@pytest.mark.slow
def test_a_page_that_is_not_current_is_noticed_and_written_anew() -> None:
    page = Path("sql.md")
    page.write_text(PAGE.replace("heron", "herom", 1), encoding="utf-8")

    code, out, _ = run_python(SCRIPT, "--check", "--page", str(page))
    assert (code, out) == (1, "sql.md is not current: python docs/sql.py writes it again\n")
    run_python(SCRIPT, "--page", str(page))
    assert page.read_text(encoding="utf-8") == PAGE


def test_every_query_view_and_table_has_a_section(tmp_path: Path) -> None:
    registry.open_registry(tmp_path / "runs.db").close()

    names = [saved.name for saved in registry.saved_queries()]
    names += [entry["name"] for entry in registry.schema(tmp_path / "runs.db")]

    assert [name for name in names if f"\n### {name}\n" not in PAGE] == []


def test_every_saved_query_of_the_page_has_an_answer_with_rows() -> None:
    assert "no rows" not in PAGE.partition("## Views")[0]
