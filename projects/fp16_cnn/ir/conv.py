"""Convolution as an implicit matrix product: a tile of sums in registers, inputs broadcast, weights in panels.

y[n, h, w, o] = activation(bias[o] + residual[n, h, w, o] + sum_{r, s, i} x[n, h q + r, w q + s, i] W[o, i, r, s])
with the stride q, x counted from its padding. Sums are fp32, except in fp16 arithmetic: there they are fp16 and move to
fp32 after `flush` terms at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from projects.fp16_cnn.blocking import Blocking, depthwise, lanes
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.ir.depthwise import DepthwiseSums
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.sums import Sums
from projects.fp16_cnn.ir.tiles import Axis, decode, following, merge, offsets, tile
from projects.fp16_cnn.ir.vectors import Activation, activate, load, store, vector
from projects.fp16_cnn.packing import panel_starts
from projects.fp16_cnn.precision import BYTES, Precision
from projects.fp16_cnn.shape import LayerShape

Ablation = Literal["", "noconvert", "l1"]
CHUNK = 1 << 20  # bytes of input that a panel passes over: about a second cache
PARAMETERS = [
    *(("ptr noalias", f"%{name}") for name in ("x", "w", "bias", "residual", "y")),
    ("i64", "%begin"),
    ("i64", "%end"),
]


@dataclass(frozen=True)
class Convolution:
    """Everything that one kernel depends on.

    Attributes:
        source: as the kernel reads it: fp32 where the arithmetic is fp32.
        residual: layout of what is added, None without.
        ablate: "noconvert" loads weights without converting them, "l1" lets every load hit the first cache: the result
            is wrong, the time says what the conversion or the memory costs.
    """

    shape: LayerShape
    precision: Precision
    source: Layout
    target: Layout
    residual: Layout | None
    activation: Activation
    blocking: Blocking
    ablate: Ablation = ""

    @cached_property
    def lanes(self) -> int:
        """Output channels in a vector."""
        return lanes(self.shape, self.precision)

    @cached_property
    def width(self) -> int:
        """Output channels in a panel."""
        if self.depthwise:
            return self.lanes
        return self.lanes * max(1, min(self.blocking.vectors, self.target.channels_padded // self.lanes))

    @cached_property
    def depthwise(self) -> bool:
        """Whether every channel has a kernel of its own."""
        return depthwise(self.shape)

    @cached_property
    def starts(self) -> list[int]:
        """First channel of every panel."""
        return panel_starts(self.target.channels_padded, self.width)

    @cached_property
    def pixels(self) -> list[Axis]:
        """The axes of the output's positions, in tiles; strides in input, output and residual."""
        shape, layouts = self.shape, [self.source, self.target, self.residual or self.target]
        down, right = shape.stride
        images, rows, columns = zip(*(layout.strides for layout in layouts), strict=True)
        axes = [
            Axis("images", shape.batch, images),
            Axis("rows", shape.out_height, (rows[0] * down, *rows[1:])),
            Axis("columns", shape.out_width, (columns[0] * right, *columns[1:])),
        ]
        if self.depthwise:  # a tile of rows and columns, whose outputs share inputs
            return [axes[0], axes[1].cut(self.blocking.vectors), axes[2].cut(self.blocking.pixels)]
        return tile(merge(axes), self.blocking.pixels)

    @cached_property
    def tiles(self) -> int:
        """Tiles in all: the range that `begin` and `end` walk."""
        return len(self.starts) * math.prod(axis.count for axis in self.pixels)

    @cached_property
    def chunks(self) -> int:
        """Pieces of the input that the panels pass over in turn, as a large one would leave the second cache."""
        if self.blocking.order != "panels" or self.depthwise or self.source.nbytes <= CHUNK:
            return 1
        count = self.pixels[0].count
        wanted = -(-self.source.nbytes // CHUNK)
        chunks = next((c for c in range(min(wanted, count), count + 1) if count % c == 0), 1)
        weights = self.shape.weights * BYTES[self.precision.weights]
        return chunks if weights * chunks < self.source.nbytes * len(self.starts) else 1

    def channel(self, e: Emitter, panel: str) -> str:
        """First output channel of a panel."""
        first = e.multiply(panel, self.width)
        return e.minimum(first, str(self.starts[-1])) if self.target.channels_padded % self.width else first


def conv_ir(conv: Convolution) -> str:
    """The kernel of one convolution: kernel(x, w, bias, residual, y, begin, end) computes tiles begin to end - 1."""
    e = Emitter()
    sums = DepthwiseSums(e, conv) if conv.depthwise else Sums(e, conv)
    panels = Axis("panels", len(conv.starts), ())
    outer = [panels, *conv.pixels] if conv.blocking.order == "panels" else [*conv.pixels, panels]
    if conv.depthwise and outer[-1] is panels:  # the columns of a row innermost: they share its inputs
        outer[-2:] = outer[:-3:-1]
    counts, first = [axis.count for axis in outer], conv.pixels[0]
    if conv.chunks > 1:
        counts[1] //= conv.chunks
        counts.insert(0, conv.chunks)
    start = [("i64", index) for index in decode(e, "%begin", counts)]
    with e.loop("%end", "%begin", carried=start) as loop:
        indices = loop.carried[-len(outer) :]
        index = dict(zip((axis.name for axis in outer), indices, strict=True))
        if conv.chunks > 1:
            index[first.name] = e.add(e.multiply(loop.carried[0], counts[2]), index[first.name])
        at = {axis.name: axis.start(e, index[axis.name]) for axis in conv.pixels}
        panel = index["panels"]
        _finish(e, conv, at, panel, sums.tile(at, panel, _moved(e, conv, at, 0)))
        loop.following = following(e, loop.carried, counts)
    return e.function("kernel", PARAMETERS)


def _moved(e: Emitter, conv: Convolution, at: dict[str, str], array: int) -> str:
    """Bytes from the tile at the origin to this one in the input (0), the output (1) or the residual (2)."""
    return e.add(*(e.multiply(at[axis.name], axis.strides[array]) for axis in conv.pixels))


def _finish(e: Emitter, conv: Convolution, at: dict[str, str], panel: str, sums: list[str]) -> None:
    """Add bias and residual, apply the activation, convert and store."""
    channel = conv.channel(e, panel)
    bias = e.address("%bias", e.multiply(channel, 4))
    arrays = [("%y", conv.target, 1)] + ([("%residual", conv.residual, 2)] if conv.residual else [])
    bases = [
        e.address(
            name, e.add(str(to.origin), _moved(e, conv, at, array), e.multiply(channel, BYTES[to.storage]))
        )
        for name, to, array in arrays
    ]
    positions = list(zip(*(offsets(conv.pixels, array) for _, _, array in arrays), strict=True))
    kind, count = vector(conv.lanes), conv.width // conv.lanes
    for v in range(count):
        added = load(e, e.address(bias, v * conv.lanes * 4), conv.lanes, "float32")
        for pixel, position in enumerate(positions):
            places = [
                e.address(base, offset + v * conv.lanes * BYTES[to.storage])
                for base, offset, (_, to, _) in zip(bases, position, arrays, strict=True)
            ]
            total = e.value(f"fadd {kind} {sums[pixel * count + v]}, {added}")
            if conv.residual is not None:
                other = load(e, places[1], conv.lanes, conv.residual.storage)
                total = e.value(f"fadd {kind} {total}, {other}")
            store(
                e, activate(e, total, conv.activation, conv.lanes), places[0], conv.lanes, conv.target.storage
            )
