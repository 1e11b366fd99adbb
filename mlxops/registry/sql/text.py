"""SQL as text: its tokens, its parameters, and a place in it as a person finds it. Nothing here opens a database."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<text> '(?:[^']|'')*'? )
    | (?P<name> "(?:[^"]|"")*"? | `(?:[^`]|``)*`? | \[[^\]]*\]? )
    | (?P<parameter> [:@$]\w+ | \?\d* )
    | (?P<number> (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\w* )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<sign> \|\| | ->> | -> | <= | >= | <> | != | == | << | >> | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_WIDTH = 72  # of the piece of a line that is shown

WRITING = {
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "COMMIT", "CREATE", "DELETE", "DETACH", "DROP", "END", "INSERT", "REINDEX",
    "RELEASE", "REPLACE", "ROLLBACK", "SAVEPOINT", "UPDATE", "VACUUM",
}  # fmt: skip
"""The verbs of statements that do more than read."""

_VERBS = WRITING | {"PRAGMA", "SELECT", "VALUES"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL; `kind` is text, name (quoted), parameter, number, word or sign."""

    kind: str
    text: str
    start: int

    @property
    def stop(self) -> int:
        """Where the next one may begin."""
        return self.start + len(self.text)

    @property
    def bare(self) -> str:
        """A name without its quotes."""
        return self.text[1:-1] if self.kind == "name" else self.text


def tokens(sql: str) -> list[Token]:
    """All that is neither space nor comment, in order.

    >>> [each.text for each in tokens("SELECT 'a;b' -- no\\n, :run")]
    ['SELECT', "'a;b'", ',', ':run']
    """
    found = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind is not None and kind != "space":
            found.append(Token(kind, match[0], match.start()))
    return found


def parameters_of(sql: str) -> tuple[str, ...]:
    """The names of the parameters, each once; one without a name stays the sign that it is.

    >>> parameters_of("SELECT :run, '12:30', ?1, @run, :limit")
    ('run', '?1', 'limit')
    """
    texts = [each.text for each in tokens(sql) if each.kind == "parameter"]
    return tuple(dict.fromkeys(text if text.startswith("?") else text[1:] for text in texts))


def second_statement(sql: str) -> int | None:
    """Where a second statement begins, None where there is none."""
    ended = False
    for each in tokens(sql):
        if each.text == ";":
            ended = True
        elif ended:
            return each.start
    return None


def without_end(sql: str) -> str:
    """The text up to its last token that is no semicolon.

    >>> without_end("SELECT ';';; -- done")
    "SELECT ';'"
    """
    said = [each for each in tokens(sql) if each.text != ";"]
    return sql[: said[-1].stop] if said else sql


def verb(sql: str) -> str:
    """What a statement does, behind EXPLAIN and WITH; nothing where that cannot be told.

    >>> verb("explain with one as (select 1) delete from tags")
    'DELETE'
    """
    depth = 0
    for each in tokens(sql):
        depth += (each.text == "(") - (each.text == ")")
        if depth == 0 and each.kind == "word" and each.text.upper() in _VERBS:
            return each.text.upper()
    return ""


def place(sql: str, offset: int) -> str:
    """A place as people count.

    >>> place("select", 3), place("select\\n1", 7)
    ('column 4', 'line 2, column 1')
    """
    line = sql.count("\n", 0, offset) + 1
    column = offset - (sql.rfind("\n", 0, offset) + 1) + 1
    return f"line {line}, column {column}" if "\n" in sql.strip() else f"column {column}"


def marked(sql: str, offset: int) -> str:
    """The line of a place, or what of it fits, and below it a caret under the place.

    >>> print(marked("select nam from runs", 7))
      select nam from runs
             ^
    """
    start = sql.rfind("\n", 0, offset) + 1
    end = sql.find("\n", offset)
    line = sql[start : end if end >= 0 else len(sql)]
    column = offset - start
    first = max(0, column - _WIDTH // 2) if len(line) > _WIDTH else 0
    shown = "".join(each if each.isprintable() else " " for each in line[first : first + _WIDTH])
    before = "…" if first else ""
    after = "…" if first + _WIDTH < len(line) else ""
    cells = len(before) + sum(_cells(each) for each in shown[: column - first])
    return f"  {before}{shown}{after}\n  {' ' * cells}^"


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
