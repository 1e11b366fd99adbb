"""Compiled kernels are kept from one process to the next, whole or absent, in a folder of the user's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from commands import run_python

from mlxops import system
from mlxops.projects import kernels

needs_a_compiler = pytest.mark.skipif(not kernels.are_compiled(), reason="MLX compiles nothing here")

COMPUTE = """
import sys
from pathlib import Path
from mlxops import system
from mlxops.projects import kernels
import mlx.core as mx
with kernels.kept(Path(sys.argv[1])) as keep:
    print(mx.compile(lambda x: mx.exp(x) * 2 + x)(mx.zeros(4)).tolist())
    many = mx.compile(lambda x, y, z: mx.sigmoid(x * y + z) * mx.sqrt(y / z) - mx.square(x) / (y + z * x + y * y + z))
    many(mx.ones((4, 4)), mx.ones((4, 1)), mx.ones((1, 4))).tolist()
    (place,) = Path(sys.argv[1]).glob("kernels/work-*/mlx/*/cpu")
    if sys.argv[2:] == ["half"]:
        (place / "libhalf.so").write_bytes(b"half")
"""


def libraries(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "kernels").rglob("*.so"))


@pytest.mark.slow
@needs_a_compiler
def test_a_kernel_is_compiled_once_and_found_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, bin_folder = tmp_path / "cache", tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "g++").write_text('#!/bin/sh\n[ "$1" = --version ]\n')
    (bin_folder / "g++").chmod(0o755)
    first = run_python("-c", COMPUTE, str(cache), "half")
    kept = libraries(cache)

    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    second = run_python("-c", COMPUTE, str(cache))
    missing = run_python("-c", COMPUTE, str(tmp_path / "other"))

    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert first[1] == second[1] == "[2.0, 2.0, 2.0, 2.0]\n"
    assert missing[0] != 0  # without the kept one it would have to be compiled
    assert len(kept) == 2  # and not the half one
    assert max(map(len, kept)) > 230  # as long as a name may be: nothing can stand beside it in a longer one
    assert libraries(cache) == kept
    assert list((cache / "kernels").glob("work-*")) == []


@needs_a_compiler
def test_the_temporary_folder_is_mlx_s_alone_and_what_it_was_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    pythons = tempfile.gettempdir()

    with kernels.kept(tmp_path):
        inside = os.environ["TMPDIR"]
        assert tempfile.gettempdir() == pythons

    assert Path(inside).parent == tmp_path / "kernels"
    assert os.environ["TMPDIR"] == "/somewhere"
    assert not Path(inside).exists()


@needs_a_compiler
def test_a_cache_that_is_no_folder_leaves_mlx_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.delenv("TMPDIR", raising=False)

    with kernels.kept(tmp_path / "cache") as keep:
        keep()
        assert "TMPDIR" not in os.environ


def test_without_a_compiler_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with kernels.kept(tmp_path / "cache") as keep:
        keep()

    assert not (tmp_path / "cache").exists()
    assert shutil.which("g++") is None
    assert not (system.ON_LINUX and kernels.are_compiled())
