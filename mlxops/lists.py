"""A list that is typed as one text: with commas between its items, in brackets or without."""

from __future__ import annotations

import re

from mlxops.errors import BadRequest

_ITEM = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^\s,"'\[\]][^,\[\]]*)|)\s*(?:,|$)""")
"""An item of a list in brackets, up to the next comma: in quotation marks, without them, or nothing."""


def list_of(text: str, where: str) -> list[str]:
    """The items of a list: with commas between them, in brackets as JSON, Python and YAML have it, or without.

    Raises `BadRequest` where brackets or quotation marks do not match.

    >>> list_of("a, b,", "--tag"), list_of("['a, b', c]", "--tag"), list_of("[]", "--tag")
    (['a', 'b'], ['a, b', 'c'], [])
    """
    text = text.strip()
    has_start, has_end = text.startswith("["), text.endswith("]") and (text.startswith("[") or "[" not in text)
    if not (has_start or has_end):
        return [part.strip() for part in text.split(",") if part.strip()]
    found, place, inner = [], 0, text[1:-1]
    while has_start and has_end and place < len(inner) and (item := _ITEM.match(inner, place)):
        found.append(next((part for part in item.groups() if part is not None), "").strip())
        place = item.end()
    if not (has_start and has_end) or place < len(inner):
        raise BadRequest(
            f"{where} takes a list, not {text!r}",
            hint="the brackets or quotation marks do not match; a list is 1,2 or, quoted for the shell, '[1, 2]'",
        )
    return [item for item in found if item]
