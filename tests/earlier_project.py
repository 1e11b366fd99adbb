"""A project that an earlier version made, and what that version said of it; `fixtures/make_project.py` made both."""

from __future__ import annotations

import hashlib
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).resolve().parent / "fixtures"
_FOLDER = FIXTURES / "project-7df9bec"

OF_THE_MACHINE = (
    "mlx", "mlx-lm", "mlxops", "device", "machine", "blas", "blas_version", "blas_threads", "core_type", "kernels",
)  # fmt: skip
"""What of an attempt's environment the bits of a training depend on."""


@cache
def expected() -> dict[str, Any]:
    """What was recorded: `options` of each run, what commands `said`, the runs once `trained`, and `fingerprints`."""
    recorded: dict[str, Any] = json.loads((_FOLDER / "expected.json").read_text(encoding="utf-8"))
    return recorded


def unpack(folder: Path) -> Path:
    """The project, made in a new folder."""
    with tarfile.open(_FOLDER / "project.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def weights_sha256(file: Path) -> str:
    """The SHA-256 of the arrays in an adapter file: their bits, and not how a version lays them out."""
    import safetensors.numpy

    digest = hashlib.sha256()
    for name, array in sorted(safetensors.numpy.load_file(file).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
