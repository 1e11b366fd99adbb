"""What stands in a GGUF file before its numbers: the metadata, and the place, shape and packing of each tensor.

A model in several files is read as one. Nothing is believed unseen: a length is compared with what is left of the
file before it is used, so that a damaged file is an error and never a traceback or a full memory.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlxops import words
from mlxops.errors import BadRequest, NotFound

if TYPE_CHECKING:
    import numpy

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)

_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_MOST_DIMENSIONS = 4
_AGAIN = "get the file again; a download may have broken off"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor in a file: its shape as NumPy has it, rows first, and where its bytes are."""

    name: str
    packing: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int

    def rows(self) -> numpy.ndarray:
        """The bytes, a row each, as a view of the file: nothing is read before it is used."""
        import numpy

        count = self.shape[0] if len(self.shape) > 1 else 1
        return numpy.memmap(self.file, mode="r", offset=self.offset, shape=(count, self.size // count))


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """The metadata and the tensors of a model, by name and in their order."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def model_name(file: Path) -> str:
    """The name of the model in a file: without the suffix, and without the number where it is one of several."""
    match = _SHARD.fullmatch(file.stem)
    return match["stem"] if match else file.stem


def read_gguf(file: Path) -> GgufFile:
    """What is in a GGUF file, or in all files of the model that it is a part of.

    Raises `NotFound` naming the file that is missing, `BadRequest` for one that is damaged or of another kind.
    """
    read = [_read_one(each) for each in _all_shards(file)]
    tensors: dict[str, Tensor] = {}
    for number, part in enumerate(read):
        _check_place(file, part, number, len(read))
        if twice := tensors.keys() & part.tensors.keys():
            _damaged(file, f"the tensor {min(twice)!r} is in two of its parts")
        tensors.update(part.tensors)
    declared = read[0].metadata.get("split.tensors.count", len(tensors))
    if declared != len(tensors):
        _damaged(file, f"it has {len(tensors)} tensors where it says {declared!r}")
    return GgufFile(metadata=read[0].metadata, tensors=tensors)


def _check_place(file: Path, part: GgufFile, number: int, count: int) -> None:
    """A file that was renamed is not taken for another part of the model."""
    place, declared = part.metadata.get("split.no", number), part.metadata.get("split.count", count)
    if declared != count and (count, declared) != (1, 0):
        raise BadRequest(
            f"{file.name!r} is one of {declared!r} files and not named so",
            hint=f"such files are named {model_name(file)}-00001-of-0000N.gguf",
        )
    if place != number:
        _damaged(file, f"the file named as part {number + 1} says that it is another")


def _all_shards(file: Path) -> list[Path]:
    match = _SHARD.fullmatch(file.stem)
    if match is None:
        return [file]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count:
        raise BadRequest(f"{str(file)!r} cannot be one of {count} files", hint="give it the name that it came with")
    files = [
        file.with_name(f"{match['stem']}-{number:05}-of-{count:05}{file.suffix}") for number in range(1, count + 1)
    ]
    missing = [each.name for each in files if not each.is_file()]
    if missing and file.is_file():
        are = "are" if len(missing) > 1 else "is"
        raise NotFound(
            f"of the {count} files of this model {words.listed(missing, 3)} {are} missing",
            hint=f"all of them go into {str(file.parent)!r}",
        )
    return files if file.is_file() else [file]


def _read_one(file: Path) -> GgufFile:
    if not file.is_file():
        raise NotFound(f"no file {str(file)!r}", hint="name a file that ends in .gguf")
    try:
        stream = file.open("rb")
    except OSError as error:
        raise BadRequest(f"{str(file)!r} cannot be read: {error.strerror}", hint="may you read it?") from error
    with stream:
        if stream.read(4) != b"GGUF":
            raise BadRequest(f"{str(file)!r} is not a GGUF file", hint="name a file that ends in .gguf")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            header = _Header(file, content)
            version, tensors, pairs = header.start()
            if version not in _VERSIONS:
                byte_order = " (or its bytes are in the other order)" if version & 0xFFFF == 0 else ""
                raise BadRequest(
                    f"{str(file)!r} is GGUF of version {version}{byte_order}; 2 and 3 can be read",
                    hint="get a newer file of this model",
                )
            metadata = header.metadata(pairs)
            return GgufFile(metadata=metadata, tensors=header.tensors(tensors, metadata))


class _Header:
    """The header of one file, read from its beginning on."""

    def __init__(self, file: Path, content: mmap.mmap) -> None:
        self._file = file
        self._content = content
        self._at = 4

    def start(self) -> tuple[int, int, int]:
        return self._number("I"), self._number("Q"), self._number("Q")

    def metadata(self, pairs: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._name()
            if key in found:
                _damaged(self._file, f"the key {key!r} is there twice")
            found[key] = self._value(self._number("I"))
        return found

    def tensors(self, count: int, metadata: Mapping[str, Any]) -> dict[str, Tensor]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        rows = [(self._name(), self._shape(), self._number("I"), self._number("Q")) for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            _damaged(self._file, f"tensors are aligned by {alignment!r}")
        start = _padded(self._at, alignment)
        found: dict[str, Tensor] = {}
        end = 0
        for name, shape, kind, offset in rows:
            if name in found:
                _damaged(self._file, f"the tensor {name!r} is there twice")
            # As in the format's own reader: one tensor after the other, so none can lie on another.
            if offset != _padded(end, alignment):
                _damaged(self._file, f"the tensor {name!r} is not where the one before it ends")
            try:
                packing = GGMLQuantizationType(kind)
            except ValueError:
                raise BadRequest(
                    f"{name} is packed in a way that is not known (number {kind})",
                    hint="get a file packed otherwise; pip install -U gguf may bring it",
                ) from None
            block, block_size = GGML_QUANT_SIZES[packing]
            if shape[-1] % block:
                _damaged(self._file, f"rows of {shape[-1]} numbers cannot be {packing.name} ({name})")
            size = math.prod(shape) // block * block_size
            end = offset + size
            if start + end > len(self._content):
                _damaged(self._file, f"it ends within the tensor {name!r}")
            found[name] = Tensor(
                name=name, packing=packing.name, shape=shape, file=self._file, offset=start + offset, size=size
            )
        return found

    def _shape(self) -> tuple[int, ...]:
        count = self._number("I")
        if not 1 <= count <= _MOST_DIMENSIONS:
            _damaged(self._file, f"a tensor has {count} dimensions")
        shape = tuple(self._number("Q") for _ in range(count))[::-1]
        # The innermost dimension comes first in the file; a row's own length counts even where it is the only one.
        if not all(1 <= length < 1 << 40 for length in shape):
            _damaged(self._file, f"a tensor has the shape {shape}")
        return shape

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(self._number("I"), self._number("Q"))
        if kind not in _SCALARS:
            _damaged(self._file, f"a value is of the kind {kind}")
        number = self._number(_SCALARS[kind])
        return bool(number) if kind == _BOOL else number

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            return [self._text() for _ in range(count)]
        if kind not in _SCALARS:
            _damaged(self._file, f"a list holds values of the kind {kind}")
        form = _SCALARS[kind]
        values = list(struct.unpack(f"<{count}{form}", self._bytes(count * struct.calcsize(f"<{form}"))))
        return [bool(value) for value in values] if kind == _BOOL else values

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _name(self) -> str:
        name = self._text()
        if not name.isprintable():
            _damaged(self._file, f"it has the name {name[:40]!r}")
        return name

    def _text(self) -> str:
        try:
            return self._bytes(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            _damaged(self._file, "a text in it is not UTF-8")

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            _damaged(self._file, "it ends within its header")
        self._at += count
        return self._content[self._at - count : self._at]


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _damaged(file: Path, reason: str) -> NoReturn:
    raise BadRequest(f"{str(file)!r} is damaged: {reason}", hint=_AGAIN)
