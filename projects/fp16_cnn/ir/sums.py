"""The sums of one tile: loops over kernel rows, kernel columns and input channels, the innermost one unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
AGAIN = (
    2,
    64,
)  # uses of a panel between which the next one is fetched: with one use it would only come twice
STRAIGHT = 130  # as many if that writes out a whole kernel row; in longer bodies LLVM runs out of registers
Inside = Callable[[str, str, list[str]], list[str]]


class Level(NamedTuple):
    """A loop over terms: its range, and how far a turn moves in the input and in the weights, in bytes."""

    start: str
    stop: str
    x: int
    w: int


class Stretch(NamedTuple):
    """Loops over terms of one kernel row.

    Attributes:
        levels: the loops, outermost first.
        body: the terms written out inside: bytes to their inputs and to their weights.
        pixels: of the tile, which take part.
        x, w: bytes to the first input and the first weight.
    """

    levels: Sequence[Level]
    body: Sequence[tuple[int, int]]
    pixels: Sequence[int]
    x: int = 0
    w: int = 0


class Sums:
    """Emits the sums of one tile.

    Attributes:
        flush: fp16 sums are moved to fp32 at least that often; 0: they never are.
        ahead: bytes to the next panel, whose weights are fetched from memory meanwhile; 0: they are not.
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
        again = (
            conv.tiles // len(conv.starts) // conv.chunks
        )  # tiles that use a panel before the next one's turn
        useful = conv.blocking.order == "panels" and AGAIN[0] <= again <= AGAIN[1] and conv.ablate != "l1"
        self.ahead = shape.kernel[0] * self.row if useful else 0
        self.stretches = self._stretches()
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
        levels = [Level(start, stop, step, self.row)] if rows > 1 else []
        zeros = ["zeroinitializer"] * self.count
        if self.flush:
            return self._flushed(levels, x, w, zeros)
        sums = self._nest(levels, x, w, zeros, self._row)
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
        if not alone or not 0 < max(top, bottom) < rows:
            return "0", str(rows)
        first = e.multiply(at["rows"], shape.stride[0])
        start = e.maximum("0", e.value(f"sub i64 {top}, {first}"))
        return start, e.minimum(str(rows), e.value(f"sub i64 {shape.height + top}, {first}"))

    def _stretches(self) -> list[Stretch]:
        """The terms of one kernel row, in as few loops as memory allows."""
        conv, step, term = self.conv, self.multiply.step, self.term
        column, size = conv.source.strides[2], BYTES[conv.source.storage]
        columns, count = conv.shape.kernel[1], self.inputs // step
        every = range(len(self.positions))
        taps = [(s * column, s * self.inputs * term) for s in range(columns)]
        meeting = self._meeting()
        if meeting:  # each kernel column by itself, with the pixels that it meets
            return [
                Stretch(*self._inputs(count, len(pixels)), pixels, *tap)
                for pixels, tap in zip(meeting, taps, strict=True)
                if pixels
            ]
        contiguous = self.inputs * size == column
        if columns > 1 and not contiguous and columns * count * self.count <= STRAIGHT and not self.flush:
            x, w = step * size, step * term
            body = [(left + i * x, right + i * w) for left, right in taps for i in range(count)]
            return [Stretch([], body, every)]
        if columns == 1 or contiguous:
            return [Stretch(*self._inputs(count * columns, len(every)), every)]
        levels, body = self._inputs(count, len(every))
        return [Stretch([Level("0", str(columns), column, self.inputs * term), *levels], body, every)]

    def _meeting(self) -> list[list[int]]:
        """For each kernel column the pixels for which it lies inside the image; [] where a tile is no whole row."""
        shape, last = self.conv.shape, self.conv.pixels[-1]
        whole = last.name == "columns" and last.tile == last.size
        if not whole or self.flush or shape.kernel[1] == 1 or not any(shape.padding[2:]):
            return []
        places = [
            pixel % last.size * shape.stride[1] - shape.padding[2] for pixel in range(len(self.positions))
        ]
        return [
            [pixel for pixel, place in enumerate(places) if 0 <= place + s < shape.width]
            for s in range(shape.kernel[1])
        ]

    def _inputs(self, count: int, pixels: int) -> tuple[list[Level], list[tuple[int, int]]]:
        """Loops over `count` steps of consecutive inputs, and the steps that the innermost one writes out."""
        step = self.multiply.step
        x, w = step * BYTES[self.conv.source.storage], step * self.term
        chunk = _divisor(count, self.flush // step) if self.flush else count
        levels = [Level("0", str(count // chunk), chunk * x, chunk * w)] if chunk < count else []
        unroll = _divisor(chunk, max(1, UNROLLED // (pixels * self.vectors)))
        moves = (0, 0) if self.conv.ablate == "l1" else (unroll * x, unroll * w)
        return [*levels, Level("0", str(chunk // unroll), *moves)], [(u * x, u * w) for u in range(unroll)]

    def _nest(self, levels: Sequence[Level], x: str, w: str, sums: list[str], inside: Inside) -> list[str]:
        """Nested loops that carry the sums and two pointers."""
        if not levels:
            return inside(x, w, sums)
        level = levels[0]
        carried = [("ptr", x), ("ptr", w), *((self.multiply.kind, value) for value in sums)]
        with self.e.loop(level.stop, level.start, carried=carried) as loop:
            x, w, *sums = loop.carried
            sums = self._nest(levels[1:], x, w, sums, inside)
            loop.following = [self.e.address(x, level.x), self.e.address(w, level.w), *sums]
        return loop.following[2:]

    def _row(self, x: str, w: str, sums: list[str]) -> list[str]:
        """Add the terms of one kernel row."""
        sums = list(sums)
        for stretch in self.stretches:
            chosen = [pixel * self.vectors + v for pixel in stretch.pixels for v in range(self.vectors)]
            left, right = self.e.address(x, stretch.x), self.e.address(w, stretch.w)
            added = self._nest(
                stretch.levels, left, right, [sums[i] for i in chosen], partial(self._body, stretch)
            )
            for i, value in zip(chosen, added, strict=True):
                sums[i] = value
        return sums

    def _body(self, stretch: Stretch, x: str, w: str, sums: list[str]) -> list[str]:
        e, multiply, sums = self.e, self.multiply, list(sums)
        size = self.conv.lanes * multiply.step * BYTES[self.conv.precision.weights]
        for left, right in stretch.body:
            if self.ahead:
                self._prefetch(w, right)
            weights = [multiply.weight(e.address(w, right + v * size)) for v in range(self.vectors)]
            for i, pixel in enumerate(stretch.pixels):
                value = multiply.input(e.address(x, self.positions[pixel] + left))
                for v, weight in enumerate(weights):
                    sums[i * self.vectors + v] = multiply.add(sums[i * self.vectors + v], weight, value)
        return sums

    def _prefetch(self, w: str, offset: int) -> None:
        """Ask for the same term's weights of the next panel, for the second cache."""
        e = self.e
        e.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for line in range(0, self.term * self.multiply.step, 64):
            address = e.address(w, offset + line + self.ahead)
            e.line(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 2, i32 1)")

    def _flushed(self, rows: Sequence[Level], x: str, w: str, zeros: list[str]) -> list[str]:
        """Like `_nest`, but the innermost loop starts from zero and its sums are added to fp32 ones in memory."""
        e = self.e
        slots = [e.address("%total", i * self.conv.lanes * 4) for i in range(self.count)]
        for slot in slots:
            e.line(f"store {self.totals} zeroinitializer, ptr {slot}, align 64")
        (stretch,) = self.stretches

        def innermost(x: str, w: str, _: list[str]) -> list[str]:
            sums = self._nest(stretch.levels[-1:], x, w, zeros, partial(self._body, stretch))
            for slot, value in zip(slots, sums, strict=True):
                total = e.value(f"load {self.totals}, ptr {slot}, align 64")
                total = e.value(f"fadd {self.totals} {total}, {self._widened(value)}")
                e.line(f"store {self.totals} {total}, ptr {slot}, align 64")
            return []

        self._nest([*rows, *stretch.levels[:-1]], x, w, [], innermost)
        return [e.value(f"load {self.totals}, ptr {slot}, align 64") for slot in slots]

    def _widened(self, value: str) -> str:
        half = self.multiply.half
        return self.e.value(f"fpext {self.multiply.kind} {value} to {self.totals}") if half else value


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is at most `most`."""
    return next(divisor for divisor in range(max(1, min(count, most)), 0, -1) if count % divisor == 0)
