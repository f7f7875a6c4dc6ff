"""Times that can be compared: interleaved rounds, medians, caches emptied on purpose, and a watch on the machine.

One-thread kernels are timed by the CPU clock of their thread, which a pre-empted thread does not advance; what runs on
several threads by the wall clock. A virtual machine's neighbours slow both: `Quiet` therefore measures the speed of
the same fp32 multiplications again and again, and calls the machine noisy when it moves.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from projects.fp16_cnn import cpu
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.packing import ALIGNMENT

Call = Callable[[], object]
Clock = Callable[[], float]
LIMIT = 0.08  # relative move of the machine's own peak that makes it noisy
MOST = 1 << 20  # calls in one sample


def repetitions(call: Call, sample: float, clock: Clock = time.perf_counter) -> int:
    """Calls that take about `sample` seconds together; the first call, which may compile, is not counted."""
    call()
    start = clock()
    call()
    once = max(clock() - start, 1e-7)
    return max(1, min(MOST, math.ceil(sample / once)))


def sample_of(call: Call, count: int, clock: Clock) -> float:
    """Seconds a call, over `count` calls in a row."""
    turns = range(count)
    start = clock()
    for _ in turns:
        call()
    return (clock() - start) / count


def hot(
    calls: Mapping[str, Call],
    rounds: int,
    sample: float,
    clock: Clock = time.thread_time,
    patience: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds a call of each, its data wherever the call before left it; one sample of each in every round.

    Args:
        rounds: samples of each call, interleaved, so that a slow spell hits all alike.
        sample: seconds of one sample, about.
        patience: seconds after which a slow call gets no further samples.
    """
    counts = {name: repetitions(call, sample) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(found[name]) * counts[name] < patience:
                found[name].append(sample_of(call, counts[name], clock))
    return found


def cold(
    calls: Mapping[str, Call], rounds: int, empty: Mapping[str, Call], clock: Clock = time.thread_time
) -> dict[str, list[float]]:
    """Seconds of one call of each after `empty[name]()` took its data out of every cache."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # code, stack and translations stay warm: only the data are cold
            empty[name]()
            found[name].append(sample_of(call, 1, clock))
    return found


def medians(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in samples.items()}


def flush_ir(optimised: bool) -> str:
    """kernel(p, lines): take `lines` cache lines from `p` on out of every cache, then wait for memory.

    Args:
        optimised: by clflushopt, whose calls do not wait for each other as those of clflush do.
    """
    flush = "llvm.x86.clflushopt" if optimised else "llvm.x86.sse2.clflush"
    e = Emitter()
    e.declarations |= {f"declare void @{flush}(ptr)", "declare void @llvm.x86.sse2.mfence()"}
    with e.loop("%lines") as loop:
        e.line(f"call void @{flush}(ptr {e.address('%p', e.multiply(loop.index, ALIGNMENT))})")
    e.line("call void @llvm.x86.sse2.mfence()")
    return e.function("kernel", [("ptr", "%p"), ("i64", "%lines")])


def emptier(regions: Sequence[tuple[int, int]]) -> Call:
    """A function that takes regions of memory, each (address, bytes), out of every cache."""
    flush = compile_function(flush_ir(cpu.has("clflushopt")), "kernel", 1, 1).call
    lines = [(address, -(-size // ALIGNMENT)) for address, size in regions if size]

    def empty() -> None:
        for address, count in lines:
            flush(address, count)

    return empty


@dataclass
class Quiet:
    """Watches the speed of a fixed piece of work while others are timed.

    Attributes:
        work: seconds that the fixed work takes now.
        limit: relative move that makes the machine noisy.
        readings: seconds, one a reading.
    """

    work: Clock
    limit: float = LIMIT
    readings: list[float] = field(default_factory=list[float])

    def read(self) -> float:
        """Take a reading."""
        self.readings.append(self.work())
        return self.readings[-1]

    def moved(self, *seconds: float) -> float:
        """Relative move between the fastest and the slowest of these, of all readings if none is given."""
        of = seconds or tuple(self.readings)
        return max(of) / min(of) - 1.0 if of else 0.0

    @property
    def drift(self) -> float:
        """Relative move from the fastest reading kept to the slowest."""
        return self.moved()

    @property
    def noisy(self) -> bool:
        """Whether the machine moved by more than the limit."""
        return self.drift > self.limit

    def attempts(self, most: int) -> Iterator[int]:
        """Turns of one measurement, each between two readings; ends after the first turn that was quiet.

        The readings of a turn that is measured again are forgotten, those of the last one are kept. A turn is quiet
        when both of its readings are near the fastest one ever taken.
        """
        for turn in range(most):
            kept = len(self.readings)
            self.read()
            yield turn
            self.read()
            if not self.noisy or turn == most - 1:
                return
            fastest = min(self.readings)
            self.readings[kept:] = []
            if kept and fastest < min(self.readings):  # the machine became faster: all before was slow
                self.readings.append(fastest)
