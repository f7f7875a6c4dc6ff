"""All kernels of a network behind one call: Python is left once an inference, not once a layer.

Each thread runs the whole list on its own range of every kernel's tiles; between two kernels all wait at a barrier
that spins, and gives its core away when it has spun for long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from projects.fp16_cnn import cpu
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.crew import Jobs, crew
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.vectors import ELEMENT
from projects.fp16_cnn.packing import aligned
from projects.fp16_cnn.precision import BYTES, Storage

SPINS = 1 << 14
WAIT = f"""
declare void @llvm.x86.sse2.pause()
declare i32 @sched_yield()
define internal void @wait(ptr %barrier, i64 %arrivals) {{
entry:
  %before = atomicrmw add ptr %barrier, i64 1 seq_cst
  br label %look
look:
  %looks = phi i64 [0, %entry], [%more, %next]
  %seen = load atomic i64, ptr %barrier acquire, align 8
  %complete = icmp sge i64 %seen, %arrivals
  br i1 %complete, label %done, label %missing
missing:
  call void @llvm.x86.sse2.pause()
  %more = add i64 %looks, 1
  %long = icmp sgt i64 %more, {SPINS}
  br i1 %long, label %yield, label %next
yield:
  %ignored = call i32 @sched_yield()
  br label %next
next:
  br label %look
done:
  ret void
}}"""
IMAGES = -1
"""Stands for the address of the images, which differs from call to call."""


@dataclass(frozen=True)
class Call:
    """One kernel and what it works on.

    Attributes:
        function: its address.
        pointers: of its operands, `IMAGES` for the images.
        tiles: its range in all.
    """

    function: int
    pointers: tuple[int, ...]
    tiles: int


def bind(calls: Sequence[Call], threads: int) -> Callable[[int], None]:
    """A function of the images' address that runs all calls in order, each on all threads."""
    count = max(1, min(threads, max((call.tiles for call in calls), default=1)))
    parts = [compile_function(driver_ir(calls, part, count), "kernel", 2) for part in range(count)]
    barrier = aligned((8,), np.int64)
    counter = barrier.ctypes.data
    if count == 1:
        return lambda images: parts[0].call(images, counter)
    together = crew(count)

    def run(images: int) -> None:
        barrier[0] = 0
        together.run(Jobs([(part.address, (images, counter)) for part in parts]))

    return run


def driver_ir(calls: Sequence[Call], part: int, parts: int) -> str:
    """kernel(images, barrier): part `part` of `parts` of every call."""
    e = Emitter()
    for index, call in enumerate(calls):
        start, stop = (call.tiles * (part + i) // parts for i in (0, 1))
        if stop > start:
            operands = ", ".join(f"ptr {_pointer(pointer)}" for pointer in call.pointers)
            e.line(f"call void {_pointer(call.function)}({operands}, i64 {start}, i64 {stop})")
        if parts > 1:
            e.line(f"call void @wait(ptr %barrier, i64 {(index + 1) * parts})")
    if parts > 1:
        e.globals.append(WAIT)
    return e.function("kernel", [("ptr", "%images"), ("ptr", "%barrier")])


def _pointer(address: int) -> str:
    return "%images" if address == IMAGES else f"inttoptr (i64 {address} to ptr)"


def images_ir(layout: Layout) -> str:
    """kernel(images, y, begin, end): rows begin to end - 1 of [N, C, H, W] in fp32 to a layout."""
    e = Emitter()
    size = BYTES[layout.storage]
    image, row, column = layout.strides
    plane = layout.height * layout.width
    with e.loop("%end", "%begin") as rows:
        n = e.value(f"udiv i64 {rows.index}, {layout.height}")
        h = e.value(f"urem i64 {rows.index}, {layout.height}")
        source = e.add(e.multiply(n, 4 * plane * layout.channels), e.multiply(h, 4 * layout.width))
        x = e.address("%x", source)
        y = e.address("%y", e.add(str(layout.origin), e.multiply(n, image), e.multiply(h, row)))
        with e.loop(str(layout.width)) as columns:
            left = e.address(x, e.multiply(columns.index, 4))
            right = e.address(y, e.multiply(columns.index, column))
            for c in range(layout.channels):
                value = e.value(f"load float, ptr {e.address(left, 4 * plane * c)}, align 4")
                store(e, value, e.address(right, c * size), layout.storage)
    return e.function("kernel", [("ptr", "%x"), ("ptr", "%y"), ("i64", "%begin"), ("i64", "%end")])


def store(e: Emitter, number: str, address: str, storage: Storage) -> None:
    """Round one number to `storage` (nearest even) and write it; LLVM's own bf16 rounding may need a library."""
    kind, size = ELEMENT[storage], BYTES[storage]
    if storage == "bfloat16" and not cpu.has("avx512bf16"):
        bits = e.value(f"bitcast float {number} to i32")
        odd = e.value(f"and i32 {e.value(f'lshr i32 {bits}, 16')}, 1")
        moved = e.value(f"add i32 {bits}, {e.value(f'add i32 {odd}, 32767')}")
        nan = e.value(f"fcmp uno float {number}, {number}")
        quiet = e.value(f"or i32 {bits}, {1 << 22}")
        number = e.value(f"select i1 {nan}, i32 {quiet}, i32 {moved}")
        number = e.value(f"trunc i32 {e.value(f'lshr i32 {number}, 16')} to i16")
        kind = "i16"
    elif storage != "float32":
        number = e.value(f"fptrunc float {number} to {kind}")
    e.line(f"store {kind} {number}, ptr {address}, align {size}")
