"""Kernels without weights: pointwise functions of one or two tensors (conversion, activation, sum, scale), pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.tiles import Axis, decode, following, merge, offsets, tile
from projects.fp16_cnn.ir.vectors import ELEMENT, Activation, activate, load, store, vector
from projects.fp16_cnn.packing import LANES
from projects.fp16_cnn.precision import BYTES

Combine = Literal["first", "add", "multiply"]
UNROLLED = 8  # vectors of a tile
KIND = vector(LANES)


def arguments(count: int) -> list[tuple[str, str]]:
    """Parameters of a kernel that reads `count` arrays, the last one second: kernel(x, y[, b], begin, end)."""
    names = ["%x", "%y", "%b"][: count + 1]
    return [*(("ptr", name) for name in names), ("i64", "%begin"), ("i64", "%end")]


@dataclass(frozen=True)
class Pointwise:
    """y = activation(combine(a, b)) at every position.

    Attributes:
        sources: layouts of a and b; one of height and width 1 holds for the whole image (the scale of a channel).
    """

    sources: tuple[Layout, ...]
    target: Layout
    combine: Combine = "first"
    activation: Activation = "none"

    @cached_property
    def axes(self) -> list[Axis]:
        """Positions and vectors of channels, merged and in tiles; strides in y, then in each source."""
        target = self.target
        layouts = (target, *self.sources)
        strides = [
            (layout.strides[0], *(layout.strides[1:] if _same_image(layout, target) else (0, 0)))
            for layout in layouts
        ]
        images, rows, columns = zip(*strides, strict=True)
        channels = tuple(LANES * BYTES[layout.storage] for layout in layouts)
        axes = [
            Axis("images", target.batch, images),
            Axis("rows", target.height, rows),
            Axis("columns", target.width, columns),
            Axis("channels", target.channels_padded // LANES, channels),
        ]
        return tile(merge(axes), UNROLLED)

    @cached_property
    def tiles(self) -> int:
        """Tiles in all: the range that `begin` and `end` walk."""
        return math.prod(axis.count for axis in self.axes)


def _same_image(layout: Layout, target: Layout) -> bool:
    return (layout.height, layout.width) == (target.height, target.width)


def pointwise_ir(pointwise: Pointwise) -> str:
    """kernel(x, y[, b], begin, end) computes tiles begin to end - 1."""
    e = Emitter()
    axes = pointwise.axes
    counts = [axis.count for axis in axes]
    layouts = (pointwise.target, *pointwise.sources)
    carried = [("i64", index) for index in decode(e, "%begin", counts)]
    with e.loop("%end", "%begin", carried=carried) as loop:
        at = [axis.start(e, index) for axis, index in zip(axes, loop.carried, strict=True)]
        bases: list[str] = []
        for array, (name, layout) in enumerate(zip(("%y", "%x", "%b"), layouts, strict=False)):
            moved = (e.multiply(index, axis.strides[array]) for axis, index in zip(axes, at, strict=True))
            bases.append(e.address(name, e.add(str(layout.origin), *moved)))
        for places in zip(*(offsets(axes, array) for array in range(len(layouts))), strict=True):
            pointers = [e.address(base, place) for base, place in zip(bases, places, strict=True)]
            values = [
                load(e, pointer, LANES, layout.storage)
                for pointer, layout in zip(pointers[1:], layouts[1:], strict=True)
            ]
            result = _combined(e, pointwise.combine, values)
            result = activate(e, result, pointwise.activation, LANES)
            store(e, result, pointers[0], LANES, pointwise.target.storage)
        loop.following = following(e, loop.carried, counts)
    return e.function("kernel", arguments(len(pointwise.sources)))


def _combined(e: Emitter, combine: Combine, values: Sequence[str]) -> str:
    if combine == "first":
        return values[0]
    operation = "fadd" if combine == "add" else "fmul"
    return e.value(f"{operation} {KIND} {values[0]}, {values[1]}")


def compact_ir(source: Layout, target: Layout) -> str:
    """kernel(x, y, begin, end): pixels begin to end - 1, borders counted, of a layout to its compact form.

    Exactly the compact channels are written, as another thread may be at the next pixel.
    """
    e = Emitter()
    count = target.channels_padded
    read, written = (f"<{count} x {ELEMENT[layout.storage]}>" for layout in (source, target))
    with e.loop("%end", "%begin") as loop:
        x = e.address("%x", e.multiply(loop.index, source.strides[2]))
        y = e.address("%y", e.multiply(loop.index, target.strides[2]))
        value = e.value(f"load {read}, ptr {x}, align {BYTES[source.storage]}")
        if source.storage != target.storage:
            value = e.value(f"fpext {read} {value} to {written}")
        e.line(f"store {written} {value}, ptr {y}, align {BYTES[target.storage]}")
    return e.function("kernel", arguments(1))


@dataclass(frozen=True)
class Pool:
    """The maximum or the mean of a window; what lies outside the image takes no part.

    Attributes:
        counts_padding: the mean divides by the window's full size, zeros included.
    """

    source: Layout
    target: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    operation: Literal["max", "mean"]
    counts_padding: bool = False

    @cached_property
    def vectors(self) -> int:
        """Vectors of channels held at once: the largest divisor of their number that is at most 8."""
        count = self.target.channels_padded // LANES
        return max(size for size in range(1, UNROLLED + 1) if count % size == 0)

    @cached_property
    def tiles(self) -> int:
        """One for each position and each group of channel vectors."""
        groups = self.target.channels_padded // LANES // self.vectors
        return self.target.batch * self.target.height * self.target.width * groups


def pool_ir(pool: Pool) -> str:
    """kernel(x, y, begin, end) computes tiles begin to end - 1."""
    e = Emitter()
    source, target, size = pool.source, pool.target, pool.vectors
    counts = [target.batch, target.height, target.width, target.channels_padded // LANES // size]
    with e.loop("%end", "%begin", carried=[("i64", i) for i in decode(e, "%begin", counts)]) as loop:
        image, row, column, group = loop.carried
        top, bottom, first_row = _window(e, row, pool, 0)
        left, right, first_column = _window(e, column, pool, 1)
        channels = size * LANES * BYTES[source.storage]
        x = e.address("%x", e.add(str(source.origin), e.multiply(image, source.strides[0])))
        x = e.address(x, e.add(e.multiply(first_row, source.strides[1]), e.multiply(group, channels)))
        x = e.address(x, e.multiply(first_column, source.strides[2]))
        empty = "splat (float 0xFFF0000000000000)" if pool.operation == "max" else "zeroinitializer"
        with e.loop(bottom, top, carried=[(KIND, empty)] * size) as down:
            with e.loop(right, left, carried=[(KIND, value) for value in down.carried]) as across:
                moved = e.add(
                    e.multiply(down.index, source.strides[1]), e.multiply(across.index, source.strides[2])
                )
                at = e.address(x, moved)
                across.following = [
                    _pooled(
                        e, pool, total, load(e, e.address(at, v * channels // size), LANES, source.storage)
                    )
                    for v, total in enumerate(across.carried)
                ]
            down.following = across.following
        results = down.following
        if pool.operation == "mean":
            results = _means(e, pool, results, (top, bottom), (left, right))
        moved = [e.multiply(i, step) for i, step in zip((image, row, column), target.strides, strict=True)]
        channels = LANES * BYTES[target.storage]
        y = e.address("%y", e.add(str(target.origin), *moved, e.multiply(group, size * channels)))
        for v, result in enumerate(results):
            store(e, result, e.address(y, v * channels), LANES, target.storage)
        loop.following = following(e, loop.carried, counts)
    return e.function("kernel", arguments(1))


def _window(e: Emitter, index: str, pool: Pool, axis: int) -> tuple[str, str, str]:
    """The window's first tap inside the image, the one behind its last, and the place of tap 0."""
    length = (pool.source.height, pool.source.width)[axis]
    first = e.value(f"sub i64 {e.multiply(index, pool.stride[axis])}, {pool.padding[2 * axis]}")
    start = e.maximum("0", e.value(f"sub i64 0, {first}"))
    stop = e.minimum(str(pool.kernel[axis]), e.value(f"sub i64 {length}, {first}"))
    return start, stop, first


def _pooled(e: Emitter, pool: Pool, total: str, value: str) -> str:
    if pool.operation == "mean":
        return e.value(f"fadd {KIND} {total}, {value}")
    smaller = e.value(f"fcmp olt {KIND} {value}, {total}")  # a NaN stays: it is not smaller
    held = e.value(f"select <{LANES} x i1> {smaller}, {KIND} {total}, {KIND} {value}")
    lost = e.value(f"fcmp uno {KIND} {total}, {total}")
    return e.value(f"select <{LANES} x i1> {lost}, {KIND} {total}, {KIND} {held}")


def _means(
    e: Emitter, pool: Pool, totals: Sequence[str], rows: tuple[str, str], columns: tuple[str, str]
) -> list[str]:
    down, across = (e.value(f"sub i64 {stop}, {start}") for start, stop in (rows, columns))
    taps = str(math.prod(pool.kernel)) if pool.counts_padding else e.value(f"mul i64 {down}, {across}")
    number = e.value(f"sitofp i64 {taps} to float")
    first = e.value(f"insertelement {KIND} poison, float {number}, i32 0")
    count = e.value(f"shufflevector {KIND} {first}, {KIND} poison, <{LANES} x i32> zeroinitializer")
    return [e.value(f"fdiv {KIND} {total}, {count}") for total in totals]
