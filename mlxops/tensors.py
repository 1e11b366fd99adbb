"""Safetensors files, a piece at a time: written with their SHA-256 in one pass, and read without being in memory.

A file is eight bytes of length, a JSON header of that length, and the bytes of the arrays. A sealed file has one more
array at its end, `sha256`: the SHA-256 of all bytes before it, so that the file proves itself without another record.
No MLX here but for the arrays that are written.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import mlx.core as mx

SEAL = "sha256"
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes per number, by the name of a type in a file."""

_TYPES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "complex64": "C64", "float32": "F32", "int32": "I32",
    "uint32": "U32", "float16": "F16", "bfloat16": "BF16", "int16": "I16", "uint16": "U16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_PIECE = 1 << 20  # small enough to still be in the processor's cache when it is hashed after it was written
_LONGEST_HEADER = 100_000_000  # as the safetensors library has it


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where an array is in a file: its type as safetensors names it, its shape, and its bytes from `begin` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of a file says; the file is exactly as long as that."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Digests:
    """The SHA-256 of a whole file, and whether its seal is that of the bytes before it."""

    sha256: str
    seal_is_right: bool


def write(path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str], *, sealed: bool = False) -> str:
    """Write a file and return its SHA-256; it is not synced.

    The same arrays and metadata give the same bytes, in whatever order they come. Raises `OSError` where the disk does
    not take them, with part of the file written.
    """
    # the widest types first: every array is then aligned to its type, which readers in place need
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.size, name))
    places: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        begin, end = end, end + arrays[name].nbytes
        places[name] = _place(_TYPES[str(arrays[name].dtype).rpartition(".")[2]], arrays[name].shape, begin, end)
    if sealed:
        places[SEAL] = _place("U8", (hashlib.sha256().digest_size,), end, end + hashlib.sha256().digest_size)
    text = json.dumps(places, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        _put(file, digest, len(text).to_bytes(8, "little") + text)
        for name in order:
            _put(file, digest, _bytes(arrays[name]))
        if sealed:
            _put(file, digest, digest.digest())
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """The header of a file. Raises `ValueError` for what is no whole safetensors file, and `OSError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError("it has no whole header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ValueError("its header is no JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    metadata = header.pop("__metadata__", None) or {}  # MLX writes null where there is none
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no table of texts")
    tensors = {name: _tensor(name, said, 8 + length) for name, said in header.items()}
    ordered = sorted(tensors.values(), key=lambda tensor: (tensor.begin, tensor.end))
    ends = [8 + length, *(tensor.end for tensor in ordered)]
    if [tensor.begin for tensor in ordered] != ends[:-1] or ends[-1] != size:
        raise ValueError(f"it has {size:,} bytes, and its header says otherwise")
    return Header(metadata=metadata, tensors=tensors)


def digests(path: Path, header: Header) -> Digests:
    """Read a file through once, for its SHA-256 and its seal."""
    seal = header.tensors.get(SEAL)
    size = path.stat().st_size
    digest, said, due = hashlib.sha256(), b"", b""
    with path.open("rb") as file:
        for piece in _pieces(file, 0, seal.begin if seal else size):
            digest.update(piece)
        if seal is not None and seal.end == size:
            due = digest.digest()
            said = b"".join(_pieces(file, seal.begin, seal.end))
            digest.update(said)
    return Digests(sha256=digest.hexdigest(), seal_is_right=bool(due) and said == due)


def read_bytes(path: Path, tensor: Tensor) -> Iterator[bytes]:
    """The bytes of an array, in pieces. Raises `OSError`, also where the file has become shorter."""
    with path.open("rb") as file:
        yield from _pieces(file, tensor.begin, tensor.end)


def are_equal(path: Path, names: Mapping[str, str], other: Path) -> bool:
    """Whether arrays of one file, by their names in the other, are all that the other holds, bit for bit."""
    here, there = read_header(path).tensors, read_header(other).tensors
    if set(names.values()) != set(there):
        return False
    pairs = [(here[name], there[name_there]) for name, name_there in names.items()]
    if any((one.dtype, one.shape) != (two.dtype, two.shape) for one, two in pairs):
        return False
    return all(
        mine == its
        for one, two in pairs
        for mine, its in zip(read_bytes(path, one), read_bytes(other, two), strict=True)
    )


def _place(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _tensor(name: str, said: object, start: int) -> Tensor:
    match said:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
            whole = all(isinstance(each, int) and each >= 0 for each in shape)
            # of a type that is not known here the size cannot be checked
            if whole and (dtype not in SIZES or math.prod(shape) * SIZES[dtype] == end - begin):
                return Tensor(dtype=dtype, shape=tuple(shape), begin=start + begin, end=start + end)
    raise ValueError(f"its header says of {name!r} what cannot be")


def _bytes(value: mx.array) -> memoryview:
    import mlx.core as mx

    return memoryview(value.reshape(-1).view(mx.uint8))  # type: ignore[arg-type]  # it has the buffer protocol


def _put(file: BinaryIO, digest: hashlib._Hash, content: bytes | memoryview) -> None:
    view = memoryview(content)
    for start in range(0, len(view), _PIECE):
        rest = view[start : start + _PIECE]
        digest.update(rest)
        while rest:
            rest = rest[file.write(rest) :]  # a disk that is nearly full takes a part


def _pieces(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    file.seek(begin)
    while begin < end:
        piece = file.read(min(_PIECE, end - begin))
        if not piece:
            raise OSError("it has become shorter")
        begin += len(piece)
        yield piece
