"""The hub's list of models, kept in the user's cache with its age."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlxops import files, words
from mlxops.errors import MlxopsError
from mlxops.models import hub
from mlxops.models.hub import RemoteModel

_FRESH = 3600.0  # seconds
_MOST = 200
_USUAL = 20


@dataclass(frozen=True, kw_only=True)
class HubList:
    """Models on the hub, and what to know of the list."""

    entries: tuple[RemoteModel, ...]
    notes: tuple[str, ...]


def hub_list(text: str | None, sort: str, limit: int | None, cache: Path | None) -> HubList:
    """The hub's models whose names have this text, asked for again after an hour.

    Where the hub cannot be asked it is the list of the last time, whatever its age, and a note says so.
    """
    count = min(limit or _USUAL, _MOST)
    key = json.dumps([text, sort == "updated", count])
    file = None if cache is None else cache / "hub_models.json"
    known = _read(file)
    entry = known.get(key)
    if entry is not None and 0 <= time.time() - entry["at"] < _FRESH:
        return HubList(entries=_models(entry), notes=(_age(entry),))
    try:
        found = hub.search(text, by_time=sort == "updated", limit=count)
    except MlxopsError as error:
        if entry is None:
            return HubList(entries=(), notes=(f"only what is on this machine: {error.message}",))
        return HubList(entries=_models(entry), notes=(f"{error.message}; {_age(entry)}",))
    if file is not None:
        newest = sorted([*known.items()], key=lambda pair: pair[1]["at"])[-_USUAL:]
        content = {**dict(newest), key: {"at": time.time(), "models": [asdict(each) for each in found]}}
        _write(file, content)
    return HubList(entries=tuple(found), notes=())


def _age(entry: Mapping[str, Any]) -> str:
    return f"the hub's list is of {words.duration(time.time() - entry['at'])} ago"


def _models(entry: Mapping[str, Any]) -> tuple[RemoteModel, ...]:
    return tuple(RemoteModel(**each) for each in entry["models"])


def _read(file: Path | None) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        for each in known.values():
            _models(each)
            float(each["at"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return dict(known)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps(content))
    except OSError:  # it only saves a request
        return
