"""The size of one layer: what it computes and how much it moves, the two numbers behind every gain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from projects.fp16_cnn.precision import BYTES, Precision

Kind = Literal["conv", "depthwise", "dense"]


@dataclass(frozen=True)
class LayerShape:
    """A convolution, a depthwise convolution or a fully connected layer (height = width = kernel = 1).

    Attributes:
        height, width: of the input, without its border.
        padding: zeros above, below, left and right of the input.
        groups: of the channels; a depthwise layer has as many as channels.
    """

    kind: Kind
    batch: int
    in_channels: int
    out_channels: int
    height: int = 1
    width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + self.padding[0] + self.padding[1] - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + self.padding[2] + self.padding[3] - self.kernel[1]) // self.stride[1] + 1

    @property
    def terms(self) -> int:
        """Products in one output."""
        return self.in_channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def inputs(self) -> int:
        """Elements of the input that are read: a pointwise layer of stride s skips the rest."""
        rows = min(self.height, self.out_height * self.kernel[0])
        columns = min(self.width, self.out_width * self.kernel[1])
        return self.batch * rows * columns * self.in_channels

    @property
    def weights(self) -> int:
        """Elements of the weight."""
        return self.terms * self.out_channels

    @property
    def outputs(self) -> int:
        """Elements of the output."""
        return self.batch * self.out_height * self.out_width * self.out_channels

    @property
    def flops(self) -> int:
        """Additions and multiplications, those of padding zeros included."""
        return 2 * self.terms * self.outputs

    def bytes(self, precision: Precision) -> int:
        """Bytes of weight, input and output, each counted once."""
        moved = self.weights * BYTES[precision.weights]
        return moved + (self.inputs + self.outputs) * BYTES[precision.activations]

    def intensity(self, precision: Precision) -> float:
        """Operations per byte."""
        return self.flops / self.bytes(precision)

    def __str__(self) -> str:
        """As tables name it: 64>256 56x56 k1 s1."""
        size = f"{self.in_channels}>{self.out_channels}"
        if self.kind == "dense":
            return f"{size} fc"
        depthwise = " dw" if self.kind == "depthwise" else ""
        kernel, stride = self.kernel[0], self.stride[0]
        return f"{size} {self.height}x{self.width} k{kernel} s{stride}{depthwise}"
