"""Proving, on a person's own model and data, that a training that is killed and resumed ends as one that is not.

Each training is a process of its own (this module as a program) in a temporary project with a registry of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import registry
from mlxops.config import LoraConfig
from mlxops.errors import BadRequest, Failed, MlxopsError
from mlxops.events import OF_THE_CLOCK, Event, Started, Step
from mlxops.jobs import commands
from mlxops.jobs.ending import ending_by_exceptions
from mlxops.jobs.train import session, verdicts
from mlxops.jobs.train.prepare import Progress
from mlxops.jobs.train.session import Training
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project
from mlxops.registry import AttemptRow, JsonObject
from mlxops.training import checkpoints
from mlxops.training.checkpoints import Checkpoint

if TYPE_CHECKING:
    import mlx.core as mx

_NAME = "trial"
_VALIDATED = 2
"""Validation batches of a trial: they cost time, and the weights do not depend on them."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a trial came to, in parts that are compared: arrays by name, or values by name."""

    arrays: Mapping[str, Mapping[str, mx.array]]
    values: Mapping[str, Mapping[str, Any]]
    attempts: Sequence[AttemptRow]


@dataclass(frozen=True, kw_only=True)
class ComparedValues:
    """A part of two trainings: whether its values are equal, how many there are, and the names of those that differ."""

    part: str
    equal: bool
    compared: int
    differing: Sequence[str]

    @property
    def largest_absolute_difference(self) -> None:
        """Values have none."""

    @property
    def largest_relative_difference(self) -> None:
        """Values have none."""


@dataclass(frozen=True, kw_only=True)
class ComparedArrays:
    """The same of arrays, and how far their numbers are apart; None where all are equal."""

    part: str
    equal: bool
    compared: int
    differing: Sequence[str]
    largest_absolute_difference: float | None
    largest_relative_difference: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a training that was killed and resumed ends as one without a stop, part by part.

    `run` is the run in whose history it stands, None while there is none; `repeats_without_a_stop` is None where they
    are equal.
    """

    run: str | None = None
    equal: bool
    iterations: int
    interrupted_after: int
    device: str
    repeats_without_a_stop: bool | None
    parts: Sequence[ComparedArrays | ComparedValues]
    seconds: float

    def to_json(self) -> JsonObject:
        """What stands in the history of the run."""
        return {name: value for name, value in asdict(self).items() if name != "run"}


def verify(training: Training, progress: Progress) -> Verdict:
    """Train so many iterations without a stop, and again with a SIGKILL in the middle, and compare bit for bit.

    Nothing of the project is touched but the history of the run with these settings, which gets the verdict (`run`,
    None before there is one). The temporary folder is removed, also after an error or a signal.
    """
    if training.prepared.config.detach:
        raise BadRequest("--verify-resume shows what it finds, and --detach leaves nobody to see it")
    steps = training.prepared.config.verify_resume or 2
    after, begun = steps // 2, time.perf_counter()
    with (
        ending_by_exceptions("stopped; nothing was found out and nothing is left"),
        tempfile.TemporaryDirectory(prefix="mlxops-verify-") as made,
    ):
        whole, cut, control = (_trial(training, Path(made) / name) for name in ("whole", "cut", "control"))
        _run(whole, "without a stop", progress)
        _run(cut, f"killed after {after}", progress, kill_after=after)
        _run(cut, "resuming", progress)
        expected, got = _result(whole, steps), _result(cut, steps)
        parts = [_continuity(got, after), *compare(expected, got)]
        is_equal = all(part.equal for part in parts)
        repeats = None
        if not is_equal:
            # a device that never repeats itself is another finding than a training that resumes wrongly
            _run(control, "without a stop, again", progress)
            repeats = all(part.equal for part in compare(expected, _result(control, steps)))
    verdict = Verdict(
        equal=is_equal,
        iterations=steps,
        interrupted_after=after,
        device=got.attempts[-1]["device"],
        repeats_without_a_stop=repeats,
        parts=parts,
        seconds=round(time.perf_counter() - begun, 1),
    )
    run = verdicts.record(training.project, training.prepared.fingerprint, verdict.to_json())
    return replace(verdict, run=run)


def check(verdict: Verdict) -> None:
    """Raise `Failed` where a verdict is that they differ."""
    if verdict.equal:
        return
    parts = ", ".join(part.part for part in verdict.parts if not part.equal)
    if verdict.repeats_without_a_stop:
        hint = "this is a bug in mlxops, or in what it stands on: please report it with the settings"
    else:
        hint = "without a stop it differs from itself, too: what it computes on is not deterministic"
    raise Failed(f"a training that is killed and resumed differs from one without a stop in: {parts}", hint=hint)


def compare(expected: Result, got: Result) -> list[ComparedArrays | ComparedValues]:
    """For each part whether it is the same bit for bit, what in it is not, and how far numbers are apart."""
    arrays = [_compare_arrays(name, expected.arrays[name], got.arrays[name]) for name in expected.arrays]
    return [*arrays, *(_compare_values(name, expected.values[name], got.values[name]) for name in expected.values)]


# the trials ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What the process of a trial is told."""

    root: str
    blas: str | None
    cache: str | None
    config: JsonObject


def _trial(training: Training, root: Path) -> _Trial:
    """What the process of a trial is told: a project of its own, and the settings that decide the weights."""
    prepared, invocation = training.prepared, training.invocation
    steps = prepared.config.verify_resume or 2
    defaults = LoraConfig()
    config = replace(
        prepared.config,
        model=str(prepared.model_folder),
        data=str(prepared.data_path),
        iters=steps,
        epochs=None,
        save_every=steps // 2,
        steps_per_report=1,
        steps_per_eval=steps,
        val_batches=_VALIDATED if prepared.config.val_batches < 0 else min(prepared.config.val_batches, _VALIDATED),
        name=_NAME,
        **{name: getattr(defaults, name) for name in _NOT_OF_A_TRIAL if name != "name"},
    )
    (root / ".mlxops").mkdir(parents=True)
    known = training.project.root / ".mlxops" / "model_hashes.json"
    if known.exists():
        shutil.copyfile(known, root / ".mlxops" / known.name)
    return _Trial(
        root=str(root),
        blas=invocation.blas,
        cache=str(invocation.cache) if invocation.cache else None,
        config=asdict(config),
    )


_NOT_OF_A_TRIAL = commands.NO_SETTINGS | {"keep_last", "early_stopping", "save_minutes"}


def _run(trial: _Trial, what: str, progress: Progress, *, kill_after: int | None = None) -> None:
    """Train a trial in a process of its own, to its end or to its kill. Raises `Failed` where it ends otherwise."""
    steps = trial.config["iters"]
    request = Path(trial.root) / "trial.json"
    request.write_text(json.dumps({**asdict(trial), "kill_after": kill_after}), encoding="utf-8")
    progress(what, 0, steps)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        ) as process,
    ):
        try:
            failed = None
            for line in process.stdout or ():
                said = json.loads(line)
                failed = said.get("error", failed)
                if "iteration" in said:
                    progress(what, said["iteration"], steps)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if code != (0 if kill_after is None else -signal.SIGKILL):
        words = failed or "".join(last) or f"exit code {code}"
        raise Failed(f"the training {what!r} ended before its time: {words}")


def _main() -> int:
    """Train one trial, as the file that is named says, and tell of each iteration on stdout."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what anything prints is no message
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    root, kill_after = Path(request["root"]), request["kill_after"]

    def tell(event: Event) -> None:
        if not isinstance(event, (Started, Step)):
            return
        print(json.dumps({"iteration": event.iteration}), file=told)
        if isinstance(event, Step) and kill_after is not None and event.iteration > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    invocation = Invocation(
        project=Project.at(root),
        blas=request["blas"],
        cache=Path(request["cache"]) if request["cache"] else None,
    )
    try:
        training = session.check(invocation, LoraConfig(**request["config"]), lambda what, done, total: None)
        with session.begin(training) as run:
            run.work(listeners=[tell])
    except MlxopsError as error:
        print(json.dumps({"error": error.message}), file=told)
        return error.exit_code
    return 0


# what they came to ---------------------------------------------------------------------------------------------------


def _result(trial: _Trial, steps: int) -> Result:
    import mlx.core as mx

    root = Path(trial.root)
    found = checkpoints.read(root / "adapters" / _NAME, steps)
    if not isinstance(found, Checkpoint):
        raise Failed(f"a trial left no whole checkpoint: {found.reason}")
    weights, optimizer, accumulated = checkpoints.load(found)
    adapter = mx.load(str(found.adapter_path))
    assert isinstance(adapter, dict)
    counters = asdict(found.counters)
    counters["closing"] = {name: value for name, value in counters["closing"].items() if name not in OF_THE_CLOCK}
    with registry.open_read_only(root / "runs.db") as db:
        run = registry.run_named(db, _NAME)
        names = [name for name in registry.latest_metrics(db, run["id"]) if name not in OF_THE_CLOCK]
        metrics = {
            f"{name} at {point['iteration']}": point["value"]
            for name in names
            for point in registry.metric_series(db, run["id"], name)
        }
        attempts = registry.attempts_of(db, run["id"])
    return Result(
        arrays={
            "adapter": adapter,
            "weights to resume from": weights,
            "optimizer state": optimizer,
            "accumulated gradients": accumulated,
        },
        values={"counters": counters, "metrics": metrics},
        attempts=attempts,
    )


def _continuity(got: Result, after: int) -> ComparedValues:
    """Whether the killed trial resumed from its checkpoint, exactly; a start from iteration 0 would prove nothing."""
    starts = [(attempt["start_kind"], attempt["from_iteration"]) for attempt in got.attempts]
    differing = [] if starts == [("fresh", 0), ("exact", after)] else [f"{kind} from {at}" for kind, at in starts]
    return ComparedValues(part=f"resumes from {after}", equal=not differing, compared=1, differing=differing)


def _compare_arrays(part: str, expected: Mapping[str, mx.array], got: Mapping[str, mx.array]) -> ComparedArrays:
    differing = sorted(name for name in expected.keys() | got.keys() if not _is_same(expected.get(name), got.get(name)))
    apart = [_apart(expected[name], got[name]) for name in differing if name in expected and name in got]
    return ComparedArrays(
        part=part,
        equal=not differing,
        compared=len(expected),
        differing=differing,
        largest_absolute_difference=max((absolute for absolute, _ in apart), default=None),
        largest_relative_difference=max((relative for _, relative in apart), default=None),
    )


def _is_same(one: mx.array | None, other: mx.array | None) -> bool:
    import mlx.core as mx

    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(mx.array_equal(one.reshape(-1).view(mx.uint8), other.reshape(-1).view(mx.uint8)).item())


def _apart(one: mx.array, other: mx.array) -> tuple[float, float]:
    """The largest difference of two arrays of one shape, absolute and relative to the larger of both."""
    import mlx.core as mx
    import numpy as np

    if one.shape != other.shape:
        return float("nan"), float("nan")
    first, second = (np.array(each.astype(mx.float32), dtype=np.float64) for each in (one, other))
    difference, size = np.abs(first - second), np.maximum(np.abs(first), np.abs(second))
    return float(difference.max()), float(np.divide(difference, size, out=np.zeros_like(size), where=size > 0).max())


def _compare_values(part: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> ComparedValues:
    differing = sorted(name for name in expected.keys() | got.keys() if expected.get(name, ...) != got.get(name, ...))
    return ComparedValues(part=part, equal=not differing, compared=len(expected), differing=differing)


if __name__ == "__main__":
    sys.exit(_main())
