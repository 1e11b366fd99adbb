"""What there is to ask: the saved queries of `db/queries`, and the tables and views with their columns.

A saved query begins with comments: its question, then one line a parameter, `-- :name what it is`. One that says
"unless given" may be left out; it is NULL then, and the query has a default for it. One that says what kind it is of,
as in `-- :keep how many stay, a whole number from 1; 1 unless given`, is checked before the query is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from mlxops import files, words
from mlxops.errors import BadRequest, NotFound
from mlxops.likeness import nearest
from mlxops.registry.database import open_read_only
from mlxops.registry.sql.errors import columns_of
from mlxops.registry.sql.query import query
from mlxops.registry.sql.text import parameters_of
from mlxops.resources import folder

_PARAMETER = re.compile(r"^-- :(\w+) (.+)$", re.MULTILINE)
_KNOWN = {
    "a setting": "SELECT DISTINCT key FROM runs CROSS JOIN json_each(runs.config)",
    "a score": "SELECT DISTINCT metric FROM scores",
    "a figure of benchmarks": "SELECT DISTINCT metric FROM benchmark_summary",
    "a package": "SELECT DISTINCT key FROM attempts CROSS JOIN json_each(attempts.environment, '$.versions')",
}
"""The kinds of names, and what there is of each in a registry."""

_SHOWN = 20  # of the names there are

_RUN = re.compile(r"name of (a|the|the other) run\b")
_KIND = re.compile(rf"(?:^|, )(a number|a whole number from 1|{'|'.join(_KNOWN)})(?:[;,]|$)")


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query of `db/queries`: its name, the question it answers, its text, its parameters and what each of them is."""

    name: str
    question: str
    sql: str
    parameters: tuple[str, ...]
    meanings: dict[str, str]

    @property
    def required(self) -> tuple[str, ...]:
        """The parameters that have no default."""
        return tuple(name for name in self.parameters if "unless given" not in self.meanings.get(name, ""))

    def takes_run(self, name: str) -> bool:
        """Whether a parameter names a run."""
        return _RUN.match(self.meanings.get(name, "")) is not None

    def check(self, path: Path, name: str, value: int | float | str) -> None:
        """Raise `BadRequest` for a value that is not of the kind which the parameter's line names.

        A name is of its kind where the registry has it, or has none of that kind at all.
        """
        meaning = self.meanings.get(name, "")
        found = _KIND.search(meaning)
        kind = found[1] if found else None
        if kind in _KNOWN:
            _check_known(path, kind, str(value))
        elif (kind == "a number" and isinstance(value, str)) or (
            kind == "a whole number from 1" and not (isinstance(value, int) and value >= 1)
        ):
            raise BadRequest(f"{name} takes {kind}, not {str(value)!r}", hint=f"{name} is {meaning}")


def saved_queries() -> list[SavedQuery]:
    """The queries of `db/queries` by name."""
    return [_read(file) for file in _files()]


def saved_query(name: str) -> SavedQuery:
    """The saved query of that name, or `NotFound` with the nearest."""
    known = {file.stem: file for file in _files()}
    if name not in known:
        near = nearest(name, known)
        raise NotFound(
            f"no saved query {name!r}", hint=f"did you mean {near!r}?" if near else "`inv sql .queries` lists them"
        )
    return _read(known[name])


def _files() -> list[Path]:
    return files.matching(folder("db") / "queries", "*.sql")


def _read(file: Path) -> SavedQuery:
    text = file.read_text(encoding="utf-8")
    question = text.partition("\n")[0].removeprefix("--").strip()
    return SavedQuery(file.stem, question, text, parameters_of(text), dict(_PARAMETER.findall(text)))


def _check_known(path: Path, kind: str, name: str) -> None:
    known = sorted(str(each) for (each,) in query(path, _KNOWN[kind]).rows)
    if known and name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {words.listed(known, _SHOWN)}"
        raise BadRequest(f"{name!r} is not {kind} that the registry has", hint=hint)


class SchemaColumn(TypedDict):
    """A column with its declared type, empty where it has none."""

    name: str
    type: str


class SchemaEntry(TypedDict):
    """A table or view and its columns."""

    name: str
    kind: Literal["table", "view"]
    columns: list[SchemaColumn]


def schema(path: Path) -> list[SchemaEntry]:
    """The views and tables of a registry."""
    with open_read_only(path) as db:
        entries = db.connection.execute(
            """
            SELECT name, type FROM sqlite_schema
            WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' ESCAPE '~'
            ORDER BY type DESC, name
            """
        ).fetchall()
        return [
            {
                "name": name,
                "kind": kind,
                "columns": [
                    {"name": column, "type": declared} for column, declared in columns_of(db.connection.execute, name)
                ],
            }
            for name, kind in entries
        ]
