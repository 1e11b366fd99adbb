"""A Mac as far as one can be had on Linux: what the two differ in, substituted, in this process and in those it starts.

There is no /proc, no descriptor of a process and no affinity; sysctl, caffeinate and xcode-select are scripts that
answer from files; `F_FULLFSYNC` is refused, `poll` reports what XNU's does, the host has another name after a change of
network, the clock can be set, files can be hidden, and two spellings of a name can be one folder. MLX computes on the
processor all the same: nothing here says how Metal behaves.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlxops import layout, system
from mlxops.system import host

VARIABLE = "EMULATED_MAC"
F_FULLFSYNC = 51
UF_HIDDEN = 0x8000
BOOT = "6F1B8C0E-0F4B-4B6E-9E07-1C2D3E4F5A6B"
_PROGRAM = """#!/bin/sh
[ -e "{folder}/sysctl/$2" ] && cat "{folder}/sysctl/$2"
"""
_CAFFEINATE = """#!/bin/sh
echo "$@" >> "{folder}/caffeinated"
exec tail --pid="$3" -f /dev/null
"""
_XCODE_SELECT = """#!/bin/sh
[ -e "{folder}/developer" ] && cat "{folder}/developer"
"""
_IOREG = """#!/bin/sh
echo '  "PerformanceStatistics" = {{"In use system memory (driver)"=0,"Alloc system memory"=9000000000,"Tiler \
Utilization %"=2,"Device Utilization %"=37,"In use system memory"=6000000000}}'
"""
_SCUTIL = """#!/bin/sh
[ -e "{folder}/announced" ] && cat "{folder}/announced"
"""


@dataclass(frozen=True)
class Mac:
    """An emulated Mac, whose state is in files so that all its processes see the same."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Mac:
        """A Mac with Apple silicon and the developer tools, on a disk that refuses `F_FULLFSYNC`."""
        (folder / "sysctl").mkdir(parents=True)
        made = cls(folder)
        scripts = {"sysctl": _PROGRAM, "caffeinate": _CAFFEINATE, "xcode-select": _XCODE_SELECT}
        scripts |= {"ioreg": _IOREG, "scutil": _SCUTIL}
        for name, text in scripts.items():
            program = made.program(name)
            program.parent.mkdir(exist_ok=True)
            program.write_text(text.format(folder=folder))
            program.chmod(0o755)
        made.say("host", "ibis.local")
        made.say("announced", "ibis")
        made.say("clock", "0")
        made.say("fullfsync", "ENOTSUP")
        made.say("locks", "works")
        made.say("developer", "/Library/Developer/CommandLineTools")
        made.answer("kern.bootsessionuuid", BOOT)
        made.answer("kern.osversion", "24B83")
        made.answer("machdep.cpu.brand_string", "Apple M3 Max")
        made.answer("hw.memsize", str(64 << 30))
        made.answer("hw.optional.arm64", "1")
        return made

    def program(self, name: str) -> Path:
        """One of Apple's programs."""
        return self.folder / "programs" / name

    def say(self, name: str, text: str) -> None:
        """Set one of `host` (the network's name for it), `announced` (its own), `clock` (seconds it was set forward),
        `fullfsync` and `locks` (`works`, or an error), `developer`."""
        (self.folder / name).write_text(text + "\n")

    def said(self, name: str) -> str:
        """What that is."""
        return (self.folder / name).read_text().strip()

    def answer(self, name: str, text: str) -> None:
        """Have sysctl answer this for a name."""
        (self.folder / "sysctl" / name).write_text(text + "\n")

    def hide(self, path: Path) -> None:
        """Set the flag UF_HIDDEN of a file, as macOS does in folders that begin with a dot."""
        os.chflags(path, UF_HIDDEN)  # type: ignore[attr-defined]

    def environment(self) -> dict[str, str]:
        """What has a Python that is started be one on this Mac."""
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        tests = Path(__file__).parent
        ours = [str(tests / "mac_site"), str(tests.parent), str(tests)]
        # MLX compiles kernels on Linux alone, and looks for those it has where this Mac does not keep them
        return {
            VARIABLE: str(self.folder),
            "MLX_DISABLE_COMPILE": "1",
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([*ours, *filter(None, before)])),
        }


class Patching(Protocol):
    """How things are substituted: as `pytest.MonkeyPatch` does."""

    def setattr(self, target: Any, name: str, value: Any, raising: bool = ...) -> None: ...
    def delattr(self, target: Any, name: str, raising: bool = ...) -> None: ...


class _Lasting:
    """For a process that stays one on a Mac."""

    def setattr(self, target: Any, name: str, value: Any, raising: bool = True) -> None:
        setattr(target, name, value)

    def delattr(self, target: Any, name: str, raising: bool = True) -> None:
        with suppress(AttributeError):
            delattr(target, name)


def emulate(mac: Mac, patch: Patching | None = None) -> None:
    """Have this process be one on the Mac, for good or as long as `patch` has it."""
    patch = patch or _Lasting()
    platform.uname()  # what other packages ask stays what it is
    forget()
    patch.setattr(system, "NAME", "darwin")
    patch.setattr(system, "ON_MACOS", True)
    patch.setattr(system, "ON_LINUX", False)
    for name in ("sysctl", "caffeinate", "xcode-select", "ioreg", "scutil"):
        patch.setattr(system, name.upper().replace("-", "_"), str(mac.program(name)))
    patch.setattr(platform, "machine", lambda: "arm64")
    patch.setattr(platform, "mac_ver", lambda *_, **__: ("15.1", ("", "", ""), "arm64"))
    for owner, name in ((os, "sched_getaffinity"), (os, "pidfd_open"), (signal, "pidfd_send_signal")):
        patch.delattr(owner, name, raising=False)
    patch.setattr(os, "uname", lambda: _uname(mac))
    patch.setattr(fcntl, "F_FULLFSYNC", F_FULLFSYNC, raising=False)
    patch.setattr(fcntl, "fcntl", _fcntl(mac, fcntl.fcntl))
    patch.setattr(fcntl, "flock", _flock(mac, fcntl.flock))
    patch.setattr(select, "poll", _Poll)
    patch.setattr(os, "chflags", lambda path, flags: _set_flags(mac, path, flags), raising=False)
    patch.setattr(os, "lstat", _lstat(mac, os.lstat))
    patch.setattr(Path, "lstat", _lstat(mac, Path.lstat))
    for name in ("stat", "open", "readlink", "iterdir", "exists", "is_dir", "is_file"):
        patch.setattr(Path, name, _without_proc(getattr(Path, name), answers=name in ("exists", "is_dir", "is_file")))
    _move_clocks(mac, patch)


def forget() -> None:
    """Have this process ask again for what it keeps as long as it runs."""
    for each in (host._announced_name, host.boot_id, host.build):
        each.cache_clear()


def _uname(mac: Mac) -> os.uname_result:
    return os.uname_result(("Darwin", mac.said("host"), "24.1.0", "Darwin Kernel Version 24.1.0", "arm64"))


def _fcntl(mac: Mac, real: Callable[..., Any]) -> Callable[..., Any]:
    """`fcntl`, that syncs or says why it does not."""

    def wrapped(file: Any, command: int, *rest: Any) -> Any:
        if command != F_FULLFSYNC:
            return real(file, command, *rest)
        if (says := mac.said("fullfsync")) != "works":
            number = getattr(errno, says)
            raise OSError(number, os.strerror(number))
        os.fsync(file)
        return 0

    return wrapped


def _flock(mac: Mac, real: Callable[..., Any]) -> Callable[..., Any]:
    """`flock`, that locks or says why it does not."""

    def wrapped(file: Any, operation: int) -> Any:
        if (says := mac.said("locks")) != "works":
            raise OSError(getattr(errno, says), os.strerror(getattr(errno, says)))
        return real(file, operation)

    return wrapped


class _Poll:
    """XNU watches nothing for an event mask of 0, where Linux still reports an error and a hang-up."""

    def __init__(self, make: Callable[[], Any] = select.poll) -> None:
        self._real = make()

    def register(self, file: Any, mask: int = select.POLLIN | select.POLLPRI | select.POLLOUT) -> None:
        if mask:
            self._real.register(file, mask)

    def modify(self, file: Any, mask: int) -> None:
        self._real.modify(file, mask) if mask else self._real.unregister(file)

    def unregister(self, file: Any) -> None:
        self._real.unregister(file)

    def poll(self, timeout: float | None = None) -> Any:
        return self._real.poll(timeout)


def _flags(mac: Mac, found: os.stat_result) -> Path:
    """The file that has the flags of another one."""
    return mac.folder / "flags" / f"{found.st_dev}-{found.st_ino}"


def _set_flags(mac: Mac, path: Any, flags: int) -> None:
    file = _flags(mac, Path(path).stat())
    file.parent.mkdir(exist_ok=True)
    file.write_text(str(flags))


def _lstat(mac: Mac, real: Callable[..., os.stat_result]) -> Callable[..., Any]:
    """`lstat`, that says the flags of files that have some."""

    class Flagged:
        def __init__(self, found: os.stat_result, flags: int) -> None:
            self._found, self.st_flags = found, flags

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

        def __getitem__(self, index: int) -> Any:
            return self._found[index]

    def wrapped(path: Any, *rest: Any, **options: Any) -> Any:
        found = real(path, *rest, **options)
        file = _flags(mac, found)
        return Flagged(found, int(file.read_text())) if file.exists() else found

    return wrapped


def _without_proc(real: Callable[..., Any], *, answers: bool) -> Callable[..., Any]:
    """A method of a path, to which there is nothing below /proc and /sys; psutil, which needs them here, opens them."""

    def wrapped(self: Path, *rest: Any, **options: Any) -> Any:
        if str(self).startswith(("/proc/", "/sys/")):
            if answers:
                return False
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return real(self, *rest, **options)

    return wrapped


def _move_clocks(mac: Mac, patch: Patching) -> None:
    """Have psutil say start times as it does on macOS: moved with the clock, unless the raw ones are asked for."""
    import psutil

    theirs = psutil._psplatform.Process  # type: ignore[attr-defined]
    real = theirs.create_time

    def create_time(self: Any, monotonic: bool = False) -> float:
        started = float(real(self, monotonic=True)) + 1.7e9
        return started if monotonic else started + float(mac.said("clock"))

    patch.setattr(theirs, "create_time", create_time)


@contextmanager
def one_folder(one: Path, other: Path) -> Iterator[None]:
    """Have a second spelling of a folder's name lead to it, as on APFS: by a mount, or a link where none is allowed."""
    assert layout.folded(one.name) == layout.folded(other.name)
    other.mkdir()
    mount, unmount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    try:
        is_bound = subprocess.run([mount, "--bind", one, other], capture_output=True).returncode == 0
    except FileNotFoundError:
        is_bound = False
    if not is_bound:
        other.rmdir()
        other.symlink_to(one.name)
    try:
        yield
    finally:
        if is_bound:
            subprocess.run([unmount, "--lazy", other], check=True, capture_output=True)
            other.rmdir()
        else:
            other.unlink()
