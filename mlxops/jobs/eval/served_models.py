"""The models that a server answers for: the base model, and the runs of this project on it with their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlxops import files, layout, registry
from mlxops.errors import BadRequest, MlxopsError, NotFound
from mlxops.jobs.eval import loading
from mlxops.jobs.eval.loading import ChosenAdapter, ChosenModel
from mlxops.projects.invocation import Invocation
from mlxops.registry.places import FoundPlace, find_place
from mlxops.serving.shapes import ApiError, ServedModel
from mlxops.times import time_of

_LONGEST = 300  # characters of a name that is looked up: similar names are searched for one that is not there


class ServedModels:
    """The names that a request may give, read from the registry each time: a run that is trained meanwhile is there.

    `default` is the name that counts where a request gives none. A name is looked up and never a path: one that names
    no run of this project names nothing.
    """

    def __init__(self, invocation: Invocation, chosen: ChosenModel, *, default: str | None = None) -> None:
        self.base = chosen.folder.name
        self._created = int((chosen.folder / "config.json").stat().st_mtime)  # the folder may go: the model is loaded
        self._invocation = invocation
        self._chosen = chosen
        self._dtype = loading.dtype_of(chosen)
        self._default = default
        self._identity: str | None = None
        self._read: dict[tuple[object, ...], ChosenAdapter] = {}

    def entries(self) -> Sequence[ServedModel]:
        """Every name there is now: the base model, then the runs, the newest first, each with its checkpoints."""
        found = [ServedModel(id=self.base, created=self._created)]
        project = self._invocation.project
        try:
            db = registry.open_read_only(project.registry_path)
        except NotFound:
            return found
        with db:
            runs, checkpoints = registry.candidate_runs(db), registry.all_checkpoints(db)
        for run in runs:
            folder = project.from_root(run["adapter_path"])
            if not self._is_on_base(run["model"], run["model_identity"]):
                continue
            if (folder / layout.OFFERED).is_file() and run["name"] != self.base:
                found.append(ServedModel(id=run["name"], created=_seconds(run["created_at"])))
            for row in checkpoints.get(run["id"], []):
                if row["status"] == "whole" and (folder / row["adapter_file"]).is_file():
                    name = f"{run['name']}:{row['iteration']}"
                    found.append(ServedModel(id=name, created=_seconds(row["created_at"])))
        return found

    def find(self, name: str | None) -> tuple[str, ChosenAdapter | None]:
        """The whole name of a model and its adapter, None for the base model. Raises `ApiError` for what is not there.

        A run that was trained on another model, or in another type than the one loaded, is not there either.
        """
        name = name or self._default or self.base
        if name == self.base:
            return self.base, None
        if len(name) > _LONGEST:
            raise _not_found("there is no model of so long a name")
        try:
            with registry.open_read_only(self._invocation.project.registry_path) as db:
                place = find_place(db, name)
        except NotFound as error:
            raise _not_there(name) from error
        except BadRequest as error:
            raise _not_found(error.message) from error
        except MlxopsError as error:
            raise ApiError(503, error.message, code="unavailable") from error
        whole = str(place.run["name"]) if place.iteration is None else f"{place.run['name']}:{place.iteration}"
        try:
            adapter = self._adapter(place, whole)
        except NotFound as error:
            raise _not_there(name) from error
        except MlxopsError as error:
            raise ApiError(409, error.message, code="model_unavailable", param="model") from error
        if adapter.dtype is not None and adapter.dtype != self._dtype:
            loaded = self._dtype or "the model's own type"
            raise _not_found(f"{name!r} was trained in {adapter.dtype}, and the model is loaded in {loaded}")
        return whole, adapter

    def _adapter(self, place: FoundPlace, whole: str) -> ChosenAdapter:
        """The adapter of a run. Its file is read and hashed only where it is another than before."""
        run = place.run
        if not self._is_on_base(run["model"], run["model_identity"]):
            raise NotFound(f"the run {run['name']!r} is of another model")
        folder = self._invocation.project.from_root(run["adapter_path"])
        name = layout.OFFERED if place.iteration is None else layout.adapter_name(place.iteration)
        key = (run["id"], place.iteration, *_stamp(folder / name), *_stamp(folder / layout.SETTINGS))
        if key not in self._read:
            if len(self._read) > 1000:
                self._read.clear()
            self._read[key] = loading.adapter_of_run(self._invocation, whole, self._chosen.layers)
        return self._read[key]

    def _is_on_base(self, model: str, identity: str) -> bool:
        """Whether a run's model, as the registry has it, is the one loaded, or has the same content elsewhere."""
        if files.is_same(self._invocation.project.from_root(model), self._chosen.folder):
            return True
        if self._identity is None:
            self._identity = loading.identify(self._invocation.project, self._chosen.folder)()
        return identity == self._identity


def _stamp(file: Path) -> tuple[object, ...]:
    try:
        found = file.stat()
    except OSError:
        return (None,)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _seconds(time: str) -> int:
    return int(time_of(time).timestamp())


def _not_there(name: str) -> ApiError:
    return _not_found(f"there is no model {name[:200]!r}: `/v1/models` lists those there are")


def _not_found(message: str) -> ApiError:
    return ApiError(404, message, code="model_not_found", param="model")
