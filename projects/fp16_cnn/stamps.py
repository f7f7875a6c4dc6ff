"""When each turn of a network ended, by the CPU's time-stamp counter, read between the kernels of an ordinary run."""

from __future__ import annotations

import functools
import time

import numpy as np
from jaxtyping import Float64

from projects.fp16_cnn.compiler import Compiled, compile_function
from projects.fp16_cnn.driver import Call
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.packing import aligned

CALIBRATION = 0.02  # seconds


class Stamps:
    """A row of readings; each is taken by a kernel that stands between two others."""

    def __init__(self, count: int) -> None:
        self._ticks = aligned((count,), np.int64)

    def call(self, place: int) -> Call:
        """What takes reading `place`."""
        return Call(_kernel().address, (self._ticks.ctypes.data + 8 * place,), 1)

    def seconds(self) -> Float64[np.ndarray, " count-1"]:
        """Between each reading and the next."""
        return np.diff(self._ticks) * tick()


def stamp_ir() -> str:
    """kernel(slot, begin, end): the counter into `slot`."""
    e = Emitter()
    e.declarations.add("declare i64 @llvm.readcyclecounter()")
    e.line(f"store volatile i64 {e.value('call i64 @llvm.readcyclecounter()')}, ptr %slot, align 8")
    return e.function("kernel", [("ptr", "%slot"), ("i64", "%begin"), ("i64", "%end")])


@functools.cache
def tick() -> float:
    """Seconds of one step of the counter, whose rate is constant and is not that of the core."""
    read, slot = _kernel().call, aligned((2,), np.int64)
    first, start = slot.ctypes.data, time.perf_counter()
    read(first, 0, 1)
    while time.perf_counter() - start < CALIBRATION:
        pass
    read(first + 8, 0, 1)
    return (time.perf_counter() - start) / float(slot[1] - slot[0])


def _kernel() -> Compiled:
    return compile_function(stamp_ir(), "kernel", 1, 2)
