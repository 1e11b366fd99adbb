"""OpenBLAS takes the place of MLX's own BLAS on Linux, with the threads and core type asked for, or says why not.

Each case is a process of its own: a library is loaded once, and before MLX.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, run_python

from mlxops.system import ON_LINUX
from mlxops.system.host import available_cores

pytestmark = pytest.mark.skipif(not ON_LINUX, reason="macOS has Accelerate")

LOAD = """
import sys
from pathlib import Path
from mlxops.projects import blas
cache = Path(sys.argv[1])

def load(threads=None, core_type=None, setting=None):
    found = blas.load(threads=threads, core_type=core_type, cache=cache, setting=setting)
    return found.name, found.threads, found.core_type, found.note
"""


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the person running the tests chose for OpenBLAS does not count."""
    for name in ("OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the copy is made once."""
    return tmp_path_factory.mktemp("cache")


def run(program: str, cache: Path, **environment: str) -> object:
    """What a program after LOAD prints last, in a process of its own."""
    code, out, err = run_python("-W", "error", "-c", LOAD + program, str(cache), environment=environment)
    assert code == 0, err
    return ast.literal_eval(out.splitlines()[-1])


@pytest.mark.slow
def test_mlx_is_bound_to_the_loaded_library(cache: Path, tmp_path: Path) -> None:
    bindings = tmp_path / "bindings"

    run("load(); import mlx.core; print(())", cache, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(bindings))

    said = "".join(file.read_text(errors="replace") for file in tmp_path.glob("bindings.*"))
    found = re.findall(r"binding file .*libmlx\.so \[0\] to .*/([^/\s]+) \[0\]: normal symbol `(cblas_\w+)'", said)
    assert {symbol for _, symbol in found} >= {"cblas_sgemm"}
    assert all(library.startswith("libopenblas-") for library, _ in found)


@pytest.mark.slow
def test_all_is_chosen_where_nothing_is_asked_for(cache: Path) -> None:
    name, threads, core_type, note = run("print(load())", cache)  # type: ignore[misc]

    assert (name, threads, note) == ("openblas", available_cores(), None)
    assert core_type


@pytest.mark.slow
def test_what_was_chosen_can_be_asked_for_again(cache: Path) -> None:
    first = run("print(load())", cache)

    again = run(f"print(load(threads={first[1]}, core_type={first[2]!r}))", cache)  # type: ignore[index]

    assert again == first


@pytest.mark.slow
def test_the_threads_are_those_asked_for_even_beyond_the_processors(cache: Path) -> None:
    threads = (os.cpu_count() or 1) + 1

    found = run(f"load({threads}); print(blas.threads_in_effect(blas.load(\n"
                f"    threads={threads}, core_type=None, cache=cache, setting=None)))", cache)  # fmt: skip

    assert found == threads


@pytest.mark.slow
def test_the_variable_of_openblas_is_obeyed(cache: Path) -> None:
    name, threads, *_ = run("print(load())", cache, OPENBLAS_NUM_THREADS="1")  # type: ignore[misc]

    assert (name, threads) == ("openblas", 1)


@pytest.mark.slow
def test_threads_can_change_in_the_same_process_after_mlx_is_loaded(cache: Path) -> None:
    found = run("load(threads=1); import mlx.core; print((load(threads=2), load(threads=1)))", cache)

    assert [each[:2] for each in found] == [("openblas", 2), ("openblas", 1)]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_core_type_that_is_not_to_be_had_is_said(cache: Path) -> None:
    name, _, core_type, note = run("print(load(core_type='Nonsense'))", cache)  # type: ignore[misc]

    assert name == "openblas"
    assert note == f"the core type Nonsense was asked for, {core_type} is in use"


@pytest.mark.slow
def test_a_core_type_beyond_the_processor_is_not_tried(cache: Path) -> None:
    program = "from mlxops.system import host\nhost.cpu_info = lambda: {'flags': 'sse2'}\n"

    _, _, core_type, note = run(program + "print(load(core_type='Haswell'))", cache)  # type: ignore[misc]

    assert note.startswith("this processor lacks avx2, fma for the core type Haswell")
    assert core_type


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["off", "OFF", "0"])
def test_it_can_be_switched_off(cache: Path, setting: str) -> None:
    assert run(f"print(load(setting={setting!r}))", cache) == ("reference", 1, None, "switched off by MLXOPS_BLAS")


@pytest.mark.slow
def test_after_mlx_it_is_too_late(cache: Path) -> None:
    name, *_, note = run("import mlx.core\nprint(load())", cache)  # type: ignore[misc]

    assert (name, note) == ("reference", "MLX was imported before the BLAS could be loaded")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_without_a_cache_that_takes_files_the_fast_one_is_loaded_all_the_same(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()

    program = "first = load(threads=1); import mlx.core; print((first, load(threads=1), load(threads=2)[:2]))"
    first, again, other = run(program, tmp_path / place, TMPDIR=str(tmp_path / "temporary"))  # type: ignore[misc]

    assert (first[0], again, other) == ("openblas", first, ("openblas", 2))
    assert f"the cache '{tmp_path / place}' cannot be used: " in first[3]
    assert "MLXOPS_CACHE names a cache" in first[3]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_where_nothing_can_be_written_at_all_mlx_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = f"import tempfile; tempfile.tempdir = {str(tmp_path / 'file')!r}; print(load())"

    name, *_, note = run(program, tmp_path / "file")  # type: ignore[misc]

    assert name == "reference"
    assert note


@pytest.mark.slow
def test_a_damaged_copy_is_no_error(tmp_path: Path) -> None:
    run("print(load())", tmp_path)
    (copy,) = (tmp_path / "blas").iterdir()
    copy.write_bytes(b"not a library")

    name, *_, note = run("print(load())", tmp_path)  # type: ignore[misc]

    assert name == "reference"
    assert copy.name in note


@pytest.mark.slow
def test_many_processes_at_once_make_one_copy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOAD + "print(load()[0])", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(6)]

    said = [process.communicate()[0] for process in running]

    assert said == ["openblas\n"] * 6
    assert len(list((tmp_path / "blas").iterdir())) == 1


@pytest.mark.slow
def test_products_are_the_same_as_those_of_mlx_alone(cache: Path) -> None:
    program = """
import mlx.core as mx
mx.random.seed(0)
left, right = mx.random.normal((70, 130)), mx.random.normal((130, 50))
print((left @ right).tolist())
"""
    fast, slow = run("load()\n" + program, cache), run(program, cache)

    import numpy

    numpy.testing.assert_allclose(fast, slow, rtol=0, atol=1e-4)
