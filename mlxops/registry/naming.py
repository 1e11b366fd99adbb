"""What a person means by RUN and RUN:PLACE: one rule for every task. Pure: the runs there are come in."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from mlxops import layout, words
from mlxops.errors import BadRequest, NotFound
from mlxops.likeness import near_ones

_SHOWN = 8  # of the runs that a part of a name could mean
_DIGITS = 18  # of a number: SQLite and this machine know none that is longer

Place = Literal["best", "last"] | int
"""Which checkpoint of a run: one of two words, or an iteration."""

_WORDS: Mapping[str, Place] = {"best": "best", "last": "last"}


def resolve(text: str, runs: Mapping[str, int | None], newest: str | None) -> str:
    """The name of the run that a text means: `latest`, a name, a number (`runs.id`), or an unambiguous part of a name.

    `runs` has the id of each run by its name, the newest first; `newest` is the one that `latest` stands for. A name in
    another case or Unicode spelling is that name, and a whole name goes before a number and a part. Raises `BadRequest`
    for a part of several names, which it lists, and `NotFound` with the names most like it, or those there are.

    >>> resolve("sandy", {"tiny-sandy-crane": 7, "tiny-quiet-heron": 3}, "tiny-sandy-crane")
    'tiny-sandy-crane'
    >>> resolve("3", {"tiny-sandy-crane": 7, "tiny-quiet-heron": 3}, "tiny-sandy-crane")
    'tiny-quiet-heron'
    """
    text = text.strip()
    if text == "latest" and newest is not None:
        return newest
    known = layout.known_spelling(text, runs)
    if known in runs:
        return known
    number = _number(text)
    found = [name for name, each in runs.items() if number is not None and each == number] or _with_part(text, runs)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadRequest(
            f"{text!r} is part of {len(found)} names of runs: {words.listed(found, _SHOWN)}",
            hint="give more of the name, or the run's number (`inv runs` shows both)",
        )
    raise _no_run(text, list(runs))


def split_place(text: str, names: Collection[str]) -> tuple[str, Place | None]:
    """RUN and PLACE of RUN:PLACE; the place is None where there is none. `names` are those of the runs there are.

    Raises `BadRequest` for a place that is neither `best`, `last` nor an iteration.
    """
    name, colon, word = text.rpartition(":")
    if not colon or layout.known_spelling(text, names) in names:
        return text, None
    place = place_of(word)
    if place is None:
        raise BadRequest(
            f"{text!r} names no checkpoint",
            hint="a checkpoint of a run is RUN:ITERATION, RUN:best or RUN:last; RUN alone is the run",
        )
    return name, place


def place_of(word: str) -> Place | None:
    """The place that a word names, None where it names none.

    >>> place_of("best"), place_of("120"), place_of("newest")
    ('best', 120, None)
    """
    return _WORDS.get(word, _number(word))


def missing_place(run: str, place: Place, iterations: Sequence[int]) -> NotFound:
    """The error for a checkpoint that a run does not have; `iterations` are those that it has, in their order."""
    if place == "best":
        what = f"no checkpoint of the run {run!r} has a validation loss, so none is the best"
    elif place == "last":
        what = f"the run {run!r} has no whole checkpoint"
    else:
        what = f"the run {run!r} has no checkpoint at iteration {place:,}"
    return NotFound(what, hint=choice(run, iterations))


def choice(run: str, iterations: Sequence[int]) -> str:
    """A hint that says which checkpoints a run has; `iterations` are theirs, in their order.

    >>> choice("crane", [20, 40]), choice("crane", [])
    ('there are checkpoints at 20, 40', '`inv checkpoints --run crane --all` shows what became of its checkpoints')
    """
    if not iterations:
        return f"`inv checkpoints --run {shlex.quote(run)} --all` shows what became of its checkpoints"
    shown = ", ".join(map(str, iterations[-_SHOWN:]))
    return f"there are checkpoints at {'…, ' if len(iterations) > _SHOWN else ''}{shown}"


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def _with_part(text: str, names: Collection[str]) -> list[str]:
    part = layout.folded(text)
    return [name for name in names if part and part in layout.folded(name)]


def _no_run(text: str, names: Sequence[str]) -> NotFound:
    if not names:
        return NotFound("there are no runs yet", hint="`inv lora --model MODEL --data DATA` starts the first")
    near = near_ones(text, names, 3)
    hint = f"`inv runs` shows the runs there are: {words.listed(names, 3)}"
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    run, colon, word = text.rpartition(":")
    if colon and place_of(word) is not None:
        hint = f"a run is asked for here and no checkpoint of it: give {run!r} alone"
    return NotFound(f"no run {text!r}", hint=hint)
