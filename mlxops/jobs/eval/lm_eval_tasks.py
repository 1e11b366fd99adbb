"""Tasks of lm-eval on a loaded model: found and checked before it is loaded, then asked with or without its adapter."""

from __future__ import annotations

import difflib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import registry
from mlxops.chat.thoughts import ThoughtSplitter
from mlxops.config import MeasuringConfig
from mlxops.errors import BadRequest, Failed, NotFound
from mlxops.foreign import foreign_code, in_words
from mlxops.jobs.eval.results import MeasuredModel
from mlxops.options import given
from mlxops.projects.examination import hub_facts
from mlxops.projects.project import Project

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel

KIND = "tasks"
"""The kind of such an evaluation in the registry."""

_OF_ROWS = ("data", "metrics", "mask_prompt", "max_seq_length")
_OF_TASKS = ("include_path", "num_fewshot", "apply_chat_template")


@dataclass(frozen=True, kw_only=True)
class LoadedTasks:
    """Tasks that are there with their data; `found` is what lm-eval's task manager returns."""

    names: tuple[str, ...]
    found: Any
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class AskedTasks:
    """What a model scored in tasks, and the questions: how many, and what tells others from them."""

    measured: MeasuredModel
    rows: int
    data_sha256: str


def check_options(config: MeasuringConfig) -> None:
    """Raise `BadRequest` for options of tasks without tasks, and for options of rows with them."""
    typed = given(config)
    refused = [name for name in (_OF_ROWS if config.tasks else _OF_TASKS) if name in typed]
    if not refused:
        return
    flag = f"--{refused[0].replace('_', '-')}"
    if config.tasks:
        raise BadRequest(
            f"--tasks brings its own questions and scores, so {flag} has no meaning", hint=f"omit `{flag}`"
        )
    raise BadRequest(f"{flag} is about the tasks of lm-eval, and none is named", hint="`--tasks NAME` names one")


def load(project: Project, config: MeasuringConfig) -> LoadedTasks:
    """The tasks that are asked for, with their data, which the hub is asked for where it is not on this machine.

    Raises `BadRequest` where lm-eval is missing or a task is wrong, `NotFound` for a task, a folder or data that is
    not there.
    """
    folder = None if config.include_path is None else project.resolve(config.include_path)
    if folder is not None and not folder.is_dir():
        raise NotFound(f"{str(folder)!r} is no folder", hint="`--include-path` takes a folder of lm-eval's YAML files")
    try:
        import lm_eval
        from datasets import disable_progress_bars
    except ImportError as error:
        raise BadRequest(
            "--tasks needs the package lm-eval", hint="`pip install 'mlxops[tasks]'` brings it (0.6 GB)"
        ) from error
    logging.getLogger(lm_eval.__name__).setLevel(logging.ERROR)
    disable_progress_bars()
    names = list(dict.fromkeys(config.tasks))
    with foreign_code(lambda words, _: BadRequest(f"the tasks of lm-eval cannot be read: {words}")):
        manager = _manager(folder, has_own=folder is None)
        # reading its own fourteen thousand takes seconds
        if not set(names) <= set(manager.all_subtasks):
            manager = _manager(folder, has_own=True)
    for name in names:
        if not manager.match_tasks([name]):
            near = difflib.get_close_matches(name, manager.all_tasks, 3)
            hint = f"the nearest: {', '.join(near)}" if near else "`lm-eval ls tasks` lists them"
            raise NotFound(f"lm-eval has no task {name!r}", hint=hint)
    tasks: dict[str, Any] = {"tasks": {}, "groups": {}}
    for name in names:
        found = _with_data(manager, name)
        tasks["tasks"] |= found["tasks"]
        tasks["groups"] |= found.get("groups", {})
    if unsafe := [name for name, task in tasks["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]:
        raise BadRequest(
            f"the task {unsafe[0]!r} runs code that the model wrote, which can do all that you can", hint="leave it out"
        )
    versions = {name: str(task.VERSION) for name, task in sorted(tasks["tasks"].items())}
    versions["lm-eval"] = lm_eval.__version__
    return LoadedTasks(names=tuple(names), found=tasks, versions=versions)


def ask(
    loaded: LoadedModel,
    tasks: LoadedTasks,
    config: MeasuringConfig,
    *,
    adapter: str | None,
    template_config: Mapping[str, Any],
    progress: Callable[[int, int], None],
) -> AskedTasks:
    """Ask a model the questions of the tasks; the same ones, with the same examples, each time.

    `progress` is told the requests that are done, and all of their kind. Raises `Failed` where a task fails.
    """
    from lm_eval import evaluator

    from mlxops.evaluation import lm_eval_scores
    from mlxops.models.lm_eval_model import LoadedLM
    from mlxops.training.improvement import ratio

    start = time.perf_counter()
    model = LoadedLM(
        loaded,
        max_tokens=config.max_tokens if "max_tokens" in given(config) else None,
        batch_size=config.batch_size,
        seed=config.seed,
        is_chat=config.apply_chat_template,
        template_config=template_config,
        clean=_without_thoughts,
        progress=progress,
    )
    _set_up(tasks.found["tasks"].values(), config)
    with foreign_code(lambda words, _: Failed(f"the tasks {', '.join(tasks.names)} fail: {words}")):
        # its bootstrap starts processes; standard errors are ours
        found = evaluator.evaluate(
            model,
            tasks.found,
            limit=config.num_samples,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=model.is_chat,
            fewshot_as_multiturn=model.is_chat,
        )
        read = lm_eval_scores.read(found, ratio)
    measured = MeasuredModel(
        adapter=adapter,
        scores=read.scores,
        measures=read.measures,
        worst=(),
        answers=read.answers,
        seconds=time.perf_counter() - start,
    )
    return AskedTasks(measured=measured, rows=read.rows, data_sha256=read.data_sha256)


def settings(tasks: LoadedTasks, config: MeasuringConfig) -> registry.JsonObject:
    """All that decides the scores besides model and questions, as it is stored."""
    return {
        "tasks": list(tasks.names),
        "versions": dict(tasks.versions),
        "num_fewshot": config.num_fewshot,
        "apply_chat_template": config.apply_chat_template,
        "num_samples": config.num_samples,
        "max_tokens": config.max_tokens if "max_tokens" in given(config) else None,
        "seed": config.seed,
    }


def _set_up(tasks: Sequence[Any], config: MeasuringConfig) -> None:
    """What lm-eval's own command does to tasks before it asks them."""
    import numpy as np
    from lm_eval.api import task as module

    # its bar would stand between ours
    module.tqdm = lambda rows, **_: rows
    random.seed(config.seed)
    np.random.seed(config.seed)
    for task in tasks:
        own = task.get_config("num_fewshot")
        # a task that says 0 takes no examples
        if own is None or (own != 0 and config.num_fewshot is not None):
            task.set_config(key="num_fewshot", value=config.num_fewshot or 0)
        task.set_fewshot_seed(seed=config.seed)


@cache
def _manager(folder: Path | None, *, has_own: bool) -> Any:
    """The tasks of a folder, and with `has_own` those of lm-eval; read once for all models that are compared."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=has_own)


def _with_data(manager: Any, name: str) -> Any:
    """Tasks of a name with their data: those on this machine, else the hub's.

    Asked first, a hub that does not answer would be waited for again and again.
    """
    with foreign_code(_no_data(name)), _hub_unasked():
        try:
            return manager.load(manager.match_tasks([name]))
        except OSError as error:
            hub = hub_facts(os.environ)
            if hub.is_offline or hub.problem:
                why = "HF_HUB_OFFLINE is set" if hub.is_offline else f"the hub {hub.problem}"
                # of a file that a task names, the words say which
                words = "" if isinstance(error, ConnectionError) else f": {in_words(error)}"
                raise NotFound(
                    f"the data set of the task {name!r} is not on this machine{words}",
                    hint=f"{why}; with a network the same command fetches it, and it is kept",
                ) from error
    with foreign_code(_no_data(name)):
        return manager.load(manager.match_tasks([name]))


@contextmanager
def _hub_unasked() -> Iterator[None]:
    """What `HF_HUB_OFFLINE=1` does, which both packages read once and for all."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _no_data(task: str) -> Callable[[str, BaseException], Exception]:
    def error(words: str, raised: BaseException) -> Exception:
        if isinstance(raised, OSError):
            return NotFound(f"the data set of the task {task!r} cannot be had: {words}", hint="check its YAML file")
        return BadRequest(f"the task {task!r} cannot be loaded: {words}", hint="mend its YAML file, or leave it out")

    return error


def _without_thoughts(prompt: str, text: str) -> str:
    """An answer as it is, or without its thoughts where it has some."""
    splitter = ThoughtSplitter(prompt)
    parts = [*splitter.feed(text), *splitter.finish()]
    if not any(part.is_thought for part in parts):
        return text
    return "".join(part.text for part in parts if not part.is_thought).strip()
