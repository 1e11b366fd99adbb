"""Standard output and the keyboard, as far as systems differ in them."""

from __future__ import annotations

import os
import select
import termios
from typing import Any

from mlxops import system

_DELAYED_SUSPEND = 11
"""Ctrl-Y among the control characters of macOS (VDSUSP in its sys/termios.h), which stops whoever reads next."""


def reader_has_gone(descriptor: int) -> bool:
    """Whether whoever read what is written there has closed it.

    An empty mask would do on Linux, where what has closed is always told; XNU then watches nothing.
    """
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))


def without_suspending(settings: list[Any], descriptor: int) -> list[Any]:
    """The settings of a terminal in which no key suspends.

    The character that stands for none differs: on Linux it is NUL, which on macOS would be Ctrl-Space.
    """
    none = bytes([os.fpathconf(descriptor, "PC_VDISABLE") & 0xFF])
    characters = list(settings[6])
    characters[termios.VSUSP] = none
    if system.ON_MACOS:
        characters[_DELAYED_SUSPEND] = none
    return [*settings[:6], characters]
