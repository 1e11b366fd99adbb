"""The list of runs: which of them, in what order, and the times that a person types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mlxops import registry
from mlxops.config import RunsConfig
from mlxops.projects.invocation import Invocation
from mlxops.registry import RunSummaryView
from mlxops.registry.opening import reading
from mlxops.times import moment, stored


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The runs asked for; `cut` is the sentence to say where the limit left some out.

    `is_narrowed` says that not all runs were asked for.
    """

    rows: list[RunSummaryView]
    cut: str | None = None
    is_narrowed: bool = False


def runs(invocation: Invocation, config: RunsConfig, now: datetime) -> Listing:
    """The runs asked for, in the order asked for; none without a registry.

    Raises `BadRequest` for a column that is none, with the nearest, and for a time that cannot be read.
    """
    since = None if config.since is None else stored(moment(config.since, now, "--since")[0])
    until = None if config.until is None else stored(moment(config.until, now, "--until")[1])
    asked = (config.status, config.model, config.tag, config.text, since, until)
    is_narrowed = any(each is not None for each in asked)
    if not invocation.project.registry_path.exists():
        return Listing(rows=[], is_narrowed=is_narrowed)
    with reading(invocation.project.registry_path) as db:
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
