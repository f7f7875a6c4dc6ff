"""How a kernel is cut: output vectors and pixels held in registers, and which loop stands outside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from projects.fp16_cnn import cpu
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.packing import padded
from projects.fp16_cnn.precision import BYTES, Precision
from projects.fp16_cnn.shape import LayerShape

PAGE = 4096
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


def depthwise(shape: LayerShape) -> bool:
    """Whether every channel has a kernel of its own."""
    return shape.groups == shape.in_channels == shape.out_channels


def image(shape: LayerShape, precision: Precision) -> bool:
    """Whether a compact copy of the input pays: few channels, and much work a pixel or a copy to be made anyway."""
    if shape.groups > 1 or shape.in_channels > 4:
        return False
    work = shape.terms * shape.out_channels / (shape.stride[0] * shape.stride[1])  # multiplications a pixel
    return work >= 1000 or (precision.activations == "float16" and precision.multiplies == "float32")


def default(shape: LayerShape, precision: Precision) -> Blocking:
    """A good blocking without measuring: one vector and 14 pixels, more vectors where pixels are few."""
    room = registers()
    if depthwise(shape):
        return Blocking(2 if shape.out_height > 1 and room > 6 else 1, min(7, room), "pixels")
    positions = shape.batch * shape.out_height * shape.out_width
    panels = -(-padded(shape.out_channels) // lanes(shape, precision))
    pixels = min(positions, room, _pixels(shape, precision))
    if positions >= 14:
        if shape.kernel[0] == 1 or pixels > 7 or room < 14:
            return Blocking(1, pixels)
        converted = precision.weights != "float32" and precision.multiplies == "float32"
        return Blocking(1 if converted else _fitting(panels, 2), pixels)
    return Blocking(_fitting(panels, 8 if pixels == 1 else room // pixels), pixels)


def _pixels(shape: LayerShape, precision: Precision) -> int:
    """About 14: those of 7 to 14 that waste least, unless a tile's inputs push each other out of the first cache.

    Pixels whose distance is a multiple of 4 KiB share one set of 8 lines; of an image every pixel is a cache line of
    which few bytes are used; a tile within one row lets the kernel skip padding.
    """
    number = precision.activations if precision.multiplies == "bfloat16" else "float32"
    distance = shape.stride[1] * padded(shape.in_channels) * BYTES[number]
    most = min(14, 7 * (PAGE // math.gcd(distance, PAGE)))
    if shape.in_channels // shape.groups < 8 and not image(shape, precision):
        most = 7
    if shape.kernel[0] > 1 and shape.out_width >= 7:
        most = min(most, shape.out_width)
    converted = precision.weights != "float32" and precision.multiplies == "float32"
    share = 0.5 if converted else 0.1  # what loading, and converting, a weight costs beside a multiplication
    return min(range(min(7, most), most + 1), key=lambda pixels: _waste(shape, pixels) * (1 + share / pixels))


def _waste(shape: LayerShape, pixels: int) -> float:
    """Computed outputs over needed ones: the last tile of an axis overlaps its neighbour."""
    rows, last = shape.batch * shape.out_height, shape.out_width
    if shape.kernel == (1, 1) and shape.stride == (1, 1):  # one axis, if the target has no border
        rows, last = 1, rows * last
    tile = math.ceil(last / math.ceil(last / pixels))
    waste = math.ceil(last / tile) * tile / last
    if tile == last and rows > 1:
        height = math.ceil(rows / math.ceil(rows / max(1, pixels // last)))
        waste *= math.ceil(rows / height) * height / rows
    return waste


def _fitting(panels: int, most: int) -> int:
    """Vectors of a panel, at most `most`: a divisor of their number, unless all divisors are small."""
    most = max(1, min(most, panels))
    divisor = max(vectors for vectors in range(1, most + 1) if panels % vectors == 0)
    return divisor if 2 * divisor > most else most


def candidates(shape: LayerShape, precision: Precision) -> list[Blocking]:
    """The blockings worth trying, the default first."""
    first, room = default(shape, precision), registers()
    positions = shape.batch * shape.out_height * shape.out_width
    panels = -(-padded(shape.out_channels) // lanes(shape, precision))
    if depthwise(shape):
        sizes = [(1, 14), (1, 7), (2, 7), (2, 4), (3, 5), (4, 4)]
        tried = [Blocking(rows, columns, "pixels") for rows, columns in sizes if rows <= shape.out_height]
    elif positions == 1:
        tried = [Blocking(vectors, 1) for vectors in (4, 8, 12, 16) if vectors <= panels]
    else:
        sizes = [(1, 14), (2, 7), (1, 28), (3, 7), (2, 14), (2, positions), (3, positions)]
        fitting = [(v, t) for v, t in sizes if v <= panels and t <= positions and v * t <= room]
        tried = [Blocking(v, t, order) for v, t in dict.fromkeys(fitting) for order in ("panels", "pixels")]
    return list(dict.fromkeys([first, *tried]))


def best(
    shape: LayerShape,
    precision: Precision,
    source: Layout | None = None,
    target: Layout | None = None,
) -> Blocking:
    """The fastest candidate on this CPU, measured once and then read from the cache file.

    Args:
        source, target: their borders matter; None: a border as wide as the padding, and none.

    Raises:
        BadInputError: the shape makes no layer.
    """
    from projects.fp16_cnn import tuner

    return tuner.best(shape, precision, source, target)
