"""Ten checks that a machine does what mlxops needs of it, with real trainings in a temporary project: a minute.

The first thing to run on a Mac, and what a bug report should have. Each check is a function from what is tried out to
a finding; the verdicts on what is measured are pure functions.
"""

from __future__ import annotations

import math
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mlxops import files, words
from mlxops.errors import BadRequest, Failed
from mlxops.jobs.project.laboratory import CommandResult, Laboratory, Unexpected, laboratory
from mlxops.projects import diagnosis, environment, examination, file_system, machine, packages
from mlxops.projects.diagnosis import Finding
from mlxops.projects.facts import ComputeFacts, EnvironmentFacts
from mlxops.projects.invocation import Invocation
from mlxops.registry import JsonObject
from mlxops.system import host

Heard = Callable[[Finding], object]
Waiting = Callable[[str], AbstractContextManager[None]]

_STEPS = 4
_COMPARED = 8
_LONG = 100_000
_REPORT = "please report it, with what `inv doctor --self-test --json` prints"
_NAMES = ("Métro", unicodedata.normalize("NFD", "métro"))
_UNREAD = (("--list",), ("runs", "--help"), ("runs", "--json"), ("sql", "select * from run_summary"))
_BARE = "/usr/bin:/bin"  # the PATH of cron

_BOOT = """
import json, os
from mlxops.registry import processes as p
print(json.dumps({"boot": p.boot_id(), "process": p.process_start(os.getpid()), "host": p.this_host()}))
"""
_NETWORK = """
import json, os
from mlxops.registry import processes as p
pid = os.getpid()
start, boot = p.process_start(pid), p.boot_id()
names = [p.this_host(), *(["a-name-of-another-network.local"] if p.system.ON_MACOS else [])]
print(json.dumps({"names": names, "alive": [p.is_proven_alive(name, boot, pid, start) for name in names]}))
"""


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What a bug report needs: the versions and the machine, and the findings in their order."""

    about: Mapping[str, str | int | None]
    findings: tuple[Finding, ...]
    seconds: float


def self_test(invocation: Invocation, heard: Heard, waiting: Waiting) -> SelfTest:
    """Do all checks and tell of each as it is found; nothing is left behind. `waiting` says what is being tried.

    Raises `Failed` where there is no MLX to try, or no folder to try it in; `Interrupted` where it is stopped.
    """
    installed = packages.installed(invocation.project.root, invocation.blas)
    if "mlx" not in installed.versions:
        raise Failed(
            "the self-test trains, and this installation does without MLX",
            hint="`inv install-deps` in a project makes an environment that has it; then the same command there",
        )
    python = environment.python_of(Path(installed.folder)) if installed.is_own else Path(sys.executable)
    begun, findings = time.monotonic(), list[Finding]()
    with laboratory(invocation, python) as lab:
        for number, (name, check) in enumerate(_CHECKS.items(), start=1):
            with waiting(f"{name} ({number} of {len(_CHECKS)})"):
                findings.append(_tried(name, check, invocation, lab))
            heard(findings[-1])
    return SelfTest(
        about=_about(installed.versions), findings=tuple(findings), seconds=round(time.monotonic() - begun, 1)
    )


def check(found: SelfTest) -> None:
    """Raise `Failed` where something does not work; warnings are none of that."""
    broken = [each.check for each in found.findings if each.level == "broken"]
    if broken:
        raise Failed(
            f"{words.plural(len(broken), 'check')} of {len(found.findings)} failed: {', '.join(broken)}",
            hint="the lines above say what helps; a bug report should have them",
        )


def check_alone(*, fix: bool) -> None:
    """Raise `BadRequest` where cures are asked for, too."""
    if fix:
        raise BadRequest(
            "--self-test tries a temporary project out, and has nothing to fix", hint="leave one of both out"
        )


def _tried(
    name: str, check: Callable[[Invocation, Laboratory], Finding], invocation: Invocation, lab: Laboratory
) -> Finding:
    try:
        return check(invocation, lab)
    except Unexpected as error:
        return _finding(name, "broken", str(error), _CURES.get(name, _REPORT))
    except OSError as error:  # as where the disk is full
        return _finding(
            name, "broken", f"{error.filename or lab.folder}: {error.strerror}", "`inv doctor` may know why"
        )


def _finding(check: str, level: diagnosis.Level, said: str, cure: str | None = None) -> Finding:
    return Finding(check=check, level=level, said=said, cure=cure)


def _about(versions: Mapping[str, str]) -> dict[str, str | int | None]:
    facts = {"system": host.description(), "build": host.build(), **machine.facts()}
    names = ("system", "build", "machine", "cpu", "cores", "memory", "python")
    return {name: facts[name] for name in names if facts[name] is not None} | dict(versions)


# the device and the environment --------------------------------------------------------------------------------------


def _device(invocation: Invocation, lab: Laboratory) -> Finding:
    cache = invocation.cache or machine.user_cache()
    found = examination.compute_facts(lab.python, lab.folder, cache, invocation.blas, has_mlx=True)
    return judge_device(found, examination.installed_facts(_installed(invocation)), host.cpu_model())


def _installed(invocation: Invocation) -> packages.Installed:
    return packages.installed(invocation.project.root, invocation.blas)


def judge_device(found: ComputeFacts, around: EnvironmentFacts, processor: str) -> Finding:
    """Whether MLX computes what is right, on the device that its package is for, with a fast BLAS."""
    backend = around.backends[0] if around.backends else "none"
    for each in (diagnosis.check_mlx(found, around), diagnosis.check_blas(found, around)):
        if each.level != "ok":
            return _finding("device", each.level, each.said, each.cure)
    if backend != "cpu" and found.device == "cpu":
        said = f"MLX is installed for {backend}, and computes on the processor ({processor})"
        cure = "`inv install-deps --upgrade`; a virtual machine may have no GPU, and then training works, only slower"
        return _finding("device", "warning", said, cure)
    speed = "" if found.flops is None else f", {found.flops / 1e9:,.3g} GFLOP/s in float32"
    return _finding("device", "ok", f"MLX computes on the {found.device} of {processor} ({backend}){speed}")


def _environment(invocation: Invocation, lab: Laboratory) -> Finding:
    around = examination.environment_facts(invocation.project.root, _installed(invocation))
    tried = (
        diagnosis.check_system(examination.system_facts()),
        diagnosis.check_environment(around),
        diagnosis.check_backends(around),
    )
    worst = next((each for level in ("broken", "warning") for each in tried if each.level == level), tried[1])
    return _finding("environment", worst.level, worst.said, worst.cure)


# trainings -----------------------------------------------------------------------------------------------------------


def _training(invocation: Invocation, lab: Laboratory) -> Finding:
    words_typed = ("quickstart", "--tiny", "--iters", str(_STEPS), "--dir", lab.project.name, "--json")
    return judge_training(lab.run(*words_typed, folder=lab.folder).facts())


def judge_training(printed: JsonObject) -> Finding:
    """Whether a training reached its end with a finite loss, and its model gave answers."""
    run, before, after = printed["run"], printed["before"] or {}, printed["after"] or {}
    losses = [each.get("validation_loss") for each in (before, after)]
    said = f"{run['iteration']} iterations, {run['status']}, {words.plural(len(printed['answers']), 'answer')}"
    if run["status"] != "completed" or not printed["answers"] or not all(_is_finite(each) for each in losses):
        return _finding("training", "broken", f"{said}, validation losses {losses}", _CURES["training"])
    change = " to ".join(words.number(each) for each in losses)
    return _finding("training", "ok", f"{said}, validation loss from {change}")


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _resume(invocation: Invocation, lab: Laboratory) -> Finding:
    typed = ("lora", "--name", "exact", "--verify-resume", str(_COMPARED), "--json")
    return judge_resume(lab.run(*typed, codes=(0, 1)).facts())


def judge_resume(verdict: JsonObject) -> Finding:
    """Whether a training that was killed and resumed is the one without a stop, or how far they are apart."""
    of = f"{verdict['iterations']} iterations, killed after {verdict['interrupted_after']} and resumed"
    on = f"on {verdict['device']}"
    if verdict["equal"]:
        return _finding("resume", "ok", f"{of}: bit for bit as without a stop, {on}")
    parts = [each for each in verdict["parts"] if not each["equal"]]
    largest = max((each["largest_relative_difference"] or 0.0 for each in parts), default=0.0)
    apart = f"{of}: differs {on} by up to {words.number(largest)} (relative) in {', '.join(e['part'] for e in parts)}"
    if verdict["repeats_without_a_stop"]:
        return _finding("resume", "broken", apart, f"two trainings without a stop are the same, so {_REPORT}")
    said = f"{apart}; without a stop two trainings differ, too"
    cure = (
        "this device does not repeat itself: resuming works, not to the bit; `inv lora --verify-resume 8` measures it"
    )
    return _finding("resume", "warning", said, cure)


def _stop(invocation: Invocation, lab: Laboratory) -> Finding:
    long = ("lora", "--iters", str(_LONG), "--name", "long", "--samples", "0", "--detach", "--json")
    started = lab.run(*long).facts()
    return judge_stop(started["pid"], lab.run("train.stop", "long", "--json", codes=(0, 1, 3)))


def judge_stop(pid: int, stopped: CommandResult) -> Finding:
    """Whether a training in the background saved and stopped when another process asked it to."""
    if stopped.code != 0:
        return _finding("stop", "broken", stopped.as_failure(), f"kill -TERM {pid}; {_REPORT}")
    found = stopped.facts()
    said = f"a training in the background, asked by another process: {found['state']} at iteration {found['iteration']}"
    if found["state"] != "stopped" or found["goes_on_from"] != found["iteration"]:
        return _finding("stop", "broken", f"{said}, resumes from {found['goes_on_from']}", _REPORT)
    return _finding("stop", "ok", f"{said}, which it would resume from")


# what people and systems do ------------------------------------------------------------------------------------------


def _reader(invocation: Invocation, lab: Laboratory) -> Finding:
    return judge_reader([lab.run_unread(*typed) for typed in _UNREAD])


def judge_reader(ended: Sequence[CommandResult]) -> Finding:
    """Whether commands whose reader leaves, as `head` does, end without a word."""
    for each in ended:
        if each.code != 0 or each.err:
            return _finding("reader", "broken", each.as_failure(), _REPORT)
    return _finding("reader", "ok", f"{words.plural(len(ended), 'command')} ended well after their reader had left")


def _names(invocation: Invocation, lab: Laboratory) -> Finding:
    one, other = _NAMES
    lab.run("lora", "--iters", "2", "--name", one, "--samples", "0", "--learning-rate", "1e-4")
    before = _contents(lab.project / "adapters" / one)
    second = lab.run(
        *("lora", "--iters", "2", "--name", other, "--samples", "0", "--learning-rate", "2e-4"), codes=(0, 3)
    )
    verified = lab.run("checkpoints", "--verify", "--json", codes=(0, 1))
    return judge_names(before == _contents(lab.project / "adapters" / one), second, verified)


def _contents(folder: Path) -> dict[str, str]:
    found = files.matching(folder, "*.safetensors")
    return {each.name: files.sha256(each) for each in found}


def judge_names(is_unchanged: bool, second: CommandResult, verified: CommandResult) -> Finding:
    """Whether a run whose name is spelled as another's, but for case and accents, leaves that one alone."""
    if not is_unchanged or verified.code != 0:
        said = "a run changed the checkpoints of another one, whose name differs in case and accents only"
        return _finding("names", "broken", said, f"give runs names of other letters; {_REPORT}")
    how = "was refused" if second.code else "is a run of its own"
    return _finding("names", "ok", f"a run beside one whose name differs in case and accents only {how}")


def _boot(invocation: Invocation, lab: Laboratory) -> Finding:
    return judge_boot(lab.evaluate(_BOOT, PATH=_BARE))


def judge_boot(printed: JsonObject) -> Finding:
    """Whether the boot and the process are known with the PATH that cron and launchd give."""
    missing = [name for name in ("boot", "process", "host") if not printed[name]]
    if missing:
        said = f"not known with PATH={_BARE}: {', '.join(missing)}"
        return _finding("boot", "broken", said, f"a run whose process died stays running until `inv runs`; {_REPORT}")
    return _finding("boot", "ok", f"known with PATH={_BARE}")


def _network(invocation: Invocation, lab: Laboratory) -> Finding:
    return judge_network(lab.evaluate(_NETWORK))


def judge_network(printed: JsonObject) -> Finding:
    """Whether this machine knows its processes under another name, which a Mac gets from another network."""
    unknown = [name for name, is_known in zip(printed["names"], printed["alive"], strict=True) if not is_known]
    if unknown:
        said = f"a run here is not known to be of this machine once that is called {', '.join(unknown)}"
        return _finding("network", "broken", said, f"stop such a run by kill -TERM and its process id; {_REPORT}")
    names = "under another name, too" if printed["names"][1:] else "by its name, which no network changes here"
    return _finding("network", "ok", f"the machine knows its runs {names}")


def _folder(invocation: Invocation, lab: Laboratory) -> Finding:
    place = examination.place_here(invocation.project.root)
    tried = lab.folder / "tried"
    tried.mkdir()
    return file_system.judge(file_system.probe(tried), place)


_CHECKS: dict[str, Callable[[Invocation, Laboratory], Finding]] = {
    "device": _device,
    "environment": _environment,
    "training": _training,
    "resume": _resume,
    "stop": _stop,
    "reader": _reader,
    "names": _names,
    "boot": _boot,
    "network": _network,
    "folder": _folder,
}
_CURES = {
    "training": "`mlx-toolkit quickstart --tiny --iters 4 --dir try` shows all that it says; `inv doctor` may know why",
    "stop": f"`inv monitor --once` shows what is at work; {_REPORT}",
}
