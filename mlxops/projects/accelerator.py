"""The chip that MLX can compute on beside the processor: what it is called, and how much of its memory is in use.

Read from what the system says, without MLX.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlxops import system
from mlxops.system import host

_SECONDS = 5.0  # a driver that hangs must not keep a screen waiting
_ASKED = "name,memory.total,memory.used,utilization.gpu,driver_version"
_MIB = 1 << 20
_OF_IOREG = ("-r", "-d", "1", "-w", "0", "-c", "IOAccelerator")


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A GPU. `memory` is in bytes, and on a Mac the one that the processor uses too; None where it is not known.

    `limit` is what a Mac was told to let its GPU hold, None where nobody set it.
    """

    kind: Literal["apple", "nvidia"]
    name: str
    memory: int | None = None
    memory_used: int | None = None
    busy_percent: float | None = None
    driver: str | None = None
    limit: int | None = None


def find() -> tuple[Accelerator, ...]:
    """The GPUs of this machine; none is an empty tuple. Asking NVIDIA's driver can take a second."""
    if system.ON_MACOS:
        statistics = system.output([system.IOREG, *_OF_IOREG], timeout=_SECONDS)
        memory, limit = system.sysctl("hw.memsize"), system.sysctl("iogpu.wired_limit_mb")
        return of_apple(host.cpu_model(), memory, limit, statistics)
    program = shutil.which("nvidia-smi")
    said = program and system.output(
        [program, f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"], timeout=_SECONDS
    )
    return of_nvidia(said) if said else of_driver(Path(system.NVIDIA_DRIVER))


def of_apple(
    chip: str, memory: str | None, limit: str | None, statistics: str | None = None
) -> tuple[Accelerator, ...]:
    """The GPU of a Mac, whose chip has it inside; an Intel Mac has none that MLX computes on.

    `statistics` are those of its driver, as ioreg writes them: with what all programs hold for it, and how busy it is.

    >>> of_apple("Apple M3 Max", "68719476736", "0")[0].name
    'Apple M3 Max'
    """
    if not chip.startswith("Apple"):
        return ()
    set_limit = int(limit) * _MIB if limit is not None and limit.isdecimal() and int(limit) else None
    total = int(memory) if memory is not None and memory.isdecimal() else None
    used, busy = (_of_driver(name, statistics or "") for name in ("In use system memory", "Device Utilization %"))
    return (
        Accelerator(
            kind="apple",
            name=chip,
            memory=total,
            memory_used=used,
            busy_percent=None if busy is None else float(busy),
            limit=set_limit,
        ),
    )


def _of_driver(name: str, statistics: str) -> int | None:
    found = re.search(rf'"{name}"=(\d+)', statistics)
    return int(found[1]) if found else None


def of_nvidia(said: str) -> tuple[Accelerator, ...]:
    """The GPUs in the lines of nvidia-smi; what it does not know of one, it writes as [N/A]."""
    found = []
    for line in said.splitlines():
        fields = [each.strip() for each in line.split(",")]
        if len(fields) < 5 or not fields[0]:
            continue
        total, used, busy = map(_number, fields[-4:-1])
        found.append(
            Accelerator(
                kind="nvidia",
                name=",".join(fields[:-4]),
                memory=None if total is None else int(total * _MIB),
                memory_used=None if used is None else int(used * _MIB),
                busy_percent=busy,
                driver=fields[-1],
            )
        )
    return tuple(found)


def of_driver(folder: Path) -> tuple[Accelerator, ...]:
    """The GPUs that NVIDIA's kernel driver lists, where its programs are missing, as in many containers."""
    found = []
    for file in sorted(folder.glob("*/information")):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
        found += [Accelerator(kind="nvidia", name=name) for name in names if name]
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
