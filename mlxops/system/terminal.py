"""Standard output and the keyboard, as far as systems differ in them."""

from __future__ import annotations

import select


def reader_has_gone(descriptor: int) -> bool:
    """Whether whoever read what is written there has closed it.

    An empty mask would do on Linux, where what has closed is always told; XNU then watches nothing.
    """
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
