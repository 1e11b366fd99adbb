"""Values as words: numbers, durations, sizes and ages as a person reads them. All of it is pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mlxops.times import time_of

NOTHING = "-"
"""What stands where there is no value."""


def count(value: float | None) -> str:
    """A whole number with its thousands apart.

    >>> count(118204)
    '118,204'
    """
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else "not finite"
    return f"{value:,.0f}"


def plural(amount: int, unit: str) -> str:
    """A count with its noun, which agrees with it.

    >>> plural(1, "checkpoint"), plural(1200, "checkpoint"), plural(2, "batch")
    ('1 checkpoint', '1,200 checkpoints', '2 batches')
    """
    ending = "" if amount == 1 else "es" if unit.endswith("ch") else "s"
    return f"{amount:,} {unit}{ending}"


def listed(things: Sequence[object], shown: int) -> str:
    """The first of several things, and how many there are besides.

    >>> listed(["a", "b", "c", "d"], 2), listed(["a", "b"], 2)
    ('a, b and 2 more', 'a, b')
    """
    first, left = ", ".join(map(str, things[:shown])), len(things) - shown
    return f"{first} and {left:,} more" if left > 0 else first


def progress(iteration: int, target: int | None, between: str = "/") -> str:
    """How far a run is, and how far it is to go where that is known.

    >>> progress(20, 1000), progress(20, None)
    ('20/1,000', '20')
    """
    return count(iteration) if target is None else f"{count(iteration)}{between}{count(target)}"


def number(value: float | None) -> str:
    """A loss or another number of everyday size, to three decimals.

    >>> number(2.34567), number(1e-5), number(None)
    ('2.346', '1e-05', '-')
    """
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else "not finite"
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1e6 else f"{value:.3g}"


def short(value: float | None) -> str:
    """A number of any size to three digits that count, as a learning rate is written.

    >>> short(0.00001), short(0.5)
    ('1e-05', '0.5')
    """
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else "not finite"
    return f"{value:.3g}"


def percent(fraction: float | None) -> str:
    """A fraction of one, rounded down so that 100 % means all of it.

    >>> percent(0.9999)
    '99 %'
    """
    return NOTHING if fraction is None or not math.isfinite(fraction) else f"{math.floor(fraction * 100 + 1e-9)} %"


def share(fraction: float | None) -> str:
    """A fraction of one that may be small, as a percentage to three digits that count.

    >>> share(0.01234), share(0.0), share(None)
    ('1.23 %', '0 %', '-')
    """
    return NOTHING if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.3g} %"


def size(number_of_bytes: float | None) -> str:
    """Bytes in the largest unit that fits, in powers of 1000.

    >>> size(3_200_000_000)
    '3.2 GB'
    """
    from rich.filesize import decimal

    return NOTHING if number_of_bytes is None else decimal(int(number_of_bytes))


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units.

    >>> duration(3_860), duration(61), duration(2.5)
    ('1 h 04 m', '1 m 01 s', '2.5 s')
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def age(text: str | None, now: datetime) -> str:
    """How long ago a time of the registry was; `now` knows its time zone.

    >>> age("2026-11-22T10:00:00.000Z", time_of("2026-11-22T10:02:10Z"))
    '2 minutes ago'
    """
    if text is None:
        return NOTHING
    seconds = int((now - time_of(text)).total_seconds())
    if seconds < 1:
        return "just now"
    for unit, length, up_to in (("second", 1, 60), ("minute", 60, 3600), ("hour", 3600, 86_400)):
        if seconds < up_to:
            return plural(seconds // length, unit) + " ago"
    return plural(seconds // 86_400, "day") + " ago"


def visible(value: Any) -> str:
    """Any value on one line, control characters shown and not obeyed.

    >>> visible("two\\nlines"), visible(None), visible(b"\\x00\\x01")
    ('two\\\\nlines', 'NULL', '2 bytes')
    """
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return plural(len(value), "byte")
    text = str(value)
    return text if text.isprintable() else "".join(map(_show_character, text))


def setting(name: str, value: Any) -> str:
    """A value of settings or facts for a person: yes and no, lists as typed, bytes of memory in their unit.

    >>> setting("mask_prompt", True), setting("lora_keys", ["a", "b"]), setting("memory", 25_276_510_208)
    ('yes', 'a,b', '25.3 GB')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.rpartition("_")[2] in ("memory", "bytes"):
        return size(value)
    if isinstance(value, (list, tuple)):
        return visible(",".join(map(str, value))) or NOTHING
    return visible(value)


def metric(name: str, value: float | None) -> str:
    """A metric of the registry in its unit."""
    return _METRICS.get(name, number)(value)


def _show_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _whole_percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} %"


_METRICS: Mapping[str, Callable[[float | None], str]] = {
    "learning_rate": short,
    "gradient_norm": short,
    "tokens_per_second": count,
    "iterations_per_second": short,
    "trained_tokens": count,
    "padding_share": percent,
    "peak_memory": size,
    "active_memory": size,
    "system_memory_percent": _whole_percent,
    "cpu_percent": _whole_percent,
    "prefix_hits": percent,
    "prefix_bytes": size,
    "prefix_seconds_saved": duration,
}
