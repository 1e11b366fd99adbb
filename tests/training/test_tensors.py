"""Files of arrays: safetensors that other programs read, with the hash of what is in them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import mlx.core as mx
import pytest
import safetensors

from mlxops import files, tensors

ARRAYS = {
    "b": mx.array([[1.5, -2.0], [0.0, 3.0]]),
    "half": mx.array([0.5, 7.0], mx.bfloat16),
    "a": mx.array([1, 2], mx.uint32),
    "flag": mx.array([True, False, True]),
    "number": mx.array(7),
    "none": mx.zeros((0, 4)),
    "turned": mx.arange(6).reshape(2, 3).T,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def whole(path: Path) -> tensors.Digests:
    return tensors.digests(path, tensors.read_header(path))


def raw(path: Path, header: object, data: bytes = b"") -> None:
    """A file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


# written ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
def test_the_hash_is_that_of_the_file(path: Path, sealed: bool) -> None:
    sha256 = tensors.write(path, ARRAYS, {"format": "mlx"}, sealed=sealed)

    assert sha256 == files.sha256(path) == whole(path).sha256


@pytest.mark.parametrize("sealed", [False, True])
def test_mlx_reads_what_was_written(path: Path, sealed: bool) -> None:
    tensors.write(path, ARRAYS, {"format": "mlx", "é": "\n"}, sealed=sealed)

    found, metadata = mx.load(str(path), return_metadata=True)

    found.pop(tensors.SEAL, None)
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in ARRAYS.items()
    }
    assert metadata == {"format": "mlx", "é": "\n"}


def test_the_safetensors_library_reads_what_was_written(path: Path) -> None:
    tensors.write(path, ARRAYS, {"format": "mlx"}, sealed=True)

    with safetensors.safe_open(path, framework="np") as opened:
        assert opened.metadata() == {"format": "mlx"}
        assert opened.get_tensor("turned").tolist() == [[0, 3], [1, 4], [2, 5]]
        assert set(opened.keys()) == {*ARRAYS, tensors.SEAL}


def test_every_type_has_the_name_that_mlx_gives_it(path: Path) -> None:
    types = {each for each in vars(mx).values() if isinstance(each, mx.Dtype)} - {mx.float64}  # which MLX refuses
    values = {str(each): mx.zeros((3,)).astype(each) for each in types}
    mx.save_safetensors(str(path), values)
    theirs = {name: each.dtype for name, each in tensors.read_header(path).tensors.items()}

    tensors.write(path, values, {})

    assert {name: each.dtype for name, each in tensors.read_header(path).tensors.items()} == theirs
    assert set(theirs.values()) == set(tensors.SIZES) - {"F64"}


def test_the_order_of_the_arrays_does_not_change_the_file(path: Path) -> None:
    first = tensors.write(path, ARRAYS, {})

    assert tensors.write(path, dict(reversed(ARRAYS.items())), {}) == first


def test_every_array_is_aligned_to_its_type(path: Path) -> None:
    tensors.write(path, ARRAYS, {"x": "123"}, sealed=True)

    found = tensors.read_header(path).tensors.values()

    assert [each for each in found if each.begin % tensors.SIZES[each.dtype]] == []


def test_a_large_array_is_not_copied_to_be_written(path: Path) -> None:
    large = {"a": mx.ones((4 << 20,))}
    mx.eval(large)

    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tracemalloc.start()
    tensors.write(path, large, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak + mx.get_peak_memory() - before < 4 << 20


# read ---------------------------------------------------------------------------------------------------------------


def test_a_seal_is_right_until_a_byte_changes(path: Path) -> None:
    tensors.write(path, ARRAYS, {"format": "mlx"}, sealed=True)
    content = bytearray(path.read_bytes())
    places = [place for place in range(8, len(content)) if content[place] == 0]
    content[places[-1]] = 1

    is_right = whole(path).seal_is_right
    path.write_bytes(content)

    assert (is_right, whole(path).seal_is_right) == (True, False)


def test_a_file_without_a_seal_proves_nothing(path: Path) -> None:
    tensors.write(path, ARRAYS, {})

    assert not whole(path).seal_is_right


def test_a_seal_before_other_arrays_proves_nothing(path: Path) -> None:
    seal = {"dtype": "U8", "shape": [32], "data_offsets": [0, 32]}
    raw(path, {"sha256": seal, "x": {"dtype": "U8", "shape": [1], "data_offsets": [32, 33]}}, bytes(33))

    assert not whole(path).seal_is_right


def test_arrays_are_compared_by_their_bytes(path: Path) -> None:
    tensors.write(path, {"w.a": mx.array([1.0]), "w.b": mx.array([2]), "more": mx.array([3])}, {})
    other, changed, renamed, retyped = (path.with_name(f"{name}.safetensors") for name in ("o", "c", "r", "t"))
    tensors.write(other, {"b": mx.array([2]), "a": mx.array([1.0])}, {"other": "metadata"})
    tensors.write(changed, {"b": mx.array([2]), "a": mx.array([1.5])}, {})
    tensors.write(renamed, {"b": mx.array([2]), "c": mx.array([1.0])}, {})
    tensors.write(retyped, {"b": mx.array([2], mx.uint32), "a": mx.array([1.0])}, {})

    names = {"w.a": "a", "w.b": "b"}

    assert [tensors.are_equal(path, names, each) for each in (other, changed, renamed, retyped)] == [
        True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"{", b""),
        (b"[" * 100_000, b""),
        (b"[]", b""),
        ({"__metadata__": ["x"]}, b""),
        ({"__metadata__": {"x": 1}}, b""),
        ({"x": []}, b""),
        ({"x": {"dtype": "F32", "shape": [1]}}, b"1234"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"123"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, b"1234"),
        ({"x": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, b"1234"),
        ({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "xy"}, b"1234"),
    ],
)
def test_a_file_that_is_none_is_refused(path: Path, header: object, data: bytes) -> None:
    raw(path, header, data)

    with pytest.raises(ValueError, match=r"^its? "):
        tensors.read_header(path)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\xff" * 100])
def test_a_file_without_a_header_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(ValueError, match="it has no whole header"):
        tensors.read_header(path)


def test_a_file_that_becomes_shorter_is_an_error_of_the_system(path: Path) -> None:
    tensors.write(path, ARRAYS, {})
    header = tensors.read_header(path)
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(OSError, match="shorter"):
        list(tensors.read_bytes(path, max(header.tensors.values(), key=lambda each: each.end)))
