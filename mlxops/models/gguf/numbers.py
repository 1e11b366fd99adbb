"""The numbers of a GGUF file: unpacked, or packed as MLX packs them where that holds exactly the same values.

MLX's affine packing is a whole number times a scale plus a bias, a pair a group of 32: the packings of 4, 5 and 8 bits
are that already. In Q4_K and Q5_K the scale of a group is itself a product, which float16 would round and float32
holds. Packings with groups of 16 or with a table of values have no counterpart. All else is unpacked by `gguf`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlxops.errors import BadRequest

if TYPE_CHECKING:
    import numpy

Dtype = Literal["float32", "float16", "bfloat16"]
Parts = tuple["numpy.ndarray", ...]

PLAIN = ("F64", "F32", "F16", "BF16")
SAFETENSORS: Mapping[Dtype, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_NOT_FINITE = "holds numbers that are not finite"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A packing of MLX's that holds one of GGUF's exactly: how it is told to MLX, and how its parts are made.

    `repack` makes the whole numbers, the scales and, where `mode` is affine, the biases of rows of blocks.
    """

    bits: int
    group: int
    mode: Literal["affine", "mxfp4", "nvfp4"]
    scales: Literal["F16", "F32", "U8"]
    repack: Callable[[numpy.ndarray], Parts]

    @property
    def quantization(self) -> dict[str, int | str]:
        """The entry in config.json."""
        entry: dict[str, int | str] = {"group_size": self.group, "bits": self.bits}
        return entry if self.mode == "affine" else {**entry, "mode": self.mode}


def can_unpack(packing: str) -> bool:
    """Whether numbers of this packing can be read."""
    import gguf
    import numpy

    if packing in PLAIN:
        return True
    kind = gguf.GGMLQuantizationType[packing]
    try:
        gguf.dequantize(numpy.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), numpy.uint8), kind)
    except NotImplementedError:
        return False
    return True


def unpack(packing: str, rows: numpy.ndarray, name: str) -> numpy.ndarray:
    """Rows of bytes as float32. Raises `BadRequest` naming the tensor if one of its numbers is none."""
    import gguf
    import numpy

    with numpy.errstate(all="ignore"):
        if packing == "F64":
            numbers = rows.view(numpy.float64).astype(numpy.float32)
        else:
            numbers = gguf.dequantize(rows, gguf.GGMLQuantizationType[packing])
    if not numpy.isfinite(numbers).all():
        raise BadRequest(f"this GGUF file is damaged: {name} {_NOT_FINITE}", hint="get the file again")
    return numbers


def rounded(numbers: numpy.ndarray, dtype: Dtype, name: str) -> numpy.ndarray:
    """Float32 in another dtype, as the bytes of a file. Raises `BadRequest` where a number is too large for float16."""
    import gguf
    import numpy

    if dtype == "float32":
        return numbers
    if dtype == "bfloat16":
        # NumPy has no such type: these are its bytes.
        return gguf.quantize(numpy.ascontiguousarray(numbers), gguf.GGMLQuantizationType.BF16)
    with numpy.errstate(over="ignore"):
        half = numbers.astype(numpy.float16)
    if not numpy.isfinite(half).all():
        largest = float(numpy.abs(numbers).max())
        raise BadRequest(
            f"{name} holds {largest:.6g}, too large for float16", hint="`--dtype bfloat16` has room for it"
        )
    return half


def repack(packing: str, rows: numpy.ndarray, name: str) -> Parts:
    """Rows of bytes packed as MLX packs them: weight, scales and, if affine, biases; the values are the same.

    Raises `BadRequest` naming the tensor if a scale is not finite or has no counterpart.
    """
    import numpy

    with numpy.errstate(all="ignore"):
        weight, *others = KEPT[packing].repack(rows.reshape(len(rows), -1, _block_size(packing)))
    # 255 and, of four bits of exponent, 127 stand for no number; GGUF's own reading of them is another than MLX's.
    highest = {"mxfp4": 254, "nvfp4": 126}.get(KEPT[packing].mode)
    fits = all(numpy.isfinite(part).all() for part in others) if highest is None else others[0].max() <= highest
    if not fits:
        raise BadRequest(f"{name} has a scale that cannot be kept packed", hint="`--dtype float32` unpacks it")
    return (weight, *others)


def _block_size(packing: str) -> int:
    import gguf

    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[packing]][1])


def _q4_0(blocks: numpy.ndarray) -> Parts:
    scales = _half(blocks[..., :2])
    return _packed(_nibbles(blocks[..., 2:]), 4), scales, scales * -8


def _q4_1(blocks: numpy.ndarray) -> Parts:
    return _packed(_nibbles(blocks[..., 4:]), 4), _half(blocks[..., :2]), _half(blocks[..., 2:4])


def _q5_0(blocks: numpy.ndarray) -> Parts:
    scales = _half(blocks[..., :2])
    return _packed(_with_fifth_bit(blocks[..., 2:6], blocks[..., 6:]), 5), scales, scales * -16


def _q5_1(blocks: numpy.ndarray) -> Parts:
    codes = _with_fifth_bit(blocks[..., 4:8], blocks[..., 8:])
    return _packed(codes, 5), _half(blocks[..., :2]), _half(blocks[..., 2:4])


def _q8_0(blocks: numpy.ndarray) -> Parts:
    scales = _half(blocks[..., :2])
    # Signed numbers from -128 become unsigned ones from 0.
    return _packed(blocks[..., 2:] ^ 0x80, 8), scales, scales * -128


def _q4_k(blocks: numpy.ndarray) -> Parts:
    scales, biases = _scales_of_k(blocks)
    return _packed(_nibbles(_in_parts(blocks[..., 16:], 32)), 4), scales, biases


def _q5_k(blocks: numpy.ndarray) -> Parts:
    import numpy

    scales, biases = _scales_of_k(blocks)
    low = _nibbles(_in_parts(blocks[..., 48:], 32)).reshape(*blocks.shape[:2], 8, 32)
    # Bit n of a byte belongs to group n.
    high = (blocks[..., None, 16:48] >> numpy.arange(8, dtype=numpy.uint8)[:, None]) & 1
    return _packed(low | high << 4, 5), scales, biases


def _mxfp4(blocks: numpy.ndarray) -> Parts:
    return _packed(_nibbles(blocks[..., 1:]), 4), blocks[..., 0]


def _nvfp4(blocks: numpy.ndarray) -> Parts:
    return _packed(_nibbles(_in_parts(blocks[..., 4:], 8)), 4), blocks[..., :4].reshape(len(blocks), -1)


def _scales_of_k(blocks: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Scales and biases of the eight groups of a block: whole numbers of 6 bits in 12 bytes, times two factors.

    Of the last four groups the upper two bits are in the bytes of the first four.
    """
    import numpy

    factor, least = (_half(blocks[..., at : at + 2]).astype(numpy.float32)[..., None] for at in (0, 2))
    first, second, third = (blocks[..., at : at + 4] for at in (4, 8, 12))
    scales = numpy.concatenate([first & 0x3F, third & 0x0F | first >> 6 << 4], axis=-1)
    minima = numpy.concatenate([second & 0x3F, third >> 4 | second >> 6 << 4], axis=-1)
    return tuple((part.reshape(len(blocks), -1)) for part in (factor * scales, -(least * minima)))


def _half(pair: numpy.ndarray) -> numpy.ndarray:
    import numpy

    return numpy.ascontiguousarray(pair).view(numpy.float16)[..., 0]


def _in_parts(blocks: numpy.ndarray, length: int) -> numpy.ndarray:
    return blocks.reshape(*blocks.shape[:-1], -1, length)


def _nibbles(parts: numpy.ndarray) -> numpy.ndarray:
    """The lower halves of the bytes, then the upper ones."""
    import numpy

    return numpy.concatenate([parts & 0x0F, parts >> 4], axis=-1)


def _with_fifth_bit(high: numpy.ndarray, low: numpy.ndarray) -> numpy.ndarray:
    import numpy

    return _nibbles(low) | numpy.unpackbits(high, axis=-1, bitorder="little") << 4


def _packed(codes: numpy.ndarray, bits: int) -> numpy.ndarray:
    """Whole numbers bit after bit, the lowest first, as MLX reads them: eight of them fill as many bytes as bits."""
    import numpy

    eights = codes.reshape(len(codes), -1, 8)
    together = numpy.zeros(eights.shape[:-1], "<u8")
    for place in range(8):
        together |= eights[..., place].astype("<u8") << (bits * place)
    return (
        numpy.ascontiguousarray(together[..., None].view(numpy.uint8)[..., :bits]).reshape(len(codes), -1).view("<u4")
    )


KEPT: Mapping[str, Kept] = {
    "Q4_0": Kept(bits=4, group=32, mode="affine", scales="F16", repack=_q4_0),
    "Q4_1": Kept(bits=4, group=32, mode="affine", scales="F16", repack=_q4_1),
    "Q5_0": Kept(bits=5, group=32, mode="affine", scales="F16", repack=_q5_0),
    "Q5_1": Kept(bits=5, group=32, mode="affine", scales="F16", repack=_q5_1),
    "Q8_0": Kept(bits=8, group=32, mode="affine", scales="F16", repack=_q8_0),
    "Q4_K": Kept(bits=4, group=32, mode="affine", scales="F32", repack=_q4_k),
    "Q5_K": Kept(bits=5, group=32, mode="affine", scales="F32", repack=_q5_k),
    "MXFP4": Kept(bits=4, group=32, mode="mxfp4", scales="U8", repack=_mxfp4),
    "NVFP4": Kept(bits=4, group=16, mode="nvfp4", scales="U8", repack=_nvfp4),
}
