"""How a kernel is cut: output vectors and pixels held in registers, and which loop stands outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from projects.fp16_cnn import cpu
from projects.fp16_cnn.packing import padded
from projects.fp16_cnn.precision import Precision
from projects.fp16_cnn.shape import LayerShape

Order = Literal["panels", "pixels"]


@dataclass(frozen=True)
class Blocking:
    """A tile of a convolution: `vectors` x `pixels` sums live in registers.

    Attributes:
        vectors: of output channels (NB); each input that is loaded serves all of them. Depthwise: rows of outputs.
        pixels: at most (T); each weight that is loaded and converted serves all of them.
        order: what the outer loop walks: "panels" keeps weights in cache, "pixels" keeps inputs.
    """

    vectors: int
    pixels: int
    order: Order = "panels"


def lanes(shape: LayerShape, precision: Precision) -> int:
    """Numbers in a vector of sums: fp16 arithmetic holds twice as many, if the layer has as many channels."""
    wide = precision.multiplies == "float16" and not precision.emulated
    return min(32, padded(shape.out_channels)) if wide else 16


def registers() -> int:
    """Sums that fit beside the operands: 32 registers of 512 bits, or 16 of 256 of which a vector takes two."""
    return 28 if cpu.has("avx512f") else 6


def default(shape: LayerShape, precision: Precision) -> Blocking:
    """A good blocking without measuring: one vector and 14 pixels, more vectors where pixels are few."""
    room = registers()
    if shape.groups == shape.in_channels == shape.out_channels:
        return Blocking(2 if shape.out_height > 1 and room > 6 else 1, 7 if room > 6 else 4, "pixels")
    positions = shape.batch * shape.out_height * shape.out_width
    panels = -(-padded(shape.out_channels) // lanes(shape, precision))
    if positions >= 14:
        return Blocking(1, min(14, room))
    pixels = min(positions, room)
    most = max(1, min(8 if pixels == 1 else room // pixels, panels))
    fitting = [vectors for vectors in range(1, most + 1) if panels % vectors == 0]
    return Blocking(fitting[-1] if 2 * fitting[-1] > most else most, pixels)
