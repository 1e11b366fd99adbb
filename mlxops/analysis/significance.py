"""Whether a difference is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a value is above the lowest, the standard error of that, and whether it is more than chance.

    None where it is not known.
    """

    difference: float | None
    standard_error: float | None
    exceeds: bool | None


_CERTAIN = 1.96  # standard errors of a difference that chance exceeds once in twenty times


def above_lowest(measured: Sequence[tuple[float | None, float | None]]) -> list[Difference]:
    """For each value with its standard error the difference to the lowest of them.

    The rule: the standard error of a difference is the root of the sum of squares of both, and a difference larger
    than 1.96 of it is taken for real (a two-sided z-test at 5 %). It takes the two for independent; on the same
    validation rows they go up and down together, so that the rule errs on the side of caution.

    >>> above_lowest([(2.0, 0.03), (2.2, 0.04)])[1].exceeds
    True
    """
    known = [pair for pair in measured if pair[0] is not None]
    lowest = min(known, key=lambda pair: pair[0] or 0.0) if known else (None, None)
    found = []
    for value, error in measured:
        difference = None if value is None or lowest[0] is None else value - lowest[0]
        is_known = difference is not None and error is not None and lowest[1] is not None
        spread = (
            (error**2 + lowest[1] ** 2) ** 0.5 if is_known and error is not None and lowest[1] is not None else None
        )
        exceeds = abs(difference) > _CERTAIN * spread if spread is not None and difference is not None else None
        found.append(Difference(difference=difference, standard_error=spread, exceeds=exceeds))
    return found
