"""Which known word a person most likely meant by one that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

_LOOKED_AT = 8

_OTHER_CHOICES: Mapping[str, str] = {
    **dict.fromkeys(("finished", "done", "complete", "success", "succeeded", "ended"), "completed"),
    **dict.fromkeys(("stopped", "paused", "cancelled", "canceled", "unfinished", "killed"), "interrupted"),
    **dict.fromkeys(("crashed", "error", "errored", "diverged"), "failed"),
    **dict.fromkeys(("active", "alive", "working", "started", "training"), "running"),
    **dict.fromkeys(("dead", "vanished", "stale"), "lost"),
    **dict.fromkeys(("new", "pending", "queued"), "created"),
    **dict.fromkeys(("local", "installed", "here"), "downloaded"),
    **dict.fromkeys(("remote", "hub", "online"), "available"),
}
"""What a choice of ours is called elsewhere."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like this one, or one that has such a word in it; None where none is near.

    >>> nearest("itres", ["iters", "epochs"]), nearest("--trails", ["--iterations", "--num-trials"])
    ('iters', '--num-trials')
    >>> nearest("fnished", ["failed", "finished"]), nearest("modle", ["mode", "model"])
    ('finished', 'model')
    """
    near = near_ones(word, known, _LOOKED_AT)
    return next((one for one in near if get_close_matches(word.lstrip("-"), one.split("-"), 1, 0.8)), (*near, None)[0])


def choice_meant(word: str, choices: Sequence[str]) -> str | None:
    """The choice that a word is like, or the name that other programs have for it.

    >>> choice_meant("fnished", ["failed", "completed"]), choice_meant("adamm", ["sgd", "adam"])
    ('completed', 'adam')
    """
    begun = [choice for choice in choices if word and choice.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    others = {other: choice for other, choice in _OTHER_CHOICES.items() if choice in choices}
    near = nearest(word, [*choices, *others])
    return near if near is None else others.get(near, near)


def near_ones(word: str, known: Iterable[str], count: int) -> list[str]:
    """The known words like this one, those with the fewest slips of a finger first."""
    near = get_close_matches(word, list(known), n=_LOOKED_AT, cutoff=0.6)
    return sorted(near, key=lambda one: (_slips(word, one), sorted(one) != sorted(word), one[:1] != word[:1]))[:count]


def is_one_slip(typed: str, meant: str) -> bool:
    """Whether one slip of a finger, or none, makes the one of the other.

    >>> is_one_slip("--itres", "--iters"), is_one_slip("--plain", "--last")
    (True, False)
    """
    return _slips(typed, meant) <= 1


def _slips(typed: str, meant: str) -> int:
    """How many letters were left out, added, mistyped, or swapped with the one beside them."""
    rows = [list(range(len(meant) + 1))]
    for place, letter in enumerate(typed, start=1):
        row = [place]
        for other, wanted in enumerate(meant, start=1):
            fewest = min(rows[-1][other] + 1, row[-1] + 1, rows[-1][other - 1] + (letter != wanted))
            if place > 1 and other > 1 and (letter, typed[place - 2]) == (meant[other - 2], wanted):
                fewest = min(fewest, rows[-2][other - 2] + 1)
            row.append(fewest)
        rows.append(row)
    return rows[-1][-1]
