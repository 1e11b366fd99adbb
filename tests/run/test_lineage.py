"""Families of runs: what the registry tells of them, and how they are drawn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlxops import registry
from mlxops.ui.run import lineage


@pytest.fixture
def family(tmp_path: Path) -> list[dict[str, Any]]:
    """A first run, two children, and a grandchild; asked for from the grandchild."""
    with registry.open_registry(tmp_path / "runs.db") as db:
        first = make_run(db, "first")
        child = make_run(db, "child", first, 10)
        make_run(db, "sibling", first, 20)
        grandchild = make_run(db, "grandchild", child, 30)
        make_run(db, "stranger")
        registry.record_validation(db, child, None, iteration=25, loss=1.5, standard_error=0.1)
        return registry.family_of(db, grandchild)


def make_run(db: registry.Registry, name: str, parent: int | None = None, iteration: int | None = None) -> int:
    return registry.create_run(
        db,
        name=name,
        kind="lora",
        fingerprint=name,
        model="models/m",
        model_identity="m",
        data="data",
        data_identity="d",
        config={},
        target_iterations=100,
        adapter_path=f"adapters/{name}",
        parent_id=parent,
        branch_iteration=iteration,
    ).id


def test_a_family_holds_ancestors_siblings_and_children_and_no_strangers(family: list[dict[str, Any]]) -> None:
    assert [(row["run"], row["parent"], row["branch_iteration"], row["generations"]) for row in family] == [
        ("first", None, None, 0),
        ("child", "first", 10, 1),
        ("sibling", "first", 20, 1),
        ("grandchild", "child", 30, 2),
    ]


def test_a_family_is_drawn_as_a_tree(family: list[dict[str, Any]]) -> None:
    assert drawn(family, "grandchild") == [
        "first  created at 0/100",
        "├── child  from 10, created at 25/100, best 1.500 at 25",
        "│   └── grandchild (this run)  from 30, created at 0/100",
        "└── sibling  from 20, created at 0/100",
    ]


def test_a_tree_of_nothing_of_one_and_of_too_wide_a_name_is_drawn(family: list[dict[str, Any]]) -> None:
    assert drawn([], "x") == []
    assert drawn(family[:1], "first") == ["first (this run)  created at 0/100"]
    assert all(len(line) <= 20 for line in drawn(family, "first", width=20))


def drawn(rows: list[dict[str, Any]], name: str, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(lineage.tree(rows, name))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
