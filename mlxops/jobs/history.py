"""What the registry tells: lists, one run in full, the monitor's state, answers to SQL. Reads; draws nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlxops import registry
from mlxops.config import LoraConfig, RunsConfig, SqlConfig
from mlxops.errors import BadRequest
from mlxops.options import nearest
from mlxops.registry import Registry, Table
from mlxops.settings import Settings

_POINTS = 400  # of a curve, more than a terminal has columns
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def now() -> datetime:
    """The time against which ages are counted."""
    return datetime.now(UTC)


def runs(settings: Settings, config: RunsConfig) -> tuple[list[dict[str, Any]], bool]:
    """Rows of `run_summary`, the newest first, and whether the limit left some out; none without a registry."""
    if not settings.registry_path.exists():
        return [], False
    with reading(settings.registry_path) as db:
        rows = registry.list_runs(
            db, status=config.status, model=config.model, tag=config.tag, text=config.text, limit=config.limit + 1
        )
    return rows[: config.limit], len(rows) > config.limit


def run(settings: Settings, name: str) -> dict[str, Any]:
    """One run in full, as `ui.show.run` takes it; `latest` is the newest."""
    with reading(settings.registry_path) as db:
        found = registry.find_run(db, name)
        return {
            "run": _summary(db, found),
            "config": found["config"],
            "defaults": asdict(LoraConfig()),
            "lineage": registry.family_of(db, found["id"]),
            **_details(db, found["id"], last_events=50),
        }


class Watch:
    """A run as the monitor sees it: the one named, else the one at work, else the newest; it can go on to others."""

    def __init__(self, settings: Settings, name: str | None) -> None:
        self.path = settings.registry_path
        self.name = name
        self._db: Registry | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._db:
            self._db.close()

    def state(self) -> dict[str, Any] | None:
        """What there is to show now, None while there is no run. Nothing stays open that holds back the log."""
        if not self.path.exists() and self.name is None:
            return None
        with reading(self.path) as db:
            rows = registry.list_runs(db)
            if not rows and self.name is None:
                return None
            index = self._index(db, rows)
            return {
                "run": rows[index],
                "runs": [row["name"] for row in rows],
                "index": index,
                "latest": registry.latest_metrics(db, rows[index]["id"]),
                **_details(db, rows[index]["id"], last_events=10),
            }

    def changed(self) -> int:
        """A number that is another one when somebody has written."""
        if self._db is None:
            if not self.path.exists():
                return -1
            self._db = registry.open_read_only(self.path)
        return registry.data_version(self._db)

    def switch(self, steps: int) -> None:
        """Go on by so many runs, round and round."""
        state = self.state()
        if state:
            names = state["runs"]
            self.name = names[(state["index"] + steps) % len(names)]

    def _index(self, db: Registry, rows: Sequence[Mapping[str, Any]]) -> int:
        if self.name is None:
            return next((index for index, row in enumerate(rows) if row["status"] == "running"), 0)
        found = registry.find_run(db, self.name)
        return next(index for index, row in enumerate(rows) if row["id"] == found["id"])


def ask(settings: Settings, config: SqlConfig) -> Table:
    """The answer to SQL, to a saved query (`@NAME`), to `.queries` or to `.schema`."""
    text = config.text.strip()
    if text == ".queries":
        queries = registry.saved_queries()
        return Table(
            ("name", "question", "parameters"),
            [(f"@{each.name}", each.question, ", ".join(each.parameters)) for each in queries],
        )
    if text == ".schema":
        entries = registry.schema(settings.registry_path)
        return Table(
            ("name", "kind", "columns"),
            [(each["name"], each["kind"], ", ".join(column["name"] for column in each["columns"])) for each in entries],
        )
    if text.startswith("."):
        raise BadRequest(f"{text!r} is not known", hint="inv sql .queries and inv sql .schema list what there is")
    parameters = _parameters(config.param)
    if text.startswith("@"):
        saved = registry.saved_query(text[1:])
        _check_parameters(parameters, saved.parameters, text)
        text = saved.sql
    return registry.query(settings.registry_path, text, parameters, timeout=config.timeout)


@contextmanager
def reading(path: Path) -> Iterator[Registry]:
    """The registry for reading, dead attempts closed before where this may be written."""
    if path.is_file() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        with registry.open_registry(path) as db:
            registry.close_dead_attempts(db)
    with registry.open_read_only(path) as db:
        yield db


def _summary(db: Registry, found: Mapping[str, Any]) -> dict[str, Any]:
    return next(row for row in registry.list_runs(db, text=found["name"]) if row["id"] == found["id"])


def _details(db: Registry, run_id: int, *, last_events: int) -> dict[str, Any]:
    return {
        "attempts": registry.attempts_of(db, run_id),
        "checkpoints": registry.checkpoints_of(db, run_id),
        "curve": registry.loss_curve(db, run_id, buckets=_POINTS),
        "events": registry.events_of(db, run_id, last=last_events),
    }


def _parameters(texts: Sequence[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadRequest(f"--param takes name=value, not {text!r}")
        is_number = _NUMBER.fullmatch(value)
        parameters[name] = (int(value) if re.fullmatch(r"[-+]?\d+", value) else float(value)) if is_number else value
    return parameters


def _check_parameters(given: Mapping[str, Any], known: Sequence[str], query: str) -> None:
    for name in given:
        if name not in known:
            near = nearest(name, known)
            takes = f"{query} takes {', '.join(known)}" if known else f"{query} takes none"
            raise BadRequest(f"{query} has no parameter {name!r}", hint=f"did you mean {near!r}?" if near else takes)
    missing = [name for name in known if name not in given]
    if missing:
        hint = " ".join(f"--param {name}=VALUE" for name in missing)
        raise BadRequest(f"{query} needs a value for {', '.join(missing)}", hint=hint)
