"""Removing a model from models/: what uses it is said before, and what is freed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, registry, words
from mlxops.config import RemoveConfig
from mlxops.errors import Busy, NotFound, Refused
from mlxops.jobs.model.record import recorded
from mlxops.likeness import nearest
from mlxops.models import folders, provenance
from mlxops.models.provenance import ConvertedModel, FusedModel
from mlxops.models.weight_files import disk_errors
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class RemovalPlan:
    """A model to remove: its folder, or the link that stands there, what uses it, and the bytes that are freed."""

    invocation: Invocation
    folder: Path
    path: str
    is_link: bool
    frees: int
    runs: tuple[str, ...]
    made_of_it: tuple[str, ...]

    @property
    def question(self) -> str:
        """What to ask before it is removed."""
        uses = (
            [f"base of {words.plural(len(self.runs), 'run')}: {words.listed(self.runs, _SHOWN)}"] if self.runs else []
        )
        if self.made_of_it:
            uses.append(f"made of it: {words.listed(self.made_of_it, _SHOWN)}")
        what = "the link" if self.is_link else words.size(self.frees)
        return f"remove {self.path} ({'; '.join([what, *uses])})?"

    def to_json(self) -> registry.JsonObject:
        """What was removed, as values that JSON has."""
        return {
            "path": self.path,
            "is_link": self.is_link,
            "freed_bytes": self.frees,
            "runs": list(self.runs),
            "made_of_it": list(self.made_of_it),
        }


def plan(invocation: Invocation, config: RemoveConfig) -> RemovalPlan:
    """Find the model in models/ and what uses it.

    Raises `NotFound`, `Refused` for what lies elsewhere, and `Busy` where a run trains on it now.
    """
    project = invocation.project
    folder = _folder(project, config.model)
    path = folder.relative_to(project.root).as_posix() if folder.is_relative_to(project.root) else str(folder)
    runs = _runs(project, path)
    if at_work := [run["name"] for run in runs if run["status"] == "running"]:
        raise Busy(
            f"{words.listed(at_work, _SHOWN)} trains on {path!r} now",
            hint="`inv train.stop RUN` stops a run after saving",
        )
    return RemovalPlan(
        invocation=invocation,
        folder=folder,
        path=path,
        is_link=folder.is_symlink(),
        frees=0 if folder.is_symlink() else _bytes(folder),
        runs=tuple(run["name"] for run in runs),
        made_of_it=tuple(_made_of(project, path)),
    )


def remove(plan: RemovalPlan) -> None:
    """Remove it: the name is gone at once, then the files, then what is recorded of them."""
    with disk_errors():
        if plan.is_link:
            plan.folder.unlink()
        else:
            with files.scratch_folder(plan.folder.parent, f".{plan.folder.name}.") as aside:
                plan.folder.rename(aside / plan.folder.name)
    project = plan.invocation.project
    if plan.path in recorded(project):
        with registry.open_registry(project.registry_path) as db:
            registry.forget_model(db, plan.path)


def _folder(project: Project, text: str) -> Path:
    name = Path(os.path.normpath(project.cwd / files.expanded(text)))
    inside = project.models_folder / text
    candidates = [inside, name, Path(os.path.normpath(project.root / text))]
    found = next((each for each in candidates if os.path.lexists(each) and each.name not in ("", "..")), None)
    names = folders.list_models(project.models_folder)
    if found is None:
        near = nearest(text, names)
        hint = f"did you mean {near!r}?" if near else "`inv models` lists the models there are"
        raise NotFound(f"no model {text!r} in models/", hint=hint)
    found = Path(os.path.normpath(found))
    if not files.is_same(found.parent, project.models_folder) or found.name not in names:
        raise Refused(
            f"{text!r} is no model in models/, and nothing else is removed",
            hint="`inv models --filter downloaded` lists them; `hf cache rm` removes from the hub's cache",
        )
    return found


def _runs(project: Project, path: str) -> list[registry.ModelRun]:
    if not project.registry_path.is_file():
        return []
    with registry.open_read_only(project.registry_path) as db:
        return registry.runs_of_model(db, path)


def _made_of(project: Project, path: str) -> list[str]:
    """The models in models/ that were fused or converted from this one."""
    found = []
    for name in folders.list_models(project.models_folder):
        folder = project.models_folder / name
        fused, converted = provenance.read(folder, FusedModel), provenance.read(folder, ConvertedModel)
        if (fused and fused.base == path) or (converted and converted.source == path):
            found.append(name)
    return found


def _bytes(folder: Path) -> int:
    """What the files hold that no other name keeps; what links lead to stays."""
    stats = [path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return sum(each.st_size for each in stats if each.st_nlink == 1)
