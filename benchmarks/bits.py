"""Trains many small settings in this tree and in another commit's, and compares what comes out bit for bit.

    python benchmarks/bits.py COMMIT [--only PART] [--list] [--keep FOLDER]

Every setting is trained through the command line: each optimizer, dropout, accumulation, gradient checkpointing,
clipping, schedules, DoRA, full and quantized fine-tuning, the types of numbers, with and without validation, an
interruption and its resume, an extension. Settings named "across" are interrupted in the other tree and resumed in this
one, as after an upgrade. The bytes of every array of every adapter file, all metrics that are no wall-clock figures and
the losses of every checkpoint have to be equal; ends with 1 where they are not. Arrays of the state files, and the
adapter files' order and metadata, are compared too; differences there are only named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WALL_CLOCK = (
    "tokens_per_second", "iterations_per_second", "peak_memory", "active_memory", "system_memory_percent",
    "cpu_percent", "prefix_hits", "prefix_bytes", "prefix_seconds_saved",
)  # fmt: skip

# The target is off every grid: the report's, the validation's, the checkpoints' and that of the accumulation.
COMMON = {
    "--data": "data", "--name": "run", "--iters": "11", "--num-layers": "2", "--batch-size": "2",
    "--save-every": "4", "--steps-per-report": "3", "--steps-per-eval": "5", "--val-batches": "2",
    "--learning-rate": "0.003",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A `lora` command; with `stop_at` it gets SIGTERM at that step."""

    options: dict[str, str | None]
    stop_at: int | None = None


@dataclass(frozen=True)
class Setting:
    """Commands one after the other in one project."""

    name: str
    commands: tuple[Command, ...]
    model: str = "tiny"

    @property
    def is_across(self) -> bool:
        """Whether the first command belongs to the other tree."""
        return "across" in self.name


def settings() -> list[Setting]:
    """All that is compared."""
    dropout, accumulation = {"--lora-dropout": "0.1"}, {"--grad-accumulation-steps": "3"}
    checkpointing, clipping = {"--grad-checkpoint": None}, {"--max-grad-norm": "0.05"}
    everything = dropout | accumulation | checkpointing | clipping
    bfloat16 = {"--dtype": "bfloat16"}
    one: dict[str, dict[str, str | None]] = {
        "adam": {},
        "adamw": {"--optimizer": "adamw"},
        "muon": {"--optimizer": "muon"},
        "sgd": {"--optimizer": "sgd"},
        "adafactor": {"--optimizer": "adafactor"},
        "dropout": dropout,
        "accumulation": accumulation,
        "gradient checkpointing": checkpointing,
        "clipping": clipping,
        "warm-up and schedule": {"--warmup": "3", "--lr-schedule": "cosine_decay"},
        "whole rows": {"--no-mask-prompt": None},
        "cut rows": {"--max-seq-length": "100"},
        "keep-last": {"--keep-last": "1"},
        "early stopping": {"--early-stopping": "1", "--steps-per-eval": "1", "--learning-rate": "1"},
        "no validation": {"--val-batches": "0"},
        "all validation batches": {"--val-batches": "-1"},
        "epochs": {"--epochs": "2", "--iters": ""},
        "dora": {"--fine-tune-type": "dora"},
        "full": {"--fine-tune-type": "full"},
        "bfloat16": bfloat16,
        "bfloat16, full": bfloat16 | {"--fine-tune-type": "full"},
        "bfloat16, everything": bfloat16 | everything,
        "float16": {"--dtype": "float16"},
        "everything": everything | {"--optimizer": "adamw"},
        "everything, dora": everything | {"--fine-tune-type": "dora"},
    }
    made = [Setting(name, (Command(options),)) for name, options in one.items()]
    made.append(Setting("quantized", (Command({}),), model="tiny-4bit"))
    for name, options in (("adam", {}), ("everything", everything), ("bfloat16, everything", bfloat16 | everything)):
        resumed = (Command(options, stop_at=7), Command(options))
        made += [
            Setting(f"interrupted: {name}", resumed),
            Setting(f"across: {name}", resumed),
            Setting(f"extended: {name}", (Command(options | {"--iters": "7"}), Command(options))),
            Setting(f"extended across: {name}", (Command(options | {"--iters": "7"}), Command(options))),
        ]
    return made


def main() -> None:
    """Compare and say so."""
    parser = argparse.ArgumentParser(description="bits of this tree against another commit's")
    parser.add_argument("commit", nargs="?", help="what to compare with")
    parser.add_argument("--only", default="", help="only the settings whose name has this in it")
    parser.add_argument("--list", action="store_true", help="name the settings and train nothing")
    parser.add_argument("--keep", type=Path, help="where the projects are kept")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(json.loads(options.work.read_text(encoding="utf-8")))
        return
    chosen = [each for each in settings() if options.only in each.name]
    if options.list or not options.commit:
        print("\n".join(each.name for each in chosen))
        return
    folder = options.keep or Path(tempfile.mkdtemp(prefix="bits-"))
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with worktree(options.commit, folder / "tree") as other:
        failed = compare(chosen, other, folder)
    print(f"{len(chosen) - failed} of {len(chosen)} settings equal, {time.perf_counter() - started:.0f} s")
    if not options.keep:
        shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


@contextmanager
def worktree(commit: str, place: Path) -> Iterator[Path]:
    """The files of a commit, beside this tree."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


def compare(chosen: Sequence[Setting], other: Path, folder: Path) -> int:
    """Train all in both trees; returns how many settings came out differently."""
    make_projects(chosen, folder)
    first = [each for each in chosen if each.is_across]
    run(other, [(folder / "here" / each.name, each, 0, 1) for each in first], folder)
    both = [
        (ROOT, "here", [(each, int(each.is_across)) for each in chosen]),
        (other, "there", [(each, 0) for each in chosen]),
    ]
    workers = [
        start(tree, [(folder / side / each.name, each, begin, None) for each, begin in todo], folder / f"{side}.json")
        for tree, side, todo in both
    ]
    for each in workers:
        finish(each)
    failed = 0
    width = max(len(each.name) for each in chosen)
    for each in chosen:
        unfinished = [side for side in ("here", "there") if failure(folder / side / each.name).exists()]
        if unfinished:
            said = failure(folder / unfinished[0] / each.name).read_text(encoding="utf-8")
            print(f"{each.name:{width}}  FAILED {' and '.join(unfinished)}: {said}", flush=True)
            failed += 1
            continue
        here, there = (result(folder / side / each.name) for side in ("here", "there"))
        different = [name for name in ("run", "adapters", "metrics", "checkpoints") if here[name] != there[name]]
        named = {"states": "arrays of the state files", "files": "order or metadata of the adapter files"}
        others = [words for name, words in named.items() if here[name] != there[name]]
        note = f"  (also different: {', '.join(others)})" if others else ""
        said = f"DIFFERENT: {', '.join(different)}" if different else "equal"
        counts = f"{len(here['adapters']):3} adapter files, {len(here['metrics']):4} points"
        print(f"{each.name:{width}}  {counts}  {said}{note}", flush=True)
        failed += bool(different)
    return failed


def make_projects(chosen: Sequence[Setting], folder: Path) -> None:
    """A project for each setting and side, with the same model and data."""
    sys.path.insert(0, str(ROOT))
    from mlxops.models.tiny import make_tiny

    models = {"tiny": make_tiny(folder / "tiny"), "tiny-4bit": make_tiny(folder / "tiny-4bit", quantized=True)}
    for side in ("here", "there"):
        for each in chosen:
            project = folder / side / each.name
            shutil.copytree(models[each.model], project / "models" / each.model)
            (project / "data").mkdir()
            (project / "runs.db").touch()
            for name, numbers in (("train", range(13)), ("valid", range(50, 57))):
                lines = [json.dumps({"messages": conversation(number)}) + "\n" for number in numbers]
                (project / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def conversation(number: int) -> list[dict[str, str]]:
    """Questions and answers of unlike length."""
    question = f"What is {number} times {number + 7}? " + "Think about it. " * (number % 5)
    answer = f"It is {number * (number + 7)}. " + "The sum is the other thing. " * (number * 5 % 7)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


Job = tuple[Path, Setting, int, int | None]
"""A project, its setting, and which of the commands."""


def run(tree: Path, jobs: Sequence[Job], folder: Path) -> None:
    """Have the code of a tree do these jobs."""
    finish(start(tree, jobs, folder / "first.json"))


def start(tree: Path, jobs: Sequence[Job], plan: Path) -> subprocess.Popen[bytes]:
    """Begin the jobs in a process that imports from a tree."""
    todo = [
        {"project": str(project), "model": setting.model, **asdict(command)}
        for project, setting, begin, end in jobs
        for command in setting.commands[begin:end]
    ]
    plan.write_text(json.dumps(todo), encoding="utf-8")
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, str(Path(__file__).resolve()), "--work", str(plan)]
    return subprocess.Popen(command, env=environment, cwd=tree)


def finish(worker: subprocess.Popen[bytes]) -> None:
    """Wait for the jobs of a worker."""
    if worker.wait():
        sys.exit(f"a worker ended with {worker.returncode}")


def failure(project: Path) -> Path:
    """The file that tells how a project's command ended, where it did not end as it should."""
    return project.with_name(f"{project.name}.failed")


def result(project: Path) -> dict[str, Any]:
    """What a run left, without what a clock or the allocator says."""
    db = sqlite3.connect(project / "runs.db")
    marks = ", ".join("?" for _ in WALL_CLOCK)
    metrics = db.execute(
        f"""
        SELECT metric_names.name, iteration, printf('%!.17g', value) FROM metrics
        JOIN metric_names ON metric_names.id = name_id
        WHERE metric_names.name NOT IN ({marks}) ORDER BY 1, 2
        """,
        WALL_CLOCK,
    ).fetchall()
    checkpoints = db.execute(
        "SELECT iteration, train_loss, validation_loss, status FROM checkpoints ORDER BY iteration"
    ).fetchall()
    run = db.execute("SELECT status, iteration, trained_tokens, best_iteration, best_validation_loss FROM runs")
    folder = project / "adapters" / "run"
    adapters = sorted(folder.glob("*adapters.safetensors"))
    return {
        "run": run.fetchall(),
        "metrics": metrics,
        "checkpoints": checkpoints,
        "adapters": {path.name: arrays(path) for path in adapters},
        "files": {path.name: path.read_bytes() for path in adapters},
        "states": {path.name: arrays(path) for path in folder.glob("*_state.safetensors")},
    }


def arrays(path: Path) -> list[tuple[str, str, list[int], bytes]]:
    """The arrays of a file by name, without its metadata and the array that seals a file with its hash."""
    import safetensors

    found = safetensors.deserialize(path.read_bytes())
    return sorted((name, each["dtype"], each["shape"], bytes(each["data"])) for name, each in found if name != "sha256")


# the worker: its process imports from the tree that is measured ------------------------------------------------------


def work(todo: Sequence[dict[str, Any]]) -> None:
    """Run commands one after the other, each in a fork of a process that has loaded MLX and computed nothing."""
    from mlxops.projects import blas, machine

    # before MLX is imported, or it computes without
    blas.load(threads=None, core_type=None, cache=machine.user_cache(), setting=None)
    import mlx_lm.tuner.utils
    import mlx_lm.utils  # noqa: F401

    for each in todo:
        child = os.fork()
        if child == 0:
            train(each)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        wanted = 143 if each["stop_at"] else 0
        if code != wanted:
            said = Path(f"{each['project']}.said").read_text(encoding="utf-8")
            failure(Path(each["project"])).write_text(f"exit code {code}\n{said}", encoding="utf-8")


def train(job: dict[str, Any]) -> None:
    """Run one command in this process, and end with it."""
    os.chdir(job["project"])
    said = os.open(f"{job['project']}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if job["stop_at"]:
        stop_at(job["stop_at"])
    words: list[str] = ["--model", job["model"]]
    for name, value in {**COMMON, **job["options"]}.items():
        words += [] if value == "" else [name] if value is None else [name, value]
    from mlxops.__main__ import program

    sys.argv = ["mlx-toolkit", "lora", *words]
    program.run()
    os._exit(0)


def stop_at(step: int) -> None:
    """Have this process get SIGTERM at its nth step."""
    from mlxops.training.step import Trainer

    accumulate, steps = Trainer.accumulate, iter(range(1, 1_000_000))

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return accumulate(*args, **kwargs)

    Trainer.accumulate = stopping  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
