"""Names and texts that a person gives: one check for all of them, which says the reason that applies.

A name becomes a file or a folder, a word on the command line and a key of the registry; a text is stored and shown.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlxops.errors import BadRequest

LONGEST_NAME = 200
"""In bytes: file systems take 255, and a file is written under a longer name first."""

LONGEST_TEXT = 10_000
"""In characters."""

# in a text that is shown, these put what follows in another order
_ORDER = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


@dataclass(frozen=True, kw_only=True)
class NameRule:
    """What a kind of name may be: `without` are the characters it has not, `not_first` those it does not begin with.

    `is_word` is for a name that begins with a letter or digit. `reserved` are names with a meaning of their own, each
    with its reason, in any spelling that some system takes for the same.
    """

    kind: str
    without: str = ""
    not_first: str = "-"
    is_word: bool = False
    reserved: Mapping[str, str] = field(default_factory=dict)


RUN = NameRule(
    kind="a run",
    without='/\\,:*?"<>|',
    not_first=".-@",
    reserved={"latest": "it stands for the newest run"},
)
MODEL = NameRule(kind="a model", without="/\\,", is_word=True, reserved={"sample": "it stands for the sample model"})
PROJECT = NameRule(kind="a project")
TAG = NameRule(kind="a tag", without=",")


def check_name(name: str, rule: NameRule, *, hint: str | None = None) -> str:
    """The name, or `BadRequest` with the reason why it cannot be one of its kind."""
    if reason := why_unfit(name, rule):
        raise BadRequest(f"{shown(name)} cannot be the name of {rule.kind}: {reason}", hint=hint or _hint(rule))
    return name


def why_unfit(name: str, rule: NameRule) -> str | None:
    """Why a name cannot be one of its kind; None for one that can.

    >>> why_unfit("a:b", RUN), why_unfit("latest", RUN), why_unfit("caf\u00e9", RUN)
    ("it has ':'", 'it stands for the newest run', None)
    """
    if not name.strip():
        return "it is empty"
    if not is_utf8(name):
        return "it has bytes that are no UTF-8"
    if (size := len(name.encode())) > LONGEST_NAME:
        return f"it is {size:,} bytes long, and {LONGEST_NAME} is the most"
    if name != name.strip():
        return "it begins or ends with a space"
    if hidden := next(filter(_is_hidden, name), None):
        return f"it has the character {_escaped(hidden)}, which cannot be shown"
    if there := [each for each in rule.without if each in name]:
        return f"it has {' and '.join(map(repr, there))}"
    if name[0] in rule.not_first or (rule.is_word and not name[0].isalnum()):
        return f"it begins with {name[0]!r}"
    from mlxops import layout  # not for those who only list the tasks

    return rule.reserved.get(layout.folded(name))


def check_text(text: str, what: str, *, hint: str | None = None) -> str:
    """The text, or `BadRequest` that says what about `what` cannot be stored or shown."""
    check_utf8(text, what)
    if len(text) > LONGEST_TEXT:
        raise BadRequest(f"{what} has {len(text):,} characters, and {LONGEST_TEXT:,} is the most", hint=hint)
    if hidden := next((each for each in text if each not in "\n\t" and _is_hidden(each)), None):
        raise BadRequest(f"{what} has the character {_escaped(hidden)}, which cannot be shown", hint=hint)
    return text


def check_utf8(value: object, what: str) -> None:
    """Raise `BadRequest` for texts with bytes that are no UTF-8, which no registry, JSON or terminal can hold.

    The value may be a text, or a list or table with texts in it.
    """
    if isinstance(value, (list, tuple, dict)):
        for each in value.items() if isinstance(value, dict) else value:
            check_utf8(each, what)
    elif isinstance(value, str) and not is_utf8(value):
        raise BadRequest(
            f"{what} has bytes that are no UTF-8: {shown(value)}",
            hint="rename the file or folder (`mv`); a text comes from a terminal that is set to UTF-8",
        )


def is_utf8(text: str) -> bool:
    """Whether a text that came from the system was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """A text in quotes as an error shows it: bytes that are no UTF-8 by their numbers, and of a long one the ends.

    >>> shown("caf\\udce9"), len(shown("a" * 300))
    ("'caf\\\\xe9'", 83)
    """
    if len(text) > 80:
        text = f"{text[:50]}…{text[-30:]}"
    if is_utf8(text):
        return repr(text)
    try:
        return "'" + text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") + "'"
    except UnicodeEncodeError:  # half of a pair that no byte stands for, as "\\ud800" in JSON
        return repr(text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or ord(character) in _ORDER


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _hint(rule: NameRule) -> str:
    left_out = f"without {' '.join(rule.without)}; " if rule.without else ""
    return (
        f"{rule.kind} takes a name {left_out}it does not begin with {' '.join(rule.not_first)} and has at most "
        f"{LONGEST_NAME} bytes"
    )
