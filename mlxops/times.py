"""Times: as the registry stores them, and as a person types them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from mlxops.errors import BadRequest


def now() -> datetime:
    """The time against which ages are counted."""
    return datetime.now(UTC)


_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_AGE = re.compile(r"(\d+(?:\.\d+)?[wdhms]\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])", re.IGNORECASE)


def moment(text: str, now: datetime, flag: str) -> tuple[datetime, datetime]:
    """From when to when a text means: a date its whole day, a time its minute or second, an age that instant.

    A date or time without a zone is that of this machine; a time without a date is today's.
    """
    text = typed = text.strip()
    if _AGE.fullmatch(text):
        ages = {_UNITS[unit.lower()]: 0.0 for _, unit in _PART.findall(text)}
        for amount, unit in _PART.findall(text):
            ages[_UNITS[unit.lower()]] += float(amount)
        try:
            return (now - timedelta(**ages),) * 2
        except OverflowError:
            raise BadRequest(f"{flag} {text!r} is longer ago than the calendar goes") from None
    try:
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text):
            day = date.fromisoformat(text)
            return _local(day), _local(day + timedelta(days=1))
        if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text):
            text = f"{now.astimezone().date()} {text.zfill(len(text) + (text.index(':') == 1))}"
        begin = datetime.fromisoformat(text).astimezone(UTC)
        return begin, begin + timedelta(seconds=60 if re.search(r"[T ]\d\d:?\d\d(Z|[+-]\d\d:?\d\d)?$", text) else 1)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{flag} takes a date, a time or an age, not {typed!r}",
            hint=f"{flag} 2026-11-22, {flag} '2026-11-22 14:30', {flag} 14:30, or {flag} 3d for three days ago",
        ) from None


def _local(day: date) -> datetime:
    return datetime.combine(day, time()).astimezone(UTC)


def stored(at: datetime) -> str:
    """A time as the registry writes it, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stored_at(seconds: float | None) -> str | None:
    """A moment in seconds since 1970 as the registry writes it; None stays None."""
    return None if seconds is None else stored(datetime.fromtimestamp(seconds, UTC))


def time_of(text: str) -> datetime:
    """The moment that a time of the registry names."""
    return datetime.fromisoformat(text)
