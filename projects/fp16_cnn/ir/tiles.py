"""The space of a kernel's outputs, cut in tiles: axes merged where memory allows, and one flat loop over all tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from projects.fp16_cnn.ir.emitter import Emitter


@dataclass(frozen=True)
class Axis:
    """One direction of the outputs.

    Attributes:
        name: of the axis ("rows" lets a kernel skip the padding above and below).
        size: its outputs; the tile holds `tile` of them, the last tile overlaps its neighbour if that does not divide.
        strides: bytes from one output to the next, in each array concerned (input, output, residual).
    """

    name: str
    size: int
    strides: tuple[int, ...]
    tile: int = 1

    @property
    def count(self) -> int:
        """Tiles."""
        return -(-self.size // self.tile)

    def start(self, e: Emitter, index: str) -> str:
        """First output of tile `index`."""
        first = e.multiply(index, self.tile)
        return e.minimum(first, str(self.size - self.tile)) if self.size % self.tile else first

    def cut(self, most: int) -> Axis:
        """The same axis in the fewest tiles of at most `most`, all nearly equal."""
        count = -(-self.size // max(1, most))
        return Axis(self.name, self.size, self.strides, -(-self.size // count))


def merge(axes: Sequence[Axis]) -> list[Axis]:
    """Drop axes of size 1 and join neighbours that are one axis in every array."""
    merged: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        outer = merged[-1] if merged else None
        inner = tuple(axis.size * stride for stride in axis.strides)
        if outer is not None and outer.strides == inner:
            merged[-1] = Axis("merged", outer.size * axis.size, axis.strides)
        else:
            merged.append(axis)
    return merged or [Axis("merged", 1, axes[-1].strides)]


def tile(axes: Sequence[Axis], pixels: int) -> list[Axis]:
    """Cut merged axes into tiles of about `pixels` outputs: part of the last axis, or whole rows of it."""
    *outer, last = axes
    last = last.cut(pixels)
    if outer and last.tile == last.size:
        outer[-1] = outer[-1].cut(pixels // last.size)
    return [*outer, last]


def offsets(axes: Sequence[Axis], array: int) -> list[int]:
    """Bytes from a tile's first output to each of its outputs, in one of the arrays."""
    found = [0]
    for axis in axes:
        found = [base + step * axis.strides[array] for base in found for step in range(axis.tile)]
    return found


def decode(e: Emitter, flat: str, counts: Sequence[int]) -> list[str]:
    """The indices that a flat index stands for, the last one fastest."""
    indices: list[str] = []
    for count in reversed(counts):
        if count == 1:
            indices.append("0")
            continue
        indices.append(e.value(f"urem i64 {flat}, {count}"))
        flat = e.value(f"udiv i64 {flat}, {count}")
    return indices[::-1]


def following(e: Emitter, indices: Sequence[str], counts: Sequence[int]) -> list[str]:
    """The next indices, as an odometer turns: a division per tile would cost more."""
    moved: list[str] = []
    carry = "true"
    for index, count in zip(reversed(indices), reversed(counts), strict=True):
        if count == 1:
            moved.append("0")
            continue
        step = e.value(f"zext i1 {carry} to i64")
        more = e.value(f"add i64 {index}, {step}")
        carry = e.value(f"icmp eq i64 {more}, {count}")
        moved.append(e.value(f"select i1 {carry}, i64 0, i64 {more}"))
    return moved[::-1]
