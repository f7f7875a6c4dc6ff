"""Times that can be compared: interleaved rounds, medians, caches emptied on purpose, and a watch on the machine.

One-thread kernels are timed by the CPU clock of their thread, which a pre-empted thread does not advance; what runs on
several threads by the wall clock. A virtual machine's neighbours slow both: `Quiet` therefore measures the speed of
the same fp32 multiplications again and again, and calls the machine noisy when it moves. They touch no memory: that a
neighbour takes bandwidth away shows in one call that is timed as if it were two.
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
TWINS = 0.15  # relative difference of one call's two medians that does: memory is less steady than the clock
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

    What is usual is the median of all readings: a core's clock may be lifted for a moment, so that the fastest reading
    says nothing about the others.

    Attributes:
        work: seconds that the fixed work takes now.
        limit: relative move away from the usual that makes the machine noisy.
        readings: seconds, one a reading that counts.
        taken: all readings, those of measurements that were made again too.
        apart: relative differences of calls that were timed as if they were two, of measurements that count.
    """

    work: Clock
    limit: float = LIMIT
    readings: list[float] = field(default_factory=list[float])
    taken: list[float] = field(default_factory=list[float])
    apart: list[float] = field(default_factory=list[float])

    def twins(self, one: float, other: float) -> None:
        """Tell the seconds that one and the same call took, timed as if it were two."""
        self.apart.append(max(one / other, other / one) - 1.0)

    def read(self) -> float:
        """Take a reading."""
        self.readings.append(self.work())
        self.taken.append(self.readings[-1])
        return self.readings[-1]

    @property
    def drift(self) -> float:
        """Relative move from what is usual to the farthest reading that counts."""
        usual = statistics.median(self.taken) if self.taken else 1.0
        return max((max(one / usual, usual / one) - 1.0 for one in self.readings), default=0.0)

    @property
    def noisy(self) -> bool:
        """Whether the machine moved by more than the limit, or twins differ by more than `TWINS`."""
        return self.drift > self.limit or max(self.apart, default=0.0) > TWINS

    def attempts(self, most: int) -> Iterator[int]:
        """Turns of one measurement, each between two readings; ends after the first turn that was quiet.

        The readings of a turn that is measured again no longer count, those of the last one do. A turn is quiet when
        both of its readings are near the usual and the twins that it told of are alike.
        """
        for turn in range(most):
            kept, told = len(self.readings), len(self.apart)
            self.read()
            yield turn
            self.read()
            if not self.noisy or turn == most - 1:
                return
            self.readings[kept:], self.apart[told:] = [], []
