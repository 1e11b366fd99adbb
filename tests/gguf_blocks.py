"""Packed numbers for the tests: by the `gguf` package where it can pack, else random blocks with a scale that fits."""

from __future__ import annotations

import gguf
import numpy

# Where in a block the scales in float16 stand, for packings that the package only unpacks.
_SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ1_S": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}

# All that the package unpacks, and float64.
PACKINGS = [
    *("F64", "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "IQ1_M"),
    *_SCALES,
]


def pack(numbers: numpy.ndarray, packing: str, generator: numpy.random.Generator) -> numpy.ndarray:
    """Rows of a packing in the shape of these numbers, as the bytes or numbers of a file."""
    if packing == "F64":
        return numbers.astype(numpy.float64)
    kind = gguf.GGMLQuantizationType[packing]
    if packing not in (*_SCALES, "IQ1_M", "NVFP4"):
        return gguf.quantize(numbers, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (len(numbers), numbers.shape[1] // block, size), dtype=numpy.uint8)
    if packing == "NVFP4":
        # Four bits of exponent and three of fraction, without a sign; near 1/8 here.
        blocks[..., :4] = generator.integers(0x10, 0x2C, blocks[..., :4].shape)
    elif packing == "IQ1_M":
        # The scale's bits are spread; this byte has the highest, so that it is near 1/100.
        blocks[..., 55] = blocks[..., 55] & 0x0F | 0x20
    else:
        scale = _fitting_scale(blocks, packing, kind)
        for at in _SCALES[packing]:
            scales = (scale * generator.uniform(0.5, 1.5, blocks.shape[:2])).astype(numpy.float16)
            blocks[..., at : at + 2] = scales[..., None].view(numpy.uint8)
    return blocks.reshape(len(numbers), -1)


def _fitting_scale(blocks: numpy.ndarray, packing: str, kind: gguf.GGMLQuantizationType) -> float:
    """The scale with which the numbers are as large as those of a model of this width."""
    ones = blocks.copy()
    for at in _SCALES[packing]:
        ones[..., at : at + 2] = numpy.float16(1).reshape(1).view(numpy.uint8)
    deviation = gguf.dequantize(ones.reshape(len(blocks), -1), kind).std()
    return float(1 / deviation / 16)


def unpacked(rows: numpy.ndarray, packing: str) -> numpy.ndarray:
    """The numbers of these rows, by the `gguf` package."""
    if packing == "F64":
        return rows.astype(numpy.float32)
    return gguf.dequantize(rows, gguf.GGMLQuantizationType[packing])
