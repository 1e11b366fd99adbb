"""Where the time of a run went: the table `profiles`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from mlxops.registry.database import Registry


class PartOfTime(TypedDict):
    """A part of the work, over the attempts that measured it; `share` is that of all measured seconds."""

    part: str
    seconds: float
    share: float
    times: int


def record_profile(db: Registry, run_id: int, attempt_id: int, parts: Mapping[str, Sequence[float]]) -> None:
    """Write what an attempt measured so far: seconds, and how many times, by part. It replaces what it wrote before."""
    with db.transaction() as connection:
        connection.executemany(
            """
            INSERT INTO profiles (run_id, attempt_id, part, seconds, count) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (attempt_id, part) DO UPDATE SET seconds = excluded.seconds, count = excluded.count
            """,
            [(run_id, attempt_id, part, seconds, int(count)) for part, (seconds, count) in parts.items()],
        )


def profile_of(db: Registry, run_id: int) -> list[PartOfTime]:
    """Where the time of a run went, the largest part first; empty where nothing was measured."""
    return db.rows(
        """
        SELECT
            part,
            sum(seconds) AS seconds,
            sum(seconds) / sum(sum(seconds)) OVER () AS share,
            sum(count) AS times
        FROM profiles
        WHERE run_id = ?
        GROUP BY part
        ORDER BY sum(seconds) DESC, part
        """,
        (run_id,),
        of=PartOfTime,
    )
