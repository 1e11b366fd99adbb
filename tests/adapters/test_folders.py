"""Files told by their names, headers, numbers that are not finite, and adapter folders wherever they are."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import numpy as np
import pytest
from ready_programs import run_forked
from safetensors.numpy import save_file

from mlxops import layout
from mlxops.adapters import folders


def write(path: Path, values: np.ndarray | None = None) -> Path:
    """A safetensors file with one array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.ones((2, 3), np.float32) if values is None else values}, path, {"iteration": "7"})
    return path


@pytest.mark.parametrize(
    ("name", "kind", "iteration"),
    [
        ("0000100_adapters.safetensors", "weights", 100),
        ("12345678_adapters.safetensors", "weights", 12_345_678),
        ("0000100_state.safetensors", "state", 100),
        ("adapters.safetensors", "offered", None),
        ("adapters.npz", "offered", None),
        ("100_adapters.npz", "weights", 100),
        ("adapters_100.safetensors", "weights", 100),
        ("adapters_100_best.npz", "weights", 100),
        ("adapter-100.safetensors", "weights", 100),
        ("checkpoint_100.safetensors", "weights", 100),
        ("checkpoint-100.npz", "weights", 100),
        ("adapter_config.json", "settings", None),
        (".adapters.safetensors.partial.safetensors", "half-written", None),
        ("0000100_state.safetensors.corrupt", "set aside", 100),
        ("adapters.safetensors.before", "set aside", None),
        ("model.safetensors", "other", None),
        ("0000100_adapters.safetensors.bak", "other", None),
        ("old_adapters.safetensors", "other", None),
    ],
)
def test_a_file_is_told_by_its_name(name: str, kind: str, iteration: int | None) -> None:
    found, _, number = layout.recognise(name)

    assert (found, number) == (kind, iteration)


def test_a_header_has_names_types_shapes_and_metadata(tmp_path: Path) -> None:
    header = folders.read_header(write(tmp_path / "adapters.safetensors"))

    assert (header.problem, header.metadata) == (None, {"iteration": "7"})
    assert header.tensors == {"a": ("F32", (2, 3))}


def test_the_arrays_of_an_npz_are_read_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "adapters.npz", a=np.ones((2, 3), np.float16))

    assert folders.read_header(tmp_path / "adapters.npz").tensors == {"a": ("float16", (2, 3))}


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@pytest.mark.parametrize("left", [0, 4, 60])
def test_a_file_that_is_cut_is_a_sentence(tmp_path: Path, suffix: str, left: int) -> None:
    path = write(tmp_path / "whole.safetensors")
    if suffix == "npz":
        np.savez(path.with_suffix(".npz"), a=np.ones(100))
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.with_suffix(f".{suffix}").read_bytes()[:left])

    assert "cannot be read" in str(folders.read_header(cut).problem)
    assert "cannot be read" in str(folders.not_finite(cut))


def test_a_file_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    assert folders.read_header(tmp_path / "none.safetensors").problem == "is gone"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_found(tmp_path: Path, dtype: type, bad: float) -> None:
    largest = np.array([np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny, 0.0], dtype)
    save_file({"good": largest, "bad": np.array([1.0, bad], dtype)}, tmp_path / "x.safetensors")

    assert folders.not_finite(tmp_path / "x.safetensors") == ("bad",)


@pytest.mark.parametrize(("bits", "is_finite"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True), (0x3F80, True)])
def test_numbers_of_bfloat16_are_looked_at_bit_by_bit(tmp_path: Path, bits: int, is_finite: bool) -> None:
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<HH", 0, bits))

    assert folders.not_finite(tmp_path / "x.safetensors") == (() if is_finite else ("a",))


def test_numbers_of_an_npz_are_looked_at(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", good=np.ones(2), bad=np.array([np.nan]))

    assert folders.not_finite(tmp_path / "x.npz") == ("bad",)


def test_settings_that_are_no_table_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("[]")

    assert folders.read_settings(tmp_path) == (None, "is no table of settings")
    assert folders.read_settings(tmp_path / "elsewhere") == (None, None)


# folders -------------------------------------------------------------------------------------------------------------


def test_adapter_folders_are_found_anywhere_below(tmp_path: Path) -> None:
    for place in ("adapters/a", "models/lora_adapters", "my results/deep er/ünïcode"):
        write(tmp_path / place / "adapters.safetensors")
    write(tmp_path / "models/plain/model.safetensors")

    found = {contents.folder.relative_to(tmp_path).as_posix() for contents in folders.discover(tmp_path)}

    assert found == {"adapters/a", "models/lora_adapters", "my results/deep er/ünïcode"}


@pytest.mark.parametrize("place", [".hidden", ".venv/lib", "node_modules/x", "venv/x", "__pycache__"])
def test_environments_and_hidden_folders_are_passed_over(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / "adapters.safetensors")

    assert list(folders.discover(tmp_path)) == []


def test_links_are_not_followed_and_a_circle_ends(tmp_path: Path) -> None:
    write(tmp_path / "adapters/a/adapters.safetensors")
    (tmp_path / "adapters/latest").symlink_to("a")
    (tmp_path / "adapters/a/circle").symlink_to(tmp_path)

    assert [contents.folder.name for contents in folders.discover(tmp_path)] == ["a"]


def test_a_linked_file_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere.safetensors")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/adapters.safetensors").symlink_to(real)

    (found,) = folders.look(tmp_path / "a").files

    assert (found.bytes, found.problem) == (real.stat().st_size, None)


def test_a_link_to_nothing_and_an_empty_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapters.safetensors").symlink_to("nowhere")
    (tmp_path / "0000001_adapters.safetensors").touch()

    assert [(each.name, each.problem) for each in folders.look(tmp_path).files] == [
        ("0000001_adapters.safetensors", "is empty"),
        ("adapters.safetensors", "is a link to nothing"),
    ]


def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    assert folders.look(tmp_path / "none").problem == "is gone"
    assert [contents.problem for contents in folders.discover(tmp_path / "none")] == ["is gone"]


@pytest.mark.slow
def test_a_folder_that_may_not_be_read_is_named_and_the_rest_listed(tmp_path: Path) -> None:
    write(tmp_path / "open/adapters.safetensors")
    (tmp_path / "closed").mkdir(mode=0o000)
    program = """
import sys, pathlib, training_runs
from mlxops.adapters import folders
training_runs.obey_permissions()
print({each.folder.name: each.problem for each in folders.discover(pathlib.Path(sys.argv[1]))})
"""

    code, out, err = run_forked("-c", program, str(tmp_path))
    (tmp_path / "closed").chmod(0o755)

    assert (code, err) == (0, "")
    assert ast.literal_eval(out) == {"open": None, "closed": "may not be read by this user"}
