"""How often Python looks for garbage: rarely while a command starts, for libraries make many objects that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

WHILE_STARTING = 20_000
"""After how many new objects Python looks while a command starts; its own number is 700 to 2,000."""

_FROZEN_AT_START = gc.get_freeze_count()  # some hundred, from Python 3.12 on

_before: list[tuple[int, int, int]] = []


@contextmanager
def collect_rarely(objects: int) -> Iterator[None]:
    """Look only after so many new objects until the block ends, or until `collect_as_usual` is called in it.

    Where a person has switched it off, it stays off.
    """
    before = gc.get_threshold()
    _before.append(before)
    if before[0]:
        gc.set_threshold(max(before[0], objects), *before[1:])
    try:
        yield
    finally:
        _before.pop()
        gc.set_threshold(*before)


def collect_as_usual() -> None:
    """Look as often as before the outermost block: from here on, arrays of a model may be part of a cycle.

    What is there by now, the libraries above all, is not looked at any more, for a first model of a process.
    """
    if not _before:
        return
    if gc.get_freeze_count() <= _FROZEN_AT_START:  # later, a model that is over might be kept with it
        gc.freeze()
    gc.set_threshold(*_before[0])
