"""The sums of one tile of a depthwise convolution: every channel has its own kernel, so vectors run over channels.

An input is loaded, and converted, once for all outputs of the tile that it takes part in: with two rows of outputs at
a time a 3x3 kernel reads 4 input rows instead of 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.multiply import Multiply
from projects.fp16_cnn.ir.vectors import load, vector
from projects.fp16_cnn.precision import BYTES

if TYPE_CHECKING:
    from projects.fp16_cnn.ir.conv import Convolution


class DepthwiseSums:
    """Emits the sums of one tile; products of bf16 are those of fp32, as no instruction pairs channels."""

    def __init__(self, e: Emitter, conv: Convolution) -> None:
        self.e, self.conv = e, conv
        self.multiply = Multiply(e, conv.precision, conv.lanes, conv.ablate != "noconvert", dot=False)

    def tile(self, at: dict[str, str], panel: str, moved: str) -> list[str]:
        """The sums as fp32 vectors, row by row and pixel by pixel.

        Args:
            at: first output of the tile on each axis.
            moved: bytes from the tile at the origin to this one in the input.
        """
        e, conv = self.e, self.conv
        x, weights = self._operands(panel, moved)
        rows, columns = (axis.tile for axis in conv.pixels[1:])
        (down, right), (height, width) = conv.shape.stride, conv.shape.kernel
        _, row, column = conv.source.strides
        sums = ["zeroinitializer"] * (rows * columns)
        for r in range((rows - 1) * down + height):
            for c in range((columns - 1) * right + width):
                targets = [
                    (i * columns + j, (r - i * down) * width + c - j * right)
                    for i in range(rows)
                    for j in range(columns)
                    if 0 <= r - i * down < height and 0 <= c - j * right < width
                ]
                if not targets:
                    continue
                value = self._load(e.address(x, r * row + c * column), conv.source.storage)
                for output, tap in targets:
                    sums[output] = self.multiply.add(sums[output], weights[tap], value)
        half = self.multiply.half
        wide = vector(conv.lanes)
        return [e.value(f"fpext {self.multiply.kind} {value} to {wide}") if half else value for value in sums]

    def _operands(self, panel: str, moved: str) -> tuple[str, list[str]]:
        """Address of the tile's first input and the kernel's weights, one vector a tap."""
        e, conv = self.e, self.conv
        channel = conv.channel(e, panel)
        _, row, column = conv.source.strides
        fixed = conv.source.origin - conv.shape.padding[0] * row - conv.shape.padding[2] * column
        shift = e.multiply(channel, BYTES[conv.source.storage])
        x = e.address("%x", str(fixed) if conv.ablate == "l1" else e.add(str(fixed), moved, shift))
        taps = conv.shape.kernel[0] * conv.shape.kernel[1]
        size = conv.lanes * BYTES[conv.precision.weights]
        w = e.address("%w", e.multiply(panel, taps * size))
        return x, [self._load(e.address(w, tap * size), conv.precision.weights) for tap in range(taps)]

    def _load(self, address: str, storage: str) -> str:
        """A vector of channels in the type of the arithmetic."""
        multiply = self.multiply
        if multiply.half or storage == "float32":
            kind = multiply.kind
            return self.e.value(f"load {kind}, ptr {address}, align {32 if multiply.half else 64}")
        if not multiply.converts:
            return multiply.raw(address)
        return load(self.e, address, self.conv.lanes, storage)  # type: ignore[arg-type]
