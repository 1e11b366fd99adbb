"""pip as a child process: a project into an environment, a package into a folder, what went wrong in one sentence.

Standard library only, as `environment.py`.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mlxops.errors import Failed

# What would send the packages elsewhere, install only some of them, or hide why it went wrong. The rest of what a
# person sets counts: indexes, folders of wheels, certificates, proxies, constraints, caches.
_NOT_FOR_PIP = {
    "PIP_ABI",
    "PIP_DRY_RUN",
    "PIP_EDITABLE",
    "PIP_IMPLEMENTATION",
    "PIP_NO_BUILD_ISOLATION",
    "PIP_NO_DEPS",
    "PIP_PLATFORM",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_PYTHON_VERSION",
    "PIP_QUIET",
    "PIP_REQUIREMENT",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PIP_VERBOSE",
}
# What points a Python at the libraries of another one; the macOS launcher and `activate` leave some of it behind.
_OF_ANOTHER_PYTHON = {
    "PYTHONEXECUTABLE",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
}

# Downloads that are worth a line, in MB, and how much of pip's last lines is shown when it fails.
_LARGE, _SHOWN, _WIDTH = 20.0, 8, 300
_DOWNLOADING = re.compile(r"^\s*Downloading (\S+?)-\d\S* \((\d+(?:\.\d+)?) MB\)")
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|NameResolutionError|Max retries exceeded"
)
_NOT_TRUSTED = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED")
_NOT_THERE = re.compile(r"No matching distribution found for ([^\s;]+)")
_NOISE = re.compile(
    r"\s*($|note: |[×│╰]|\[end of output|error: subprocess-exited|hint: |Looking in |Obtaining |WARNING: Retrying |"
    r"Installing |Checking if build |Getting requirements to build |Preparing |Processing |Collecting |Using cached |"
    r"Downloading |INFO: |Building |Created wheel |Stored in |Successfully built )"
)
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")

# How long pip has to tidy up, in seconds.
_GRACE = 5

_ELSEWHERE = "clone the repository into a folder of yours that can be written"
_ROOM = "make room on the disk, then give the command again"
_WHAT_HELPS = {
    errno.EACCES: _ELSEWHERE,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "ulimit -f unlimited, then give the command again",
    errno.ENOSPC: _ROOM,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
}

OFFLINE = (
    "with a network, on a machine like this one: python3 -m pip download --dest wheels '.[dev]' hatchling editables; "
    "then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels before the command"
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended, and the last lines it said."""

    code: int
    lines: tuple[str, ...]

    @property
    def error_number(self) -> int:
        """The number of the disk's error that it speaks of, 0 where there is none."""
        numbers = [int(number) for line in self.lines for number in _ERROR_NUMBER.findall(line)]
        return next((number for number in reversed(numbers) if number in _WHAT_HELPS), 0)

    @property
    def last_line(self) -> str:
        """What it said last of what went wrong, in one line."""
        errors = [line for line in self.telling if line.startswith("ERROR:")]
        return (errors or self.telling or [f"exit code {self.code}"])[-1].removeprefix("ERROR: ")

    @property
    def telling(self) -> list[str]:
        """The lines without what pip adds around them, and without its tries."""
        return [line.strip() for line in self.lines if not _NOISE.match(line)]


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for an environment's Python: none that would point it at other libraries than its own."""
    return {name: value for name, value in environ.items() if name not in _OF_ANOTHER_PYTHON}


def what_helps(error_number: int | None) -> str | None:
    """What a person can do about an error of the disk."""
    return _WHAT_HELPS.get(error_number or 0)


def install(
    python: Path,
    project: Path,
    extras: Collection[str],
    *,
    has_pip: bool,
    upgrade: bool = False,
    scratch: Path,
    lock: int | None,
    log: Callable[[str], None],
) -> None:
    """Install the project, its files used where they are, with these extras; raises `Failed` with what pip said."""
    if not has_pip:
        ended = run([python, "-I", "-m", "ensurepip"], scratch=scratch, lock=lock)
        if ended.code != 0:
            raise Failed(f"{python.parents[1]} has no pip, and it cannot be added: {ended.last_line}")
    # The dot keeps a folder named x[1] from being read as a project with the extra 1.
    target = f"{project}/." + (f"[{','.join(sorted(extras))}]" if extras else "")
    command = [str(python), "-I", "-m", "pip", "install", "--no-user", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", *(["--upgrade", "--upgrade-strategy=eager"] if upgrade else [])]
    command += ["--editable", target]

    def hear(line: str) -> None:
        if (found := _DOWNLOADING.match(line)) and float(found[2]) >= _LARGE:
            log(f"  downloading {found[1]} ({float(found[2]):.0f} MB)")
        elif line.startswith("Installing collected packages"):
            log("  unpacking")

    ended = run(command, scratch=scratch, lock=lock, heard=hear, more=_patience(python))
    if ended.code != 0:
        for line in ended.telling[-_SHOWN:]:
            log(f"  {line[:_WIDTH]}")
        raise explain(ended, os.environ)


def download(package: str, folder: Path, *, use_cache: bool = True, python: Path | None = None) -> None:
    """Download a package's wheel, without what it needs, into a folder; raises `Failed` with what pip said.

    Without pip's own cache it comes from the index again. `python` None: the pip of the Python at work.
    """
    python = python or Path(sys.executable)
    command = [str(python), "-I", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", *([] if use_cache else ["--no-cache-dir"])]
    command += ["--dest", str(folder), package]
    ended = run(command, scratch=folder / "pip", lock=None, more=_patience(python))
    if ended.code == 0:
        return
    if any(line.endswith("No module named pip") for line in ended.lines):
        raise Failed(f"{python} has no pip", hint=f"{shlex.quote(str(python))} -m ensurepip adds it")
    offline = (
        f"with a network: python3 -m pip download --no-deps --dest wheels {package}; "
        "then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels before the command"
    )
    raise explain(ended, os.environ, what=f"download {package}", offline=offline)


def _patience(python: Path) -> dict[str, str]:
    """Settings for a network that does not answer, where the person has set none: pip's own take over a minute.

    They are variables, since pip does not pass its options on to the pip that fetches what a build needs.
    """
    command = [str(python), "-I", "-m", "pip", "config", "list", "--disable-pip-version-check"]
    said = subprocess.run(
        command, env=clean(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    set_by_person = {line.split("=")[0].rpartition(".")[2] for line in said.stdout.splitlines()}
    settings = {} if "retries" in set_by_person else {"PIP_RETRIES": "2"}
    return settings if {"timeout", "default-timeout"} & set_by_person else {**settings, "PIP_DEFAULT_TIMEOUT": "8"}


def run(
    command: Sequence[str | Path],
    *,
    scratch: Path,
    lock: int | None,
    heard: Callable[[str], object] = bool,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Ended:
    """Run a child that writes into an environment or a folder: each line it says is `heard`, and it ends when we do.

    It holds the lock too, so that one who outlives us is waited for. Its temporary files are in `scratch`, on the disk
    that must have the room anyway.
    """
    scratch.mkdir(exist_ok=True)
    # Warnings made errors would end pip in the middle.
    environment = {
        name: value for name, value in clean(os.environ).items() if name not in {*_NOT_FOR_PIP, "PYTHONWARNINGS"}
    }
    lines: deque[str] = deque(maxlen=400)
    child = subprocess.Popen(
        [str(word) for word in command],
        env={**environment, **more, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=() if lock is None else (lock,),
        process_group=0,
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            lines.append(line.rstrip("\n"))
            heard(line)
        code = child.wait()
    finally:
        _end(child)
        shutil.rmtree(scratch, ignore_errors=True)
    return Ended(code=code, lines=tuple(lines))


def _end(child: subprocess.Popen[str]) -> None:
    """End a child that is still at work, with its own children: asked first, since pip tidies up after itself."""
    for asked in (signal.SIGINT, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, asked)
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                continue
            # It may have gone without waiting for its own.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()


def explain(
    ended: Ended, environ: Mapping[str, str], *, what: str = "install what is needed", offline: str = OFFLINE
) -> Failed:
    """What pip's last lines mean to a person; `what` it was to do, and what helps who is `offline`."""
    said = "\n".join(ended.lines)
    if ended.error_number:
        word = f"[Errno {ended.error_number}]"
        line = next(line for line in reversed(ended.lines) if word in line)
        return Failed(f"pip could not write:{line.partition(word)[2]}", hint=what_helps(ended.error_number))
    if _NOT_TRUSTED.search(said):
        return Failed(
            "the certificate of the package index is not trusted here",
            hint="PIP_CERT=FILE names the certificates of your network",
        )
    if _UNREACHABLE.search(said):
        return Failed("the package index cannot be reached: is there a network?", hint=offline)
    missing = _NOT_THERE.search(said)
    if missing and environ.get("PIP_NO_INDEX"):
        folder = environ.get("PIP_FIND_LINKS") or "PIP_FIND_LINKS, which is not set"
        return Failed(f"PIP_NO_INDEX is set, and no wheel of {missing[1]} that fits is in {folder}", hint=offline)
    return Failed(f"pip could not {what}: {ended.last_line}")
