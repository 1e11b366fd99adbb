"""The headers of a model's weight files: which arrays there are, before any number is read."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mlxops import files, words
from mlxops.errors import BadRequest
from mlxops.models.folder_files import AGAIN, check_file, is_pickle, opened, read_json

INDEX = "model.safetensors.index.json"

_LAYER_IN_NAME = re.compile(r"\.(?:layers|blocks|h)\.(\d+)\.")
_SHARD = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\.safetensors)")
# A model that also sees or hears has embeddings of these, too.
_TOKEN_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|tok_embeddings|token_embeddings|word_embeddings|embed_in|tokens_embed|"
    r"embeddings?|embed)\.weight"
)
_NOT_OF_TEXT = re.compile(r"vision|visual|audio|image|speech|position")
_POSITION_EMBEDDING = re.compile(r"(?:^|\.)wpe\.weight")

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LONGEST_HEADER = 100_000_000  # as in the safetensors library


class Tensor(NamedTuple):
    """An array in a weight file: its type as safetensors calls it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


Tensors = Mapping[str, Tensor]
Kinds = list[tuple[Tensor, int]]
"""Tensors, and how many arrays of a model each of them stands for."""


def weight_files(folder: Path) -> list[Path]:
    """The weight files that mlx-lm loads."""
    return sorted(folder.glob("model*.safetensors"))


def read_headers(folder: Path) -> Tensors:
    """Each array by its name, from all weight files, each of which is as long as it says.

    Raises `BadRequest` for missing, damaged and pickled files, and for what only stands in for a file.
    """
    _check_index(folder)
    files = weight_files(folder)
    if not files:
        raise _no_weights(folder)
    _check_shards(folder, files)
    if len(files) == 1:
        return _read_header(files[0])
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read_header(file))
    return tensors


def embedding_rows(tensors: Tensors) -> int | None:
    """How many token ids the embedding has rows for; None where no array has the name of one."""
    rows = [
        tensor.shape[0]
        for name, tensor in tensors.items()
        # the two words are in all the names there are, and save most of the searches
        if ("emb" in name or "wte" in name)
        and len(tensor.shape) == 2
        and _TOKEN_EMBEDDING.search(name)
        and not _NOT_OF_TEXT.search(name)
    ]
    return max(rows, default=None)


def learned_positions(tensors: Tensors) -> int | None:
    """For how many positions a model has learned embeddings; None where positions are computed."""
    names = [name for name in tensors if name.endswith("wpe.weight")]
    return next((tensors[name].shape[0] for name in names if _POSITION_EMBEDDING.search(name)), None)


def count_layers(tensors: Tensors) -> int:
    """The number of layers, from the names of their arrays."""
    found = [int(match[1]) for name in tensors if (match := _LAYER_IN_NAME.search(name))]
    return max(found, default=-1) + 1


def count_alike(tensors: Tensors) -> Kinds:
    """The tensors that there are: most arrays of a model are as others of it."""
    values = tensors.values()
    by_id = dict(zip(map(id, values), values, strict=True))  # hashing shapes takes longer
    return [(by_id[each], number) for each, number in Counter(map(id, values)).items()]


def count_parameters(tensors: Tensors, kinds: Kinds, quantization: Mapping[str, Any]) -> int:
    """The numbers the model computes with: of a packed matrix its unpacked ones, without scales and biases."""
    if all(tensor.dtype in _FLOATS for tensor, _ in kinds):  # nothing is packed
        return sum(number * tensor.size for tensor, number in kinds)
    count = 0
    for name, tensor in tensors.items():
        stem = name.rpartition(".")[0]
        if f"{stem}.scales" in tensors:
            own = quantization.get(stem)
            group = (own if isinstance(own, dict) else quantization).get("group_size")
            count += tensor.size * (group if isinstance(group, int) else 64) if name.endswith(".scales") else 0
            count += tensor.size if name.endswith(".bias") else 0
        else:
            count += tensor.size
    return count


def main_dtype(kinds: Kinds) -> str:
    """The type of most of the unpacked numbers."""
    sizes: Counter[str] = Counter()
    for tensor, number in kinds:
        if dtype := _FLOATS.get(tensor.dtype):
            sizes[dtype] += number * tensor.size
    return sizes.most_common(1)[0][0] if sizes else "unknown"


def _check_index(folder: Path) -> None:
    if not (folder / INDEX).is_file():
        return
    places = read_json(folder / INDEX).get("weight_map", {})
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise BadRequest(f"{folder / INDEX}: weight_map does not name the files of the weights", hint=AGAIN)
    named = set(places.values())
    _refuse_missing(folder, {name for name in named if not (folder / name).is_file()}, len(named))


def _check_shards(folder: Path, files: list[Path]) -> None:
    """Refuse a folder that lacks some of the files that the others' names count; the index may be missing, too."""
    there = {file.name for file in files}
    wanted: set[str] = set()
    for match in filter(None, map(_SHARD.fullmatch, there)):
        begin, number, of, count, end = match.groups()
        if int(count) <= 10_000:  # a name with another number is no shard's
            wanted |= {f"{begin}{each:0{len(number)}}{of}{count}{end}" for each in range(1, int(count) + 1)}
    _refuse_missing(folder, wanted - there, len(wanted))


def _refuse_missing(folder: Path, missing: set[str], of: int) -> None:
    for name in sorted(missing):
        if (folder / name).is_symlink():
            check_file(folder / name)
    if missing:
        shown = words.listed(sorted(missing), 3)
        raise BadRequest(f"{str(folder)!r} lacks {len(missing)} of {of} weight files: {shown}", hint=AGAIN)


def _no_weights(folder: Path) -> BadRequest:
    kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.npz", "*.gguf")
    others = [file.name for file in files.matching(folder, *kinds)]
    having = f", only {', '.join(others[:3])}{', …' if len(others) > 3 else ''}" if others else ""
    if any(name.endswith(".gguf") for name in others):
        hint = "`inv model.import` makes a model folder of a GGUF file"
    elif any(name.endswith(".safetensors") for name in others):
        hint = "`mlx_lm.convert` makes a model folder of other safetensors files"
    elif others:
        hint = "pickled weights can run code and are never read: get the model as safetensors"
    else:
        hint = "get the model again"
    return BadRequest(f"{str(folder)!r} has no weights (model*.safetensors){having}", hint=hint)


def _read_header(file: Path) -> Tensors:
    """The header of a safetensors file: eight bytes of length, then JSON, then the arrays."""
    with opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(file)
        text = stream.read(length)
    try:
        tensors, end = _parse_header(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _damaged(file) from None
    if size != 8 + length + end:
        raise BadRequest(f"{file} has {size:,} bytes where its header says {8 + length + end:,}", hint=AGAIN)
    return tensors


# Models that were trained from one base have the same header, and a list of models reads all of them.
@functools.lru_cache(maxsize=8)
def _parse_header(text: bytes) -> tuple[Tensors, int]:
    """The arrays of a header, those alike as one tensor, and where the last one ends."""
    header = json.loads(text)
    header.pop("__metadata__", None)
    made: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    tensors = {}
    offsets: list[int] = []
    for name, each in header.items():
        kind = each["dtype"], tuple(each["shape"])
        if (tensor := made.get(kind)) is None:
            tensor = made[kind] = Tensor(*kind)
        tensors[name] = tensor
        begin, end = each["data_offsets"]
        offsets += (begin, end)
    _check_whole(chain.from_iterable(shape for _, shape in made))
    _check_whole(offsets)
    return MappingProxyType(tensors), max(offsets[1::2], default=0)


def _damaged(file: Path) -> BadRequest:
    # asked only now: the length of a whole header can look like the beginning of a pickle
    if is_pickle(file):
        return BadRequest(
            f"{file} holds pickled weights under the name of safetensors",
            hint="pickled weights can run code and are never read: get the model as safetensors",
        )
    return BadRequest(f"{file} is damaged", hint=AGAIN)


def _check_whole(numbers: Iterable[Any]) -> None:
    """Raise `ValueError` for anything but whole numbers that are not negative."""
    values = list(numbers)
    if not {*map(type, values)} <= {int} or min(values, default=0) < 0:
        raise ValueError
