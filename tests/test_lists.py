"""A list that is typed as one text."""

from __future__ import annotations

import pytest

from mlxops.errors import BadRequest
from mlxops.lists import list_of


@pytest.mark.parametrize(
    ("text", "items"),
    [("a, b,", ["a", "b"]), ("[1e-4, 8]", ["1e-4", "8"]), ("['a, b', c]", ["a, b", "c"]), ("[]", []), ("", [])],
)
def test_items_stand_in_brackets_or_without(text: str, items: list[str]) -> None:
    assert list_of(text, "--tag") == items


def test_brackets_that_do_not_match_are_refused_where_they_stand() -> None:
    with pytest.raises(BadRequest, match=r"^r\.yaml: tag takes a list, not '\[a'$"):
        list_of("[a", "r.yaml: tag")
