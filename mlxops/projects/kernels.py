"""The kernels that MLX compiles on a Linux processor, kept from one training to the next.

MLX fuses operations by writing C++ and calling g++, which takes 20 seconds of processor time in a first step. It keeps
the libraries in the temporary folder, which is emptied now and then and where others can write. Where g++ was killed
there is half a library, which every later process loads and dies of. So MLX is given a temporary folder of its own,
with the kernels of before in it, and those that it has loaded go into the user's cache, each whole or absent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlxops import files, system
from mlxops.projects import machine
from mlxops.system import processes

_WORK = "work-"


def are_compiled() -> bool:
    """Whether MLX compiles kernels here: a compiler fuses operations, with other bits than one after the other."""
    return system.ON_LINUX and shutil.which("g++") is not None and "MLX_DISABLE_COMPILE" not in os.environ


@dataclass(frozen=True)
class Kernels:
    """Where this process has its kernels, and where they are kept."""

    here: Path
    kept: Path
    _done: set[str] = field(default_factory=set)

    def take(self) -> None:
        """Take what is kept; never an error."""
        with suppress(OSError):
            shutil.copytree(self.kept, self.here, copy_function=os.link, dirs_exist_ok=True)

    def keep(self) -> None:
        """Keep what this process has loaded, which is whole for that; never an error."""
        with suppress(OSError):
            for name in processes.libraries_in(self.here) - self._done:
                loaded, place = self.here / name, self.kept / name
                if loaded.exists() and not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    beside = self.here / "whole"  # names of kernels are as long as a file system takes them
                    shutil.copyfile(loaded, beside)
                    files.sync(beside)
                    beside.replace(place)
                self._done.add(name)


@contextmanager
def kept(cache: Path | None) -> Iterator[Callable[[], None]]:
    """Have MLX find the kernels of before while the block runs; what is given keeps the new ones, as the end does.

    Where none are compiled, or the cache cannot be written or loaded from, MLX does as it does by itself.
    """
    with ExitStack() as stack:
        found = _in_a_folder(cache, stack) if cache is not None and are_compiled() else None
        if found is None:
            yield lambda: None
            return
        found.take()
        with _temporary_folder(found.here):
            yield found.keep
        found.keep()


def _in_a_folder(cache: Path, stack: ExitStack) -> Kernels | None:
    folder = cache / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()  # the kernel names what is loaded by its real path
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return None
        here = stack.enter_context(files.scratch_folder(folder, _WORK))
    except OSError:
        return None
    return Kernels(here, folder / f"mlx-{machine.versions().get('mlx')}-{os.uname().machine}")


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[None]:
    """MLX asks for the temporary folder at each kernel; Python's own stays what it is."""
    tempfile.gettempdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
