"""The hub's list of models, kept in the user's cache with its age."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class _KeptList:
    """A list as it was at a time, in seconds since 1970."""

    at: float
    models: tuple[RemoteModel, ...]

    @property
    def age(self) -> str:
        """How old it is, as a sentence."""
        return f"the hub's list is {words.duration(time.time() - self.at)} old"


def hub_list(text: str | None, sort: str, limit: int | None, cache: Path | None) -> HubList:
    """The hub's models whose names have this text, asked for again after an hour; of a low limit some more.

    Some of them may be on this machine, too, and are left out of what is shown.
    Where the hub cannot be asked it is the list of the last time, whatever its age, and a note says so.
    """
    count = min(max(limit or 0, _USUAL), _MOST)
    key = json.dumps([text, sort == "updated", count])
    file = None if cache is None else cache / "hub_models.json"
    known = _read(file)
    kept = known.get(key)
    if kept is not None and 0 <= time.time() - kept.at < _FRESH:
        return HubList(entries=kept.models, notes=(kept.age,))
    try:
        found = hub.search(text, by_time=sort == "updated", limit=count)
    except MlxopsError as error:
        if kept is None:
            return HubList(entries=(), notes=(f"only what is on this machine: {error.message}",))
        return HubList(entries=kept.models, notes=(f"{error.message}; {kept.age}",))
    if file is not None:
        newest = sorted(known.items(), key=lambda pair: pair[1].at)[-_USUAL:]
        _write(file, {**dict(newest), key: _KeptList(at=time.time(), models=tuple(found))})
    return HubList(entries=tuple(found), notes=())


def _read(file: Path | None) -> dict[str, _KeptList]:
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        return {
            key: _KeptList(at=float(each["at"]), models=tuple(RemoteModel(**model) for model in each["models"]))
            for key, each in known.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(file: Path, lists: dict[str, _KeptList]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, json.dumps({key: asdict(each) for key, each in lists.items()}))
    except OSError:  # it only saves a request
        return
