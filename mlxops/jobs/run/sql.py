"""Questions to the registry: SQL, saved queries with their parameters, and what there is to ask. Draws nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from mlxops import registry
from mlxops.config import SqlConfig
from mlxops.errors import BadRequest
from mlxops.likeness import nearest
from mlxops.projects.invocation import Invocation
from mlxops.registry import SavedQuery, Table

_WHOLE = re.compile(r"-?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DIGITS = 19  # of SQLite's largest whole number; longer ones stay texts


def ask(invocation: Invocation, config: SqlConfig, *, limit: int | None = None) -> Table:
    """The answer to SQL, to a saved query (`@NAME`), to `.queries` or to `.schema`; of SQL at most `limit` rows."""
    text = config.text.strip()
    if text == ".queries":
        return Table(("name", "question", "parameters"), [_listed(each) for each in registry.saved_queries()])
    if text == ".schema":
        entries = registry.schema(invocation.project.registry_path)
        return Table(
            ("name", "kind", "columns"),
            [(each["name"], each["kind"], ", ".join(column["name"] for column in each["columns"])) for each in entries],
        )
    if text.startswith("."):
        raise BadRequest(f"{text!r} is not known", hint="`inv sql .queries` and `inv sql .schema` list what there is")
    if text.startswith("@"):
        saved = registry.saved_query(text[1:].removesuffix(";"))
        sql, parameters = saved.sql, _parameters_of(saved, text, _typed(config.param), invocation)
    else:
        # as it was typed, so that a place in it is the place that a person sees
        sql, parameters = config.text, {name: _value(text) for name, text in _typed(config.param).items()}
        names = registry.parameters_of(sql)
        _check(parameters, names, names, "the query")
    return registry.query(invocation.project.registry_path, sql, parameters, timeout=config.timeout, limit=limit)


def _listed(saved: SavedQuery) -> tuple[str, str, str]:
    """A saved query as `.queries` shows it; a parameter in brackets has a default."""
    names = [name if name in saved.required else f"[{name}]" for name in saved.parameters]
    return f"@{saved.name}", saved.question, ", ".join(names)


def _typed(texts: Sequence[str]) -> dict[str, str]:
    """The parameters as they were typed, by name."""
    typed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadRequest(f"--param takes name=value, not {text!r}")
        if name in typed:
            raise BadRequest(f"the parameter {name!r} stands there twice", hint="give each one value")
        typed[name] = value
    return typed


def _value(text: str) -> int | float | str:
    """A number where the text is one as numbers are written; `007` is a name.

    >>> _value("10"), _value("1e-5"), _value("007"), _value("1e999")
    (10, 1e-05, '007', '1e999')
    """
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) < _DIGITS else text
    if _NUMBER.fullmatch(text) and not re.fullmatch(r"[-+]?0\d+", text) and math.isfinite(float(text)):
        return float(text)
    return text


def _parameters_of(
    saved: SavedQuery, typed_as: str, typed: Mapping[str, str], invocation: Invocation
) -> dict[str, int | float | str | None]:
    """A value for every parameter of a saved query: what was typed, NULL where the query has a default."""
    _check(typed, saved.parameters, saved.required, typed_as)
    parameters: dict[str, int | float | str | None] = dict.fromkeys(saved.parameters)
    for name, text in typed.items():
        value = _name_of_run(invocation, text) if saved.takes_run(name) else _value(text)
        saved.check(invocation.project.registry_path, name, value)
        parameters[name] = value
    return parameters


def _name_of_run(invocation: Invocation, text: str) -> str:
    with registry.open_read_only(invocation.project.registry_path) as db:
        return str(registry.find_run(db, text)["name"])


def _check(given: Collection[str], known: Sequence[str], required: Sequence[str], query: str) -> None:
    for name in given:
        if name not in known:
            near = nearest(name, known)
            takes = f"{query} takes {', '.join(known)}" if known else f"{query} takes none"
            raise BadRequest(f"{query} has no parameter {name!r}", hint=f"did you mean {near!r}?" if near else takes)
    if unnamed := [name for name in required if name.startswith("?")]:
        raise BadRequest(f"a parameter has a name here, as in :run, and {unnamed[0]} has none")
    missing = [name for name in required if name not in given]
    if missing:
        hint = " ".join(f"`--param {name}=VALUE`" for name in missing)
        raise BadRequest(f"{query} needs a value for {', '.join(missing)}", hint=hint)
