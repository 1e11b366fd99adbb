"""Standard output and the keyboard, as far as systems differ in them."""

from __future__ import annotations

import select


def reader_has_gone(descriptor: int) -> bool:
    """Whether whoever read what is written there has closed it."""
    waiting = select.poll()
    waiting.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
