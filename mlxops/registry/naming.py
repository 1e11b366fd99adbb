"""What a person means by RUN and RUN:PLACE: one rule for every task. Pure: the runs there are come in."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

from mlxops import layout
from mlxops.errors import BadRequest, NotFound

_SHOWN = 8  # of the runs that a part of a name could mean


def resolve(text: str, runs: Mapping[str, int | None], newest: str | None) -> str:
    """The name of the run that a text means: `latest`, a name, a number (`runs.id`), or an unambiguous part of a name.

    `runs` has the id of each run by its name, the newest first; `newest` is the one that `latest` stands for. A name in
    another case or Unicode spelling is that name, and a whole name goes before a number and a part. Raises `BadRequest`
    for a part of several names, which it lists, and `NotFound` with the names most like it.

    >>> resolve("sandy", {"tiny-sandy-crane": 7, "tiny-quiet-heron": 3}, "tiny-sandy-crane")
    'tiny-sandy-crane'
    >>> resolve("3", {"tiny-sandy-crane": 7, "tiny-quiet-heron": 3}, "tiny-sandy-crane")
    'tiny-quiet-heron'
    """
    if text == "latest" and newest is not None:
        return newest
    known = layout.known_spelling(text, runs)
    if known in runs:
        return known
    if text.isdecimal():
        for name, number in runs.items():
            if number == int(text):
                return name
    part = layout.folded(text.strip())
    found = [name for name in runs if part and part in layout.folded(name)]
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise BadRequest(
            f"{text!r} is part of {len(found)} names of runs: {', '.join(found[:_SHOWN])}{more}",
            hint="give more of the name, or the run's number (`inv runs --columns id,name`)",
        )
    raise _no_run(text, list(runs))


def split_place(text: str, names: Collection[str]) -> tuple[str, str | None]:
    """RUN and PLACE of RUN:PLACE; the place is None where there is none. `names` are those of the runs there are.

    Raises `BadRequest` for a place that is neither `best`, `last` nor an iteration.
    """
    name, colon, place = text.rpartition(":")
    if not colon or text in names:
        return text, None
    if place not in ("best", "last") and not place.isdecimal():
        raise BadRequest(
            f"{text!r} names no checkpoint", hint="RUN, RUN:ITERATION, RUN:best and RUN:last name one of a run"
        )
    return name, place


def missing_place(run: str, place: str, iterations: Sequence[int]) -> NotFound:
    """The error for a checkpoint that a run does not have; `iterations` are those that it has, in their order."""
    what = f"checkpoint of iteration {int(place):,}" if place.isdecimal() else f"{place} checkpoint"
    there = ", ".join(map(str, iterations[-5:]))
    hint = f"its last ones are of iteration {there}" if there else f"`inv checkpoints --run {run}` shows its folder"
    return NotFound(f"the run {run!r} has no {what}", hint=hint)


def _no_run(text: str, names: Iterable[str]) -> NotFound:
    names = list(names)
    if not names:
        return NotFound("there are no runs yet", hint="`inv lora --model MODEL --data DATA` starts the first")
    near = difflib.get_close_matches(text, names, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`inv runs` shows the runs there are"
    return NotFound(f"no run {text!r}", hint=hint)
