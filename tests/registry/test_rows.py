"""The registry's types for rows are those of its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest

from mlxops.registry import Registry, open_registry, rows, views

JSON = {rows.JsonObject, rows.JsonArray}
KINDS: dict[str, set[Any]] = {"INTEGER": {int}, "REAL": {float}, "TEXT": {str}, "": {int, float, str}}
"""Python's types by SQLite's; of an expression in a view SQLite tells none."""


class Column(NamedTuple):
    """A column of a table or view: its name, the types that its values may have, and whether they may be NULL."""

    name: str
    kinds: set[Any]
    nullable: bool


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("rows") / "runs.db") as opened:
        yield opened


def names_of(db: Registry, kind: str) -> list[str]:
    return [row["name"] for row in db.rows("SELECT name FROM sqlite_schema WHERE type = ? ORDER BY name", (kind,))]


def columns_of(db: Registry, name: str) -> list[Column]:
    """The columns as the schema has them."""
    (schema,) = db.rows("SELECT group_concat(sql) AS text FROM sqlite_schema")
    json_columns = set(re.findall(r"json_valid\((\w+)\)", schema["text"]))
    return [
        Column(
            row["name"],
            JSON if row["name"] in json_columns else KINDS[row["type"]],
            not (row["notnull"] or row["pk"]),
        )
        for row in db.rows(f"PRAGMA table_info({name})")
    ]


def fields_of(of: type) -> list[Column]:
    """The columns as a TypedDict has them."""
    hints = get_type_hints(of)
    kinds = {name: set(get_args(hint)) if isinstance(hint, UnionType) else {hint} for name, hint in hints.items()}
    return [Column(name, found - {NoneType}, NoneType in found) for name, found in kinds.items()]


def class_name(name: str) -> str:
    return name.title().replace("_", "")


def test_every_table_has_a_typed_dict_with_its_columns(db: Registry) -> None:
    singular = {name: name if name == "series" else name.removesuffix("s") for name in names_of(db, "table")}
    typed = {name: fields_of(getattr(rows, f"{class_name(singular[name])}Row")) for name in singular}

    assert {name: [(field.name, field.nullable) for field in fields] for name, fields in typed.items()} == {
        name: [(column.name, column.nullable) for column in columns_of(db, name)] for name in typed
    }
    assert [
        (name, field)
        for name, fields in typed.items()
        for field, column in zip(fields, columns_of(db, name), strict=True)
        if not field.kinds <= column.kinds
    ] == []


def test_every_view_has_a_typed_dict_with_its_columns(db: Registry) -> None:
    typed = {name: fields_of(getattr(views, f"{class_name(name)}View")) for name in names_of(db, "view")}

    assert {name: [field.name for field in fields] for name, fields in typed.items()} == {
        name: [column.name for column in columns_of(db, name)] for name in typed
    }
    assert [
        (name, field)
        for name, fields in typed.items()
        for field, column in zip(fields, columns_of(db, name), strict=True)
        if not field.kinds <= column.kinds
    ] == []


def test_no_typed_dict_is_of_a_table_or_view_that_is_not_there(db: Registry) -> None:
    typed = {name for module in (rows, views) for name in vars(module) if name.endswith(("Row", "View"))}

    assert len(typed) == len(names_of(db, "table")) + len(names_of(db, "view"))
