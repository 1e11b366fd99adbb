"""The list of runs: which of them, in what order, and the times that a person types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from mlxops import registry
from mlxops.config import RunsConfig
from mlxops.errors import BadRequest
from mlxops.jobs.run.show import reading
from mlxops.settings import Settings

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_AGE = re.compile(r"(\d+(?:\.\d+)?[wdhms]\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Rows of `run_summary`; `cut` is the sentence to say where the limit left some out.

    `is_narrowed` says that not all runs were asked for.
    """

    rows: list[dict[str, Any]]
    cut: str | None = None
    is_narrowed: bool = False


def runs(settings: Settings, config: RunsConfig, now: datetime) -> Listing:
    """The runs asked for, in the order asked for; none without a registry.

    Raises `BadRequest` for a column that is none, with the nearest, and for a time that cannot be read.
    """
    since = None if config.since is None else _stored(moment(config.since, now, "--since")[0])
    until = None if config.until is None else _stored(moment(config.until, now, "--until")[1])
    asked = (config.status, config.model, config.tag, config.text, since, until)
    is_narrowed = any(each is not None for each in asked)
    if not settings.registry_path.exists():
        return Listing(rows=[], is_narrowed=is_narrowed)
    with reading(settings.registry_path) as db:
        for column in config.columns:
            registry.check_column(db, column)
        rows = registry.list_runs(
            db,
            status=config.status,
            model=config.model,
            tag=config.tag,
            text=config.text,
            since=since,
            until=until,
            order=config.sort,
            limit=config.limit + 1,
        )
    which = "newest" if config.sort == RunsConfig.sort else "first"
    cut = f"these are the {which} {config.limit}: --limit shows more" if len(rows) > config.limit else None
    return Listing(rows=rows[: config.limit], cut=cut, is_narrowed=is_narrowed)


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


def _stored(at: datetime) -> str:
    """A time as the registry writes it, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
