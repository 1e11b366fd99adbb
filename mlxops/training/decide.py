"""What a command to train does: a pure function of what was asked for and what there is.

Nothing here reads or writes a file; the job gathers the facts and acts on the answer.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlxops.training.fingerprint import value_of
from mlxops.training.origin import Origin

NO_SUCH_RUN = "no run with these settings exists"

Kind = Literal["new", "resume", "extend", "finished", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where rows are from: the path, what the records there say, and the rules that made tokens and spans of them.

    `content` is None for a run from before it was recorded; such a run was made by the first rules.
    """

    data: str
    content: str | None = None
    masking_rules: int = 1


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A run that is there. `iteration` is that of its newest whole checkpoint, 0 without one.

    `closed` tells that a target was reached and closed at that iteration; `stalled` counts the validations without a
    real improvement of a run that has ended; `has_folder` is False where the row is all that is left.
    """

    name: str
    folder: str
    fingerprint: str
    settings: Mapping[str, Any]
    iteration: int
    target: int
    closed: bool
    stalled: int = 0
    has_folder: bool = True
    rows: Rows | None = None

    @property
    def is_finished(self) -> bool:
        """Whether its target is reached."""
        return self.closed and self.iteration >= self.target


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    `own_folder` is the one a new run would have; `occupied` says what stands in it, where that is no run of ours.
    `origin` is where a new run begins, None for fresh weights. `early_stopping` is how many validations without a real
    improvement end a run, None for any number.
    """

    fingerprint: str
    settings: Mapping[str, Any]
    target: int
    name: str | None = None
    folder: str | None = None
    own_folder: str | None = None
    new: bool = False
    early_stopping: int | None = None
    occupied: str | None = None
    origin: Origin | None = None
    rows: Rows | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What will be done, with which run, from which iteration, and why."""

    kind: Kind
    reason: str
    run: str | None = None
    iteration: int = 0
    differences: tuple[tuple[str, Any, Any], ...] = ()
    similar: str | None = None
    hint: str | None = None


def decide(request: Request, candidates: Sequence[Candidate]) -> Decision:
    """What to do for a request, `candidates` being the runs there are, newest first."""
    if request.name is not None or request.folder is not None:
        return _decide_named(request, candidates)
    if request.new:
        return _new(request, "a new run was asked for")
    same = [each for each in candidates if each.fingerprint == request.fingerprint and each.has_folder]
    chosen = next((each for each in same if not _is_over(each, request)), same[0] if same else None)
    if chosen is not None:
        return _go_on(request, chosen)
    gone = next((each for each in candidates if each.fingerprint == request.fingerprint), None)
    if gone is not None:
        return _new(request, f"the folder of {gone.name} ({gone.folder}) is gone")
    there = [each for each in candidates if each.has_folder]
    stretched = next((each for each in there if _is_stretched(each, request)), None)
    if stretched is not None:
        found = differences(stretched.settings, request.settings)
        return _refuse(
            f"the run {stretched.name!r} of {stretched.target:,} iterations cannot be extended to {request.target:,}",
            hint=f"{_why_not(found)}; `--new` starts one, and `inv train.resume {shlex.quote(stretched.name)}` trains "
            f"this one to {stretched.target:,}",
            differences=found,
        )
    # the newest tells: where a newer one has the rows of today, an older one has been left behind knowingly
    remade = next((each for each in there if _differ_in_rows_alone(each, request)), None)
    if remade is not None and (why := _why_other_rows(remade, request)):
        return _refuse_other_rows(remade, request, why)
    unfinished = [each for each in there if not each.is_finished]
    if request.origin is not None:
        return _new(request, request.origin.kind_in_words)
    if not unfinished:
        return Decision(kind="new", reason=NO_SUCH_RUN)
    similar = min(unfinished, key=lambda each: len(differences(each.settings, request.settings)))
    return Decision(
        kind="new",
        reason=NO_SUCH_RUN,
        similar=similar.name,
        differences=differences(similar.settings, request.settings),
    )


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    """Each setting in which two runs differ: (name, there, asked for)."""
    names = [*there, *(name for name in asked if name not in there)]
    values = ((name, value_of(there, name), value_of(asked, name)) for name in names)
    return tuple(each for each in values if each[1] != each[2])


def _is_stretched(there: Candidate, request: Request) -> bool:
    """Whether the request is this run made longer or shorter, under a learning rate that runs over the whole."""
    return [name for name, _, _ in differences(there.settings, request.settings)] == ["schedule_iterations"]


def _differ_in_rows_alone(there: Candidate, request: Request) -> bool:
    return [name for name, _, _ in differences(there.settings, request.settings)] == ["data_identity"]


def _why_other_rows(there: Candidate, request: Request) -> str | None:
    """Why the same data gives other rows than the run was trained on; None where other data does."""
    was, now = there.rows, request.rows
    if was is None or now is None:
        return None
    rules = f"this version makes other rows of its data (masking rules {now.masking_rules}, not {was.masking_rules})"
    if was.content is None:
        is_known = was.masking_rules != now.masking_rules and was.data == now.data
        return f"{rules}, or its data has changed since" if is_known else None
    if was.content != now.content:
        return None
    same_rules = "its data now becomes other tokens (another version of the tokenizer's library)"
    return rules if was.masking_rules != now.masking_rules else same_rules


def _refuse_other_rows(there: Candidate, request: Request, why: str) -> Decision:
    return _refuse(
        f"the run {there.name!r} cannot be resumed: {why}",
        hint=f"`--branch --from {shlex.quote(there.name)}` continues from its weights on the rows of today; "
        "`--new` starts a run from iteration 0",
        differences=differences(there.settings, request.settings),
    )


def _decide_named(request: Request, candidates: Sequence[Candidate]) -> Decision:
    by_name = next((each for each in candidates if each.name == request.name), None)
    by_folder = next((each for each in candidates if each.folder == request.folder), None)
    if by_name and request.folder is not None and by_name.folder != request.folder:
        return _refuse(
            f"the run {by_name.name!r} is in {by_name.folder!r}, not in {request.folder!r}",
            hint=f"{_resuming(by_name, request)}; another `--name` starts a new run",
        )
    if by_folder and request.name is not None and by_folder.name != request.name:
        return _refuse(
            f"{request.folder!r} is the folder of the run {by_folder.name!r}, not of {request.name!r}",
            hint=f"{_resuming(by_folder, request)}; another `--adapter-path` starts a new run",
        )
    there = by_name or by_folder
    if there is None:
        theirs = next((each for each in candidates if each.folder == request.own_folder), None)
        if theirs:
            return _refuse(
                f"{theirs.folder!r} is the folder of the run {theirs.name!r}", hint="choose another `--name`"
            )
        if request.occupied:
            return _refuse(f"{request.own_folder!r} {request.occupied}", hint=_way_out(request))
        return _new(request, request.origin.kind_in_words if request.origin else "nothing is there yet")
    if request.new:
        return _refuse(
            f"the run {there.name!r} is there already, in {there.folder!r}",
            hint=f"{_resuming(there, request)}; another `--name` or `--adapter-path` starts a new run",
        )
    if there.fingerprint != request.fingerprint:
        if _differ_in_rows_alone(there, request) and (why := _why_other_rows(there, request)):
            return _refuse_other_rows(there, request, why)
        found = differences(there.settings, request.settings)
        return _refuse(
            f"the run {there.name!r} in {there.folder!r} has other settings",
            hint=_why_not(found) or f"{_resuming(there, request)}; another `--name` starts a new run",
            differences=found,
        )
    if not there.has_folder:
        reason = f"its folder {there.folder!r} is gone: it starts from the beginning"
        return Decision(kind="resume", run=there.name, iteration=_beginning(request), reason=reason)
    return _go_on(request, there)


def _is_over(there: Candidate, request: Request) -> bool:
    """Whether a run has nothing left to train: its target is reached, or it has ended without improving any more."""
    return there.is_finished or _has_stalled(there, request)


def _has_stalled(there: Candidate, request: Request) -> bool:
    return request.early_stopping is not None and there.stalled >= request.early_stopping


def _go_on(request: Request, there: Candidate) -> Decision:
    if there.iteration > request.target or (there.iteration == request.target and there.closed):
        return Decision(
            kind="finished",
            run=there.name,
            iteration=there.iteration,
            reason=f"already at iteration {there.iteration:,} of {request.target:,}",
        )
    if _has_stalled(there, request):
        times = f"{there.stalled} validations" if there.stalled > 1 else "a validation"
        return Decision(
            kind="finished",
            run=there.name,
            iteration=there.iteration,
            reason=f"stopped early at iteration {there.iteration:,} of {request.target:,}: no improvement in {times}",
            hint="raise `--early-stopping`, or leave it out, to continue",
        )
    if there.is_finished:
        return Decision(
            kind="extend",
            run=there.name,
            iteration=there.iteration,
            reason=f"finished at {there.target:,}, extends to {request.target:,}",
        )
    where = f"from its checkpoint at iteration {there.iteration:,}" if there.iteration else "from the beginning"
    iteration = there.iteration or _beginning(request)
    return Decision(kind="resume", run=there.name, iteration=iteration, reason=f"resumes {where}")


def _new(request: Request, reason: str) -> Decision:
    return Decision(kind="new", iteration=_beginning(request), reason=reason)


def _beginning(request: Request) -> int:
    return request.origin.iteration if request.origin else 0


def _resuming(there: Candidate, request: Request) -> str:
    """The command that resumes a run with the settings that it has, as far as was asked for."""
    further = f" --iters {request.target}" if request.target > there.target else ""
    return f"`inv train.resume {shlex.quote(there.name)}{further}` resumes it with its own settings"


def _way_out(request: Request) -> str:
    """What to type where the folder of a new run holds something else."""
    others = "choose another `--name` or `--adapter-path`"
    if request.occupied and request.occupied.startswith("holds the run"):
        return f"`--adapter-path {shlex.quote(str(request.own_folder))}` resumes that run there; or {others}"
    if request.occupied and "adapter" in request.occupied:
        return f"`--adopt {shlex.quote(str(request.own_folder))}` continues it; or {others}"
    return others


def _refuse(reason: str, *, hint: str | None = None, differences: tuple[tuple[str, Any, Any], ...] = ()) -> Decision:
    return Decision(kind="refuse", reason=reason, hint=hint, differences=differences)


def _why_not(found: tuple[tuple[str, Any, Any], ...]) -> str | None:
    if [name for name, _, _ in found] == ["schedule_iterations"]:
        return (
            "its learning rate runs over the whole training, so another length is another run: "
            "give the schedule its own length in a recipe, or another `--name`"
        )
    return None
