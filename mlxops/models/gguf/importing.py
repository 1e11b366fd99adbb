"""GGUF files into model folders: everything is checked from the header, then tensor after tensor is written.

Reading a file, the architectures, the packings and the tokenizers have modules of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxops.errors import BadRequest
from mlxops.models.folders import ModelInfo, check_model
from mlxops.models.gguf import architectures
from mlxops.models.gguf import tokenizer as gguf_tokenizer
from mlxops.models.gguf.architectures import Layout
from mlxops.models.gguf.file import Tensor, read_gguf
from mlxops.models.gguf.numbers import KEPT, PLAIN, SAFETENSORS, Dtype, can_unpack, repack, rounded, unpack
from mlxops.models.model_files import new_folder, refuse_existing, write_json, write_tokenizer
from mlxops.models.weight_files import MOST_BYTES_A_FILE, Weight, WeightFiles, check_room, open_weights

if TYPE_CHECKING:
    import numpy

# So many numbers are unpacked at a time: some tens of megabytes, whatever the size of the model.
_AT_ONCE = 1 << 22

_PARTS = ("weight", "scales", "biases")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The model in its folder, and what a person should know of how it came there."""

    info: ModelInfo
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A tensor, where it goes, and the dtype it is unpacked to; None leaves it packed."""

    tensor: Tensor
    layout: Layout
    dtype: Dtype | None


def import_gguf(
    source: Path,
    target: Path,
    *,
    dtype: Dtype | Literal["keep"],
    progress: Callable[[int, int], None] | None = None,
    most_bytes: int = MOST_BYTES_A_FILE,
) -> Imported:
    """Make a model folder of a GGUF file; `target` is there whole afterwards, or not at all.

    `keep` leaves packed numbers packed where MLX holds the same values; any other dtype unpacks them. `progress` is
    told the tensors done and their number; a weight file gets at most `most_bytes`. Raises `BadRequest` for what
    cannot be read or would compute something else, naming it, `Refused` if `target` is there already, and `Failed`
    if the disk has no room.
    """
    refuse_existing(target)
    file = read_gguf(source)
    model = architectures.describe(file)
    tokenizer = gguf_tokenizer.rebuild(file.metadata)
    _check_packings(file.tensors.values())
    plain = _plain_dtype(file.tensors.values()) if dtype == "keep" else dtype
    moves = [
        _Move(tensor=file.tensors[old], layout=layout, dtype=_dtype_of(file.tensors[old], layout, dtype, plain))
        for old, layout in model.layouts.items()
    ]
    weights = [weight for move in moves for weight in _weights(move)]
    check_room(target.parent, weights)
    config: dict[str, Any] = {**model.config, "torch_dtype": plain, **tokenizer.ids}
    if packed := {_module(move): move.tensor.packing for move in moves if move.dtype is None}:
        config["quantization"] = _quantization(packed)
    with new_folder(target) as filling:
        with open_weights(filling, weights, most_bytes=most_bytes) as files:
            for done, move in enumerate(moves, start=1):
                _write(move, files)
                if progress is not None:
                    progress(done, len(moves))
        write_json(filling / "config.json", config)
        write_tokenizer(
            filling,
            tokenizer.tokenizer,
            special_tokens=tokenizer.special_tokens,
            chat_template=tokenizer.chat_template,
            context_length=config["max_position_embeddings"],
        )
        info = check_model(filling)
    notes = _notes_on_packing(moves, plain) if dtype == "keep" else []
    return Imported(info=info, notes=(*model.notes, *notes))


def _check_packings(tensors: Iterable[Tensor]) -> None:
    unknown = sorted({tensor.packing for tensor in tensors if not can_unpack(tensor.packing)})
    if unknown:
        name = next(tensor.name for tensor in tensors if tensor.packing == unknown[0])
        raise BadRequest(
            f"this GGUF file cannot be imported: {name} is packed as {unknown[0]}, which cannot be unpacked here",
            hint="get a file of this model that is packed otherwise, such as Q8_0 or Q4_K_M",
        )


def _plain_dtype(tensors: Iterable[Tensor]) -> Dtype:
    """What is not kept packed becomes of one dtype: that of the file's own unpacked matrices, else float16."""
    packings = {tensor.packing for tensor in tensors}
    if packings <= {"F32", "F64"}:
        return "float32"
    return "bfloat16" if "BF16" in packings and "F16" not in packings else "float16"


def _dtype_of(tensor: Tensor, layout: Layout, dtype: str, plain: Dtype) -> Dtype | None:
    """Only matrices stay packed: MLX has no packed norms and biases."""
    stays = dtype == "keep" and tensor.packing in KEPT and len(layout.shape) == 2
    return None if stays else plain


def _weights(move: _Move) -> Iterator[Weight]:
    """The arrays that a tensor becomes."""
    if move.dtype is not None:
        yield Weight(name=move.layout.name, dtype=SAFETENSORS[move.dtype], shape=move.layout.shape)
        return
    kept = KEPT[move.tensor.packing]
    rows, columns = move.layout.shape
    yield Weight(name=f"{_module(move)}.weight", dtype="U32", shape=(rows, columns * kept.bits // 32))
    for part in _PARTS[1:] if kept.mode == "affine" else _PARTS[1:2]:
        yield Weight(name=f"{_module(move)}.{part}", dtype=kept.scales, shape=(rows, columns // kept.group))


def _module(move: _Move) -> str:
    return move.layout.name.removesuffix(".weight")


def _write(move: _Move, files: WeightFiles) -> None:
    tensor, layout = move.tensor, move.layout
    rows, order = tensor.rows(), _order(layout)
    if len(layout.shape) == 1:
        numbers = unpack(tensor.packing, rows, tensor.name)[:, order]
        files.write(layout.name, 0, rounded(numbers - layout.shift, move.dtype or "float32", tensor.name))
        return
    count = max(1, _AT_ONCE // layout.shape[1])
    for first in range(0, len(order), count):
        # A row is a whole number of blocks in every packing, so their order changes nothing inside them.
        some = rows[order[first : first + count]]
        if move.dtype is None:
            for part, array in zip(_PARTS, repack(tensor.packing, some, tensor.name), strict=False):
                files.write(f"{_module(move)}.{part}", first, array)
        else:
            numbers = unpack(tensor.packing, some, tensor.name)
            files.write(layout.name, first, rounded(numbers, move.dtype, tensor.name))


def _order(layout: Layout) -> numpy.ndarray:
    """Which row of the file is each of mlx-lm's: GGUF puts the halves of a head, which are rotated together, in turns.

    Of a vector it is which number.
    """
    import numpy

    order = numpy.arange(layout.shape[0])
    if layout.interleaved_heads is None:
        return order
    return order.reshape(layout.interleaved_heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _quantization(packings: Mapping[str, str]) -> dict[str, Any]:
    """The packing of most matrices, and by name that of the others."""
    entries = {name: KEPT[packing].quantization for name, packing in packings.items()}
    most = Counter(tuple(entry.items()) for entry in entries.values()).most_common(1)[0][0]
    return {**dict(most), **{name: entry for name, entry in entries.items() if tuple(entry.items()) != most}}


def _notes_on_packing(moves: Iterable[_Move], plain: Dtype) -> list[str]:
    """How many tensors stayed packed, and how many could not, by their packing."""
    kept = Counter(move.tensor.packing for move in moves if move.dtype is None)
    unpacked = Counter(move.tensor.packing for move in moves if move.dtype and move.tensor.packing not in PLAIN)
    notes = [f"kept packed: {_counted(kept)}"] if kept else []
    return [*notes, f"unpacked to {plain}: {_counted(unpacked)}, which MLX cannot hold"] if unpacked else notes


def _counted(packings: Counter[str]) -> str:
    return ", ".join(f"{count} {packing}" for packing, count in packings.most_common())
