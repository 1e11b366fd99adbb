"""What may spoil a training although a row can be read, as far as the row itself tells.

Rows that repeat others are in `repetitions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mlxops.data.formats import Record

Level = Literal["error", "warning"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")
_SECRETS = (
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})\b")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}\b")),
    ("an API key", re.compile(r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}\b")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
)

# One search in place of eight, for all texts that hold no secret.
_BEGINNINGS = re.compile(r"-----BEGIN|AKIA|ASIA|gh[pousr]_|github_pat_|hf_|xox[abprs]-|sk-|AIza|eyJ")
_SUSPICIOUS = re.compile(rf"{_CONTROL.pattern}|[\ufffd@]|{_BEGINNINGS.pattern}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with one row (`origin` is `file:line`) or one file."""

    level: Level
    kind: str
    origin: str
    message: str


def warning(kind: str, origin: str, message: str) -> Finding:
    """Something that can be trained on, and may spoil the training."""
    return Finding(level="warning", kind=kind, origin=origin, message=message)


def of_row(record: Record) -> Iterator[Finding]:
    """What is suspicious in a row by itself."""
    yield from _order(record)
    # one search over all texts, for all rows in which there is nothing to find
    together = "\n".join([record.text or "", *[message["content"] for message in record.messages]])
    if not _SUSPICIOUS.search(together):
        return
    for where, text in _texts(record):
        if found := _CONTROL.search(text):
            yield _warning("control characters", record, f"{where}: the control character U+{ord(found[0]):04X}")
        if "\ufffd" in text:
            yield _warning("damaged text", record, f"{where}: U+FFFD stands where a character was lost")
        for name, pattern in _SECRETS if _BEGINNINGS.search(text) else ():
            if found := pattern.search(text):
                yield _warning("secrets", record, f"{where}: {name}, perhaps ({_hidden(found[0])})")
        if "@" in text and (found := _MAIL.search(text)):
            yield _warning("e-mail addresses", record, f"{where}: an e-mail address ({_hidden(found[0])})")


def _order(record: Record) -> Iterator[Finding]:
    roles = [message["role"] for message in record.messages]
    talk = [(number, role) for number, role in enumerate(roles, 1) if role not in ("system", "developer")]
    for number, role in enumerate(roles, 1):
        if role in ("system", "developer") and number > 1:
            yield _warning("order of roles", record, f"turn {number} is of the role {role!r}, which stands first")
            break
    if talk and talk[0][1] == "assistant":
        yield _warning("order of roles", record, "the assistant speaks before the user")
    for (_, before), (number, role) in pairwise(talk):
        if role == before and role in ("user", "assistant"):
            yield _warning("order of roles", record, f"turns {number - 1} and {number} are both of the role {role!r}")
            break
    if roles and roles[-1] in ("user", "system", "developer"):
        yield _warning("order of roles", record, f"the last turn is of the role {roles[-1]!r}: nothing answers it")
    for number, message in enumerate(record.messages, 1):
        if message["role"] in ("user", "system") and not message["content"].strip():
            yield _warning("empty fields", record, f"turn {number} of the role {message['role']!r} is empty")


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    if record.text is not None:
        yield "text", record.text
    for number, message in enumerate(record.messages, 1):
        yield f"turn {number}", message["content"]


def _warning(kind: str, record: Record, message: str) -> Finding:
    return warning(kind, record.origin, message)


def _hidden(text: str) -> str:
    """The beginning of what nobody should read in a log.

    >>> _hidden("hf_abcdefghijklmnop")
    'hf_…, 19 characters'
    """
    return f"{text[:3]}…, {len(text)} characters"
