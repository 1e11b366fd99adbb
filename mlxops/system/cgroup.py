"""What a Linux control group leaves this process: a container's share of the machine, which psutil does not see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cpu_limit(process: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The processors that this process may use at a time, or None without a limit."""
    limits = []
    for folder in _folders(process, root, "cpu"):
        # Version 2 has "QUOTA PERIOD" in one file, version 1 two files; "max" and -1 are no limit.
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_limit(process: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The bytes that the processes of this group may take together, or None without a limit."""
    limits = []
    for folder in _folders(process, root, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        if limit and limit[0].isdigit():
            limits.append(int(limit[0]))
    return min(limits, default=None)


def memory_left(process: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The bytes that this process may still take, or None without a limit. Cached files count as free."""
    left = []
    for folder in _folders(process, root, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        if limit and used and limit[0].isdigit():
            left.append(max(0, int(limit[0]) - int(used[0]) + _cached(folder)))
    return min(left, default=None)


def _folders(process: Path, root: Path, controller: str) -> Iterator[Path]:
    """The groups of this process and those above: a limit of any of them holds."""
    try:
        lines = (process / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        folder = top / group.lstrip("/")
        yield from (each for each in [folder, *folder.parents] if each.is_relative_to(top) and each.is_dir())


def _cached(folder: Path) -> int:
    words = _words(folder / "memory.stat")
    return int(words[words.index("inactive_file") + 1]) if "inactive_file" in words else 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
