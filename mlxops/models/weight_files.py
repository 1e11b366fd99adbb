"""Writing weights a part at a time: safetensors files whose headers are known before their numbers.

The safetensors library wants all arrays of a file in memory at once; here only what is being written has to be there.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlxops import words
from mlxops.errors import Failed

if TYPE_CHECKING:
    import numpy

MOST_BYTES_A_FILE = 5_000_000_000

_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "U8": 1}

# How the safetensors library speaks of an error of the system.
_OF_THE_SYSTEM = re.compile(r"I/O error: (.+) \(os error \d+\)")

# Beside the weights: the tokenizer, and what the file system needs for itself.
_OTHER_FILES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Weight:
    """An array to be written: its name, its type as safetensors calls it, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in a file."""
        return math.prod(self.shape) * _BYTES[self.dtype]


@dataclass(frozen=True)
class WeightFiles:
    """The open files, and where in them each array begins."""

    places: Mapping[str, tuple[BinaryIO, int, Weight]]

    def write(self, name: str, first_row: int, rows: numpy.ndarray) -> None:
        """Write rows of an array from one of its rows on."""
        file, start, weight = self.places[name]
        row_bytes = weight.bytes // (weight.shape[0] if len(weight.shape) > 1 else 1)
        with disk_errors():
            file.seek(start + first_row * row_bytes)
            file.write(rows.tobytes())
            file.flush()


def check_room(folder: Path, weights: Sequence[Weight]) -> None:
    """Raise `Failed` if the disk that a folder is on, or will be, has no room for the weights."""
    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    needed, free = sum(weight.bytes for weight in weights) + _OTHER_FILES, shutil.disk_usage(there).free
    if needed > free:
        raise Failed(
            f"the model needs {words.size(needed)} of disk, and {str(there)!r} has {words.size(free)} free",
            hint="`--dtype keep` or float16 takes less, `--output` takes another disk",
        )


@contextmanager
def open_weights(
    folder: Path, weights: Sequence[Weight], *, most_bytes: int = MOST_BYTES_A_FILE
) -> Iterator[WeightFiles]:
    """Files for the weights, to be filled in any order; of more than one there is an index, as mlx-lm writes it.

    A file holds at most so many bytes, or one larger array.
    """
    groups = _groups(weights, most_bytes)
    names = [_file_name(number, len(groups)) for number in range(1, len(groups) + 1)]
    places: dict[str, tuple[BinaryIO, int, Weight]] = {}
    with ExitStack() as stack:
        with disk_errors():
            for name, group in zip(names, groups, strict=True):
                file = stack.enter_context((folder / name).open("w+b"))
                places.update(_write_header(file, group))
            if len(groups) > 1:
                _write_index(folder, names, groups)
        yield WeightFiles(places)


def _groups(weights: Sequence[Weight], most_bytes: int) -> list[list[Weight]]:
    groups: list[list[Weight]] = [[]]
    filled = 0
    for weight in weights:
        if groups[-1] and filled + weight.bytes > most_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(weight)
        filled += weight.bytes
    return groups


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _write_header(file: BinaryIO, weights: Sequence[Weight]) -> dict[str, tuple[BinaryIO, int, Weight]]:
    """Write the header and make the file as long as it will be; where each array begins."""
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    starts, end = {}, 0
    # The widest types first: so each array is aligned to its own type, which readers in place need.
    for weight in sorted(weights, key=lambda weight: -_BYTES[weight.dtype]):
        starts[weight.name], end = end, end + weight.bytes
        header[weight.name] = {
            "dtype": weight.dtype,
            "shape": list(weight.shape),
            "data_offsets": [starts[weight.name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    begin = 8 + len(text)
    file.truncate(begin + end)
    return {weight.name: (file, begin + starts[weight.name], weight) for weight in weights}


def _write_index(folder: Path, names: Sequence[str], groups: Sequence[Sequence[Weight]]) -> None:
    where = {weight.name: name for name, group in zip(names, groups, strict=True) for weight in group}
    total = sum(weight.bytes for group in groups for weight in group)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


@contextmanager
def disk_errors() -> Iterator[None]:
    """A disk that is full or fails is no bug."""
    from safetensors import SafetensorError

    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads what is said meanwhile: of the disk it tells nothing
    except OSError as error:
        raise _not_written(error.strerror or str(error)) from error
    except SafetensorError as error:
        # This class is for all that the library objects to.
        if found := _OF_THE_SYSTEM.search(str(error)):
            raise _not_written(found[1]) from error
        raise


def _not_written(reason: str) -> Failed:
    return Failed(f"the model could not be written: {reason}", hint="is the disk full, or ulimit -f set?")
