"""What a training says before it begins, where it only should, and when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mlxops.ui.terminal import tables
from mlxops.words import duration, number, plural, setting, share, size, visible

if TYPE_CHECKING:
    from mlxops.jobs.project.quickstart import TrialResult
    from mlxops.jobs.train.detach import DetachedTraining
    from mlxops.jobs.train.outcome import TrainingOutcome
    from mlxops.jobs.train.session import Preview
    from mlxops.jobs.train.stop import StoppedRun
    from mlxops.jobs.train.verify_resume import ComparedArrays, ComparedValues, Verdict
    from mlxops.registry import AnswerView, LossPoint

_LONGEST = 600  # characters shown of a prompt or an answer; the registry has all of it
_KINDS = {
    "new": "starts a new run",
    "resume": "resumes {run} from iteration {iteration:,}",
    "extend": "extends {run} from iteration {iteration:,}",
    "finished": "does nothing: {run} is {reason}",
    "refuse": "would be refused: {reason}",
}


def preview(facts: Preview, console: Console, *, as_json: bool) -> None:
    """What the command would do."""
    if as_json:
        tables.json_out(facts, console)
        return
    pairs = [
        ("target", f"iteration {facts.target:,}"),
        ("an epoch", f"{plural(facts.batches_an_epoch, 'batch')}, {facts.tokens_an_epoch:,} trained tokens"),
        ("rows", f"{facts.rows:,} to train, {facts.validation_rows:,} to validate"),
        ("trained", f"{facts.trainable_parameters:,} parameters"),
        (
            "checkpoints",
            f"{facts.checkpoints_to_come:,} of about {size(facts.checkpoint_bytes)}, "
            f"{size(facts.disk_bytes)} in all; {size(facts.disk_free_bytes)} are free",
        ),
        (
            "memory",
            f"about {size(facts.memory_bytes)} at the largest batch; {size(facts.memory_free_bytes)} are free",
        ),
    ]
    pairs += [
        ("trained words", f"{example.origin}: {', '.join(map(_quoted, example.trained))}")
        for example in facts.examples[:1]
    ]
    if facts.similar:
        pairs.append(("most similar", facts.similar))
    pairs += [
        (f"  {each.setting}", " → ".join(_setting(each.setting, value) for value in (each.there, each.asked_for)))
        for each in facts.differences
    ]
    notes = [note for note in (*facts.notes, facts.hint) if note]
    tables.facts(f"This command {_KINDS[facts.decision].format(**vars(facts))}", pairs, notes, console)


def _setting(name: str, value: Any) -> str:
    """A setting's value; of a hash the beginning.

    >>> _setting("start_adapter_sha256", "b628a7963e48" + 52 * "0"), _setting("start_iteration", None)
    ('b628a7963e48', '-')
    """
    is_hash = value is not None and name.endswith(("_sha256", "_identity"))
    return str(value)[:12] if is_hash else visible(setting(name, value))


def _quoted(text: str) -> str:
    """A text in quotes, a long one with its beginning and its end.

    >>> _quoted("First.\\n"), len(_quoted("a" * 1000))
    ("'First.\\\\n'", 163)
    """
    return repr(text if len(text) <= 160 else f"{text[:120]}…{text[-40:]}")


def trained(outcome: TrainingOutcome, console: Console, *, as_json: bool) -> None:
    """How a run ended, what it changed, where its adapter is, and what to type next."""
    run = outcome.run
    if as_json:
        tables.json_out(outcome.to_json(), console)
        return
    is_early = run["status"] == "completed" and run["iteration"] < run["target_iterations"]
    ended = "stopped early" if is_early else "finished"
    state = f"already {ended}" if outcome.was_finished and is_early else "already" if outcome.was_finished else ended
    pairs = []
    if outcome.after is not None:
        pairs.append(("validation loss", _change(outcome.before, outcome.after)))
    if outcome.after is not None and run["best_iteration"] not in (None, outcome.after["iteration"]):
        pairs.append(("lowest", f"{number(run['best_validation_loss'])} at iteration {run['best_iteration']:,}"))
    if run["train_loss"] is not None:
        pairs.append(("training loss", number(run["train_loss"])))
    pairs.append(("adapter", run["adapter_path"]))
    early = ["the same command with a larger `--early-stopping`, or without it, continues"] if is_early else []
    title = f"{run['name']}: {state} at iteration {run['iteration']:,} of {run['target_iterations']:,}"
    tables.facts(title, pairs, early, console)
    _answers(outcome.answers, console)
    for note in outcome.notes:
        console.print(note, soft_wrap=True)
    if outcome.notes:
        console.print()
    _next(outcome.commands, console)


def translated(notes: Sequence[str], console: Console) -> None:
    """What options became, one line each."""
    for note in notes:
        console.print(note, soft_wrap=True)


def started(training: DetachedTraining, console: Console, *, as_json: bool) -> None:
    """A training that continues in the background, and how to watch and to stop it."""
    if as_json:
        tables.json_out(training, console)
        return
    pairs = [("process", str(training.pid)), ("log", training.log)]
    watch, stop = training.commands
    title = f"{training.run}: training in the background"
    tables.facts(title, pairs, [f"{watch} shows it", f"{stop} has it save and stop"], console)


def verified(verdict: Verdict, console: Console, *, as_json: bool) -> None:
    """Whether a training that was killed and resumed is one without a stop, part by part."""
    if as_json:
        tables.json_out(verdict, console)
        return
    pairs = [(part.part, _part(part)) for part in verdict.parts]
    where = f"is in the history of {verdict.run}" if verdict.run else "waits for the first run of these settings"
    notes = [f"{duration(verdict.seconds)} on the {verdict.device}; the verdict {where}"]
    how = "ends as one without a stop, bit for bit" if verdict.equal else "differs from one without a stop"
    steps, after = verdict.iterations, verdict.interrupted_after
    tables.facts(
        f"A training of {steps:,} iterations, killed after {after:,} and resumed, {how}", pairs, notes, console
    )


def _part(part: ComparedArrays | ComparedValues) -> str:
    """What was found of one part."""
    if part.equal:
        return f"equal ({part.compared:,} compared)" if part.compared else "equal (there are none)"
    names = ", ".join(part.differing[:3]) + (" …" if len(part.differing) > 3 else "")
    if part.largest_absolute_difference is None:
        return f"differs: {names}"
    absolute, relative = part.largest_absolute_difference, part.largest_relative_difference
    return f"differs by up to {number(absolute)}, relative {number(relative)}: {names}"


_ENDS = {
    "stopped": "{run}: stopped at iteration {iteration:,} of {target_iterations:,}",
    "killed": "{run}: killed; the last it told was iteration {iteration:,} of {target_iterations:,}",
    "finished": "{run}: finished at iteration {iteration:,} of {target_iterations:,}",
    "ended": "{run}: ended with an error at iteration {iteration:,} of {target_iterations:,}",
    "lost": "{run}: its process was lost at iteration {iteration:,} of {target_iterations:,}",
    "idle": "{run}: not at work ({status} at iteration {iteration:,} of {target_iterations:,})",
}


def stopped(ended: StoppedRun, console: Console, *, as_json: bool) -> None:
    """How a training ended that was to be stopped, and where the same command resumes."""
    if as_json:
        tables.json_out(ended, console)
        return
    pairs = []
    if ended.state == "ended":
        pairs.append(("error", ended.error or ended.status))
    if ended.state == "lost":
        pairs.append(("last seen", f"{ended.last_seen} on {ended.host}"))
    if ended.goes_on_from is not None:
        pairs.append(("resumes from", f"iteration {ended.goes_on_from:,}"))
        pairs += [("with", ended.command)] if ended.command else []
    tables.facts(_ENDS[ended.state].format(**vars(ended)), pairs, [], console)


def tried(changed: TrialResult, commands: Sequence[str], console: Console, *, as_json: bool) -> None:
    """What a first training changed: the loss, the answers to prompts it never saw, and how to continue."""
    if as_json:
        tables.json_out({**vars(changed), "commands": list(commands)}, console)
        return
    run, before, after = changed.run, changed.before, changed.after
    pairs = []
    if after:
        pairs.append(("validation loss", _change(before, after)))
    pairs.append(("trained", f"{run['trained_tokens']:,} tokens in {duration(run['seconds'])}"))
    pairs.append(("run", f"{run['name']}{', finished already' if changed.was_finished else ''}"))
    if changed.fused:
        lost = share(changed.fused["parity"]["changed_tokens"])
        pairs.append(("one model of it", f"{changed.fused['path']} ({lost} of the most likely tokens differ)"))
    title = f"What {run['iteration']:,} iterations on {changed.rows:,} rows changed"
    tables.facts(title, pairs, [], console)
    _answers(changed.answers, console)
    if run["model"] == "models/tiny":
        console.print("A tiny random model cannot say anything; its loss is real.", soft_wrap=True)
    if changed.answers:
        console.print("The prompts are those of data/test.jsonl, which is never trained on.", soft_wrap=True)
    for note in changed.notes:
        console.print(note, soft_wrap=True)
    _next(commands, console)


def _answers(answers: Sequence[AnswerView], console: Console) -> None:
    """Each prompt with what the base model and the tuned model answered; a blank line ends each."""
    console.print()
    for answer in answers:
        parts = [("base model", answer["base_answer"] or ""), ("tuned model", answer["answer"])]
        if answer["expected"]:
            parts.append(("expected", answer["expected"]))
        tables.facts(_text(answer["prompt"]), [(label, _text(text) or "(empty)") for label, text in parts], [], console)
        console.print()


def _next(commands: Sequence[str], console: Console) -> None:
    console.print("Next", soft_wrap=True)
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)


def _text(text: str) -> str:
    """What was asked or said, with its lines, the beginning of a long one, and nothing that a terminal would obey."""
    shown = text.strip()
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST].rstrip()} …"
    return "\n".join(visible(line) for line in shown.splitlines())


def _change(before: LossPoint | None, after: LossPoint) -> str:
    return f"{_loss(before)} → {_loss(after)}" if before and before != after else _loss(after)


def _loss(row: LossPoint) -> str:
    error = row["validation_standard_error"]
    return number(row["validation_loss"]) + (f" ± {number(error)}" if error is not None else "")
