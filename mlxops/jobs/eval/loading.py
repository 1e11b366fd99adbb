"""The model and the adapter that a command names, loaded: for chat, query and whatever else makes text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Protocol

from mlxops import layout
from mlxops.adapters import adapter_config, loadable
from mlxops.adapters.loadable import LoadableAdapter
from mlxops.errors import BadRequest, NotFound, Refused
from mlxops.models.folders import check_model, find_model
from mlxops.models.identity import model_identity
from mlxops.projects import blas, machine
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry.database import open_read_only
from mlxops.registry.places import FoundPlace, find_place, run_and_place

if TYPE_CHECKING:
    from mlxops.models.adapter_slot import AdapterSpec
    from mlxops.models.generation import LoadedModel


@dataclass(frozen=True, kw_only=True)
class ChosenAdapter:
    """An adapter, and the run of the registry that it is of, where it was named by its run.

    `template_config` is what the chat template was told in its training, `dtype` the type it was trained in, where it
    was another than the model's own.
    """

    adapter: LoadableAdapter
    run_id: int | None = None
    iteration: int | None = None
    template_config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None

    @property
    def label(self) -> str:
        """How a person names it: RUN:ITERATION, else the path."""
        run, iteration = self.adapter.run, self.iteration or self.adapter.iteration
        return f"{run}{'' if iteration is None else f':{iteration}'}" if run else str(self.adapter.file)


@dataclass(frozen=True, kw_only=True)
class ChosenModel:
    """A model's folder and the adapter to put into it; `dtype` is what the run was trained in, where it is known."""

    folder: Path
    layers: int
    adapter: ChosenAdapter | None = None
    dtype: Any = None
    trust_remote_code: bool = False


class ModelOptions(Protocol):
    """The options that name a model and an adapter."""

    @property
    def model(self) -> str | None: ...
    @property
    def adapter_path(self) -> str | None: ...
    @property
    def run(self) -> str | None: ...
    @property
    def trust_remote_code(self) -> bool: ...


def choose(
    invocation: Invocation,
    *,
    model: str | None,
    adapter_path: str | None = None,
    run: str | None = None,
    trust_remote_code: bool = False,
) -> ChosenModel:
    """The model and the adapter that a command names; a run and an adapter's folder know their model.

    Raises `BadRequest` and `NotFound` for what is not there or does not fit, `Refused` for a damaged checkpoint. Loads
    nothing.
    """
    project = invocation.project
    if adapter_path is not None and run is not None:
        raise BadRequest("--run and --adapter-path say the same thing: give one of them")
    place = None if run is None else _place(invocation, run)
    path = None
    if place is not None:
        path = project.from_root(place.run["adapter_path"])
        model = model or _model_of_run(project, place)
    elif adapter_path is not None:
        path = project.resolve(adapter_path)
        model = model or loadable.model_of(path)
    folder = _find(project, model)
    layers = check_model(folder, trust_remote_code=trust_remote_code).layers
    return ChosenModel(
        folder=folder,
        layers=layers,
        adapter=None if path is None else _read(path, place, layers),
        dtype=None if place is None else _dtype_of_run(place),
        trust_remote_code=trust_remote_code,
    )


def choose_as(invocation: Invocation, options: ModelOptions) -> ChosenModel:
    """The model and the adapter that the options of a command name. Raises as `choose` does."""
    return choose(
        invocation,
        model=options.model or None,
        adapter_path=options.adapter_path,
        run=options.run,
        trust_remote_code=options.trust_remote_code,
    )


def choose_adapter(invocation: Invocation, text: str, layers: int) -> ChosenAdapter:
    """The adapter that a person names for a model that is loaded: RUN, RUN:ITERATION, or a path."""
    path = invocation.project.resolve(text)
    if path.exists() and (path.is_file() or loadable.model_of(path) is not None):
        return _read(path, None, layers)
    return adapter_of_run(invocation, text, layers)


def adapter_of_run(invocation: Invocation, text: str, layers: int) -> ChosenAdapter:
    """The adapter of a run for a model that is loaded: RUN, RUN:ITERATION, RUN:best or RUN:last, and never a path."""
    place = _place(invocation, text)
    return _read(invocation.project.from_root(place.run["adapter_path"]), place, layers)


def is_run(invocation: Invocation, name: str) -> bool:
    """Whether a text names a run, which goes before a model of that name; a path is a model."""
    path = invocation.project.registry_path
    if not path.exists() or (invocation.project.resolve(name) / "config.json").is_file():
        return False
    with open_read_only(path) as db:
        try:
            run_and_place(db, name)
        except (NotFound, BadRequest):
            return False
    return True


def dtype_of(chosen: ChosenModel) -> Any:
    """The type that a model is loaded in, None for its own."""
    # MLX's own loops for half precision are many times slower on a CPU than the BLAS is in float32
    return chosen.dtype or ("float32" if machine.device()["kind"] == "cpu" else None)


def load(invocation: Invocation, chosen: ChosenModel, *, draft_model: str | None = None) -> LoadedModel:
    """Load a model with its adapter, ready to make text, with the fast BLAS and in the type that is fastest here."""
    cache = invocation.cache or machine.user_cache()
    blas.load(threads=None, core_type=None, cache=cache, setting=invocation.blas)
    from mlxops.models.loading import load_for_generation

    project = invocation.project
    loaded = load_for_generation(
        chosen.folder,
        dtype=dtype_of(chosen),
        identify=identify(project, chosen.folder),
        draft=None if draft_model is None else _find(project, draft_model),
        trust_remote_code=chosen.trust_remote_code,
    )
    if chosen.adapter is not None:
        loaded.slot.put_in(spec_of(chosen.adapter.adapter))
    return loaded


def spec_of(adapter: LoadableAdapter) -> AdapterSpec:
    """The adapter as a model's slot takes it."""
    from mlxops.models.adapter_slot import AdapterSpec

    return AdapterSpec(
        name=adapter.name,
        identity=f"{adapter.sha256} x {adapter.scale:g}",  # the tensors say the rest
        weights=adapter.file,
        fine_tune_type=adapter.fine_tune_type,
        num_layers=adapter.num_layers,
        rank=adapter.rank,
        scale=adapter.scale,
        keys=adapter.keys,
        model=adapter.model,
        model_identity=adapter.model_identity,
    )


def _place(invocation: Invocation, text: str) -> FoundPlace:
    with open_read_only(invocation.project.registry_path) as db:
        return find_place(db, text)


def _find(project: Project, model: str | None) -> Path:
    return find_model(model, resolve=project.resolve, models_folder=project.models_folder)


def _model_of_run(project: Project, place: FoundPlace) -> str:
    """The model of a run as a text that finds it, from wherever the command was typed."""
    stored = str(place.run["model"])
    folder = project.from_root(stored)
    return str(folder) if folder.exists() else stored


def _read(path: Path, place: FoundPlace | None, layers: int) -> ChosenAdapter:
    iteration = None if place is None else place.iteration
    try:
        adapter = loadable.read(path, layers=layers, iteration=iteration)
    except NotFound as error:
        if place is None:
            raise
        hint = f"`inv checkpoints --run {place.run['name']}` shows what is on disk"
        raise NotFound(f"run {place.run['name']!r}: {error.message}", hint=hint) from error
    if place is not None and not (adapter.file.parent / layout.SETTINGS).is_file():
        adapter = _as_recorded(adapter, place)
    if place is not None and not _is_as_written(adapter, place):
        raise Refused(
            f"run {place.run['name']!r}: {adapter.file.name} is not what was written (SHA-256)",
            hint=f"`inv checkpoints --verify --run {quote(place.run['name'])}` tells which are whole",
        )
    run_id = None if place is None else int(place.run["id"])
    described = place.run if place else adapter_config.describes_itself(path if path.is_dir() else path.parent)
    template_config = (described["config"] if described else {}).get("chat_template_config") or {}
    return ChosenAdapter(
        adapter=adapter,
        run_id=run_id,
        iteration=adapter.iteration,
        template_config=template_config,
        dtype=None if place is None else _dtype_of_run(place),
    )


def _as_recorded(adapter: LoadableAdapter, place: FoundPlace) -> LoadableAdapter:
    """What the tensors do not say, by the run's row; with another scale they are another model."""
    run = place.run
    scale = run["config"].get("lora_scale")
    return replace(
        adapter,
        scale=adapter.scale if scale is None else float(scale),
        model=run["model"],
        model_identity=run["model_identity"],
        run=run["name"],
    )


def _dtype_of_run(place: FoundPlace) -> str | None:
    found = (place.run["config"].get("automatic") or {}).get("dtype")
    return None if found is None else str(found)


def _is_as_written(adapter: LoadableAdapter, place: FoundPlace) -> bool:
    """Whether the file is the checkpoint that was written, byte for byte; what is offered is any of the run's.

    While the run is at work, or where it was killed, its newest file is there before its row. A run from elsewhere has
    no rows.
    """
    if place.checkpoint is not None:
        return place.checkpoint["adapter_sha256"] == adapter.sha256
    return place.run["status"] in ("running", "lost") or not place.written or adapter.sha256 in place.written


def identify(project: Project, folder: Path) -> Callable[[], str]:
    """What tells the identity of a model; the hashes of its files are kept in the project."""
    return lambda: model_identity(folder, project.root / ".mlxops" / "model_hashes.json")
