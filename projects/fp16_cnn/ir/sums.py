"""The sums of one tile: loops over kernel rows, kernel columns and input channels, the innermost one unrolled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.multiply import Multiply
from projects.fp16_cnn.ir.tiles import offsets
from projects.fp16_cnn.ir.vectors import vector
from projects.fp16_cnn.packing import panel_inputs
from projects.fp16_cnn.precision import BYTES

if TYPE_CHECKING:
    from projects.fp16_cnn.ir.conv import Convolution

UNROLLED = 64  # multiplications of vectors in the innermost loop, about
STRAIGHT = 32  # terms of one kernel row that are written out rather than looped over


class Level(NamedTuple):
    """A loop over terms: its range, and how far a turn moves in the input and in the weights, in bytes."""

    start: str
    stop: str
    x: int
    w: int


class Sums:
    """Emits the sums of one tile.

    Attributes:
        flush: fp16 sums are moved to fp32 at least that often; 0: they never are.
    """

    def __init__(self, e: Emitter, conv: Convolution) -> None:
        shape = conv.shape
        self.e, self.conv = e, conv
        self.multiply = Multiply(e, conv.precision, conv.lanes, conv.ablate != "noconvert")
        self.firsts, inputs = panel_inputs(shape.in_channels, shape.out_channels, shape.groups, conv.width)
        self.inputs = -(-inputs // self.multiply.step) * self.multiply.step
        self.positions = offsets(conv.pixels, 0)
        self.vectors = conv.width // conv.lanes
        self.count = len(self.positions) * self.vectors
        flush = conv.precision.flush
        self.flush = flush if conv.precision.multiplies == "float16" and flush < shape.terms else 0
        self.term = conv.width * BYTES[conv.precision.weights]  # bytes of the weights of one term
        self.row = shape.kernel[1] * self.inputs * self.term  # ... of one kernel row
        self.totals = vector(conv.lanes)
        if self.flush:
            e.line(f"%total = alloca [{self.count} x {self.totals}], align 64")

    def tile(self, at: dict[str, str], panel: str, moved: str) -> list[str]:
        """The sums as fp32 vectors, pixel by pixel and in it vector by vector.

        Args:
            at: first output of the tile on each axis.
            moved: bytes from the tile at the origin to this one in the input.
        """
        e, conv = self.e, self.conv
        rows = conv.shape.kernel[0]
        start, stop = self._rows(at)
        weights = e.multiply(panel, rows * self.row)
        if conv.ablate == "l1":
            moved = weights = "0"
        step = conv.source.strides[1]
        x = e.address("%x", e.add(self._first(panel), moved, e.multiply(start, step)))
        w = e.address("%w", e.add(weights, e.multiply(start, self.row)))
        levels, body = self._levels()
        if rows > 1:
            levels.insert(0, Level(start, stop, step, self.row))
        zeros = ["zeroinitializer"] * self.count
        if self.flush:
            return self._flushed(levels, body, x, w, zeros)
        sums = self._nest(levels, body, x, w, zeros)
        return [self._widened(value) for value in sums]

    def _first(self, panel: str) -> str:
        """Bytes to the first input that the tile at the origin reads: its border, and the panel's group."""
        conv = self.conv
        _, row, column = conv.source.strides
        fixed = conv.source.origin - conv.shape.padding[0] * row - conv.shape.padding[2] * column
        if conv.shape.groups == 1:
            return str(fixed)
        size = BYTES[conv.source.storage]
        listed = ", ".join(f"i64 {fixed + first * size}" for first in self.firsts)
        kind = f"[{len(self.firsts)} x i64]"
        self.e.globals = [f"@firsts = internal constant {kind} [{listed}]"]
        address = self.e.value(f"getelementptr {kind}, ptr @firsts, i64 0, i64 {panel}")
        return self.e.value(f"load i64, ptr {address}")

    def _rows(self, at: dict[str, str]) -> tuple[str, str]:
        """Kernel rows of the tile; those that meet only the zeros above or below the image are left out."""
        e, shape = self.e, self.conv.shape
        rows, (top, bottom, _, _) = shape.kernel[0], shape.padding
        alone = any(axis.name == "rows" and axis.tile == 1 for axis in self.conv.pixels)
        if rows == 1 or not alone or top + bottom == 0:
            return "0", str(rows)
        first = e.multiply(at["rows"], shape.stride[0])
        start = e.maximum("0", e.value(f"sub i64 {top}, {first}"))
        return start, e.minimum(str(rows), e.value(f"sub i64 {shape.height + top}, {first}"))

    def _levels(self) -> tuple[list[Level], list[tuple[int, int]]]:
        """The loops below the kernel's rows, and the terms of the innermost body: (bytes of x, bytes of w)."""
        conv, step, term = self.conv, self.multiply.step, self.term
        column, size = conv.source.strides[2], BYTES[conv.source.storage]
        columns, count = conv.shape.kernel[1], self.inputs // step
        x, w = step * size, step * term
        contiguous = self.inputs * size == column
        if columns > 1 and not contiguous and columns * count <= STRAIGHT and not self.flush:
            taps = [(s * column, s * self.inputs * term) for s in range(columns)]
            return [], [(left + i * x, right + i * w) for left, right in taps for i in range(count)]
        levels: list[Level] = []
        if columns > 1 and contiguous:
            count *= columns
        elif columns > 1:
            levels.append(Level("0", str(columns), column, self.inputs * term))
        chunk = _divisor(count, self.flush // step) if self.flush else count
        if chunk < count:
            levels.append(Level("0", str(count // chunk), chunk * x, chunk * w))
        unroll = _divisor(chunk, max(1, UNROLLED // self.count))
        frozen = conv.ablate == "l1"
        moves = (0, 0) if frozen else (unroll * x, unroll * w)
        levels.append(Level("0", str(chunk // unroll), *moves))
        return levels, [(u * x, u * w) for u in range(unroll)]

    def _nest(
        self, levels: Sequence[Level], body: Sequence[tuple[int, int]], x: str, w: str, sums: list[str]
    ) -> list[str]:
        """Nested loops that carry the sums and two pointers."""
        e = self.e
        if not levels:
            return self._body(body, x, w, sums)
        level = levels[0]
        carried = [("ptr", x), ("ptr", w), *((self.multiply.kind, value) for value in sums)]
        with e.loop(level.stop, level.start, carried=carried) as loop:
            x, w, *sums = loop.carried
            sums = self._nest(levels[1:], body, x, w, sums)
            loop.following = [e.address(x, level.x), e.address(w, level.w), *sums]
        return loop.following[2:]

    def _body(self, body: Sequence[tuple[int, int]], x: str, w: str, sums: list[str]) -> list[str]:
        e, multiply, sums = self.e, self.multiply, list(sums)
        size = self.conv.lanes * multiply.step * BYTES[self.conv.precision.weights]
        for left, right in body:
            weights = [multiply.weight(e.address(w, right + v * size)) for v in range(self.vectors)]
            for pixel, position in enumerate(self.positions):
                value = multiply.input(e.address(x, position + left))
                for v, weight in enumerate(weights):
                    i = pixel * self.vectors + v
                    sums[i] = multiply.add(sums[i], weight, value)
        return sums

    def _flushed(
        self, levels: Sequence[Level], body: Sequence[tuple[int, int]], x: str, w: str, zeros: list[str]
    ) -> list[str]:
        """Like `_nest`, but the innermost loop starts from zero and its sums are added to fp32 ones in memory."""
        e = self.e
        slots = [e.address("%total", i * self.conv.lanes * 4) for i in range(self.count)]
        for slot in slots:
            e.line(f"store {self.totals} zeroinitializer, ptr {slot}, align 64")

        def outside(rest: Sequence[Level], x: str, w: str) -> None:
            if rest:
                with e.loop(rest[0].stop, rest[0].start, carried=[("ptr", x), ("ptr", w)]) as loop:
                    outside(rest[1:], *loop.carried)
                    left, right = loop.carried
                    loop.following = [e.address(left, rest[0].x), e.address(right, rest[0].w)]
                return
            for slot, value in zip(slots, self._nest(levels[-1:], body, x, w, zeros), strict=True):
                total = e.value(f"load {self.totals}, ptr {slot}, align 64")
                total = e.value(f"fadd {self.totals} {total}, {self._widened(value)}")
                e.line(f"store {self.totals} {total}, ptr {slot}, align 64")

        outside(levels[:-1], x, w)
        return [e.value(f"load {self.totals}, ptr {slot}, align 64") for slot in slots]

    def _widened(self, value: str) -> str:
        half = self.multiply.half
        return self.e.value(f"fpext {self.multiply.kind} {value} to {self.totals}") if half else value


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`."""
    return next(divisor for divisor in range(max(1, min(count, most)), 0, -1) if count % divisor == 0)
