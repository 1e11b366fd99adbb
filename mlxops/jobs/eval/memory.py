"""The memory that a model takes to make text, beside the trainings at work, against what is free."""

from __future__ import annotations

from mlxops import registry, words
from mlxops.errors import NotFound
from mlxops.jobs.eval import loading
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.train import memory as training
from mlxops.models import memory
from mlxops.models.folders import check_model
from mlxops.projects import machine
from mlxops.projects.invocation import Invocation
from mlxops.registry.monitor import last_points

_TOKENS = 4096  # of the conversation that is reckoned with


def notes(invocation: Invocation, chosen: ChosenModel) -> tuple[str, ...]:
    """What a person should know before the model is loaded: that it may not fit, or that a training is at work."""
    info = check_model(chosen.folder, trust_remote_code=chosen.trust_remote_code)
    device = machine.device()
    dtype = loading.dtype_of(chosen) or info.dtype
    tokens = min(_TOKENS, info.context_length or _TOKENS)
    shape = memory.shape_of(chosen.folder)
    needed = memory.generating(shape, tokens=tokens, dtype=dtype, keeps_scores=device["kind"] == "cpu").peak
    free = training.room()
    runs, to_come = _trainings(invocation, device["kind"])
    beside = f" beside the training of {words.listed(runs, 3)}" if runs else ""
    more = f", which takes up to {words.size(to_come)} more" if to_come else ""
    takes = f"the model takes about {words.size(needed)} of memory for {tokens:,} tokens"
    there = f"{words.size(free)} are free{beside}{more}"
    if needed + to_come > free:
        return (f"{takes}, and {there}: a quantized model takes less",)
    return (f"{takes}; {there}",) if runs else ()


def _trainings(invocation: Invocation, device: str) -> tuple[list[str], int]:
    """The runs of this project that are being trained now, and the bytes that they took at most and have not now.

    On a GPU what they have now is no part of what the system says of a process, and may count as free.
    """
    try:
        db = registry.open_read_only(invocation.project.registry_path)
    except NotFound:
        return [], 0
    found, to_come = [], 0
    with db:
        names = {run["id"]: run["name"] for run in registry.candidate_runs(db)}
        for each in registry.attempts_at_work(db):
            if each["is_dead"] or not each["is_beating"] or not registry.is_this_machine(each["host"], each["boot_id"]):
                continue
            found.append(names[each["run_id"]])
            peak = last_points(db, each["run_id"], "peak_memory", 1)
            has_now = machine.process_memory(each["pid"]) if device == "cpu" else 0
            to_come += max(0, int(peak[0][1]) - has_now) if peak else 0
    return found, to_come
