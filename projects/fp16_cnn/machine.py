"""Stage `machine`: what the CPU at hand can do, in seconds, and the layers and blockings that the timing stages use."""

from __future__ import annotations

import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.files import read_json, write_json
from common.study.model import Inputs, Metrics
from projects.fp16_cnn import cpu, depthwise, micro, networks, timing
from projects.fp16_cnn.blocking import best
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.packing import aligned
from projects.fp16_cnn.precision import PRECISIONS, TIMED, Precision, Storage

FILE = "machine.json"
BLOCK = 128  # numbers of one turn of a stream
SIZES = (*(1 << power for power in range(14, 28)), *(3 << power for power in range(19, 24)))
"""Bytes of the working sets at which bandwidth is measured: from the first cache to beyond the last."""
ARITHMETIC = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
CURVES = ("widening", "reads", "writes", "cold", "cold_strided", "together")
APART = 33 * 64  # bytes from the start of a page
SUMS = (1, 2, 3, 4, 6, 9, 12)  # products of the short sums
CHANNELS = 384  # of the strided reads: a depthwise layer of middling width
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Machine:
    """Speeds of one core.

    Attributes:
        cpu: its name.
        peaks: arithmetic -> operations a second.
        loads: storage -> numbers a second, loaded from the first cache, converted to fp32 and added.
        stores: storage -> numbers a second, converted from fp32 and stored to the first cache.
        widening: fp16 numbers a second, converted into an fp32 array beside them, by the bytes of the two.
        reads, writes: (working set in bytes, bytes a second), data wherever the last pass left them.
        cold: (bytes, bytes a second) of one read of data that no cache holds.
        cold_strided: the same, but 16 channels of every pixel at a time.
        unhidden: share of the time of loads and conversions that multiplications do not hide in a long sum.
        sharing: storage -> the same where sums are short and stored at once: they share the ports of the core.
        depthwise: see `depthwise.rates`.
        call: seconds that calling a kernel takes.
        together: (working set of each of two threads, bytes a second of both).
    """

    cpu: str
    peaks: Mapping[str, float]
    loads: Mapping[str, float]
    stores: Mapping[str, float]
    widening: Curve
    reads: Curve
    writes: Curve
    cold: Curve
    cold_strided: Curve
    unhidden: float
    sharing: Mapping[str, float]
    depthwise: depthwise.Rates
    call: float
    together: Curve

    def peak(self, precision: Precision) -> float:
        """Operations a second of a precision's arithmetic.

        Raises:
            KeyError: this CPU has no such arithmetic.
        """
        return self.peaks[precision.multiplies]


def at(curve: Curve, size: float) -> float:
    """A curve at a working set of `size` bytes: log-log interpolation, constant beyond its ends."""
    if size <= curve[0][0]:
        return curve[0][1]
    for (left, low), (right, high) in pairwise(curve):
        if size <= right:
            share = math.log(size / left) / math.log(right / left)
            return math.exp((1 - share) * math.log(low) + share * math.log(high))
    return curve[-1][1]


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """Measure the machine, list the networks' different layers, find their blockings.

    Metrics: `peak_<arithmetic>_gflops`, `load_<storage>_gelements`, `read_<size>_gb`, `cold_gb`, `together_gb`,
    `unhidden`, `sharing_<storage>`, `call_us`, `depthwise_<kernel>_<precision>_gelements`, `layers` (different
    ones, all networks).
    """
    options = cfg["micro"]
    found = measure(int(options["rounds"]), float(options["sample"]), int(options["largest"]))
    save(found, out)
    listed = {name: networks.timed_cells(name, str(part)) for name, part in cfg["nets"].items()}
    networks.save(listed, out)
    cells = [cell for part in listed.values() for cell in part] if options["tune"] else []
    for cell, name in itertools.product(cells, timed()):
        best(cell.shape, PRECISIONS[name])  # measured here, so that the timing stages find it in the cache
    print(cpu.announce())
    return {
        **{f"peak_{name}_gflops": peak / 1e9 for name, peak in found.peaks.items()},
        **{f"load_{name}_gelements": rate / 1e9 for name, rate in found.loads.items()},
        **{f"read_{_named(size)}_gb": at(found.reads, size) / 1e9 for size in (1 << 14, 1 << 19, 1 << 23)},
        "read_memory_gb": found.reads[-1][1] / 1e9,
        "cold_gb": found.cold[-1][1] / 1e9,
        "together_gb": found.together[-1][1] / 1e9,
        "unhidden": found.unhidden,
        **{f"sharing_{storage}": share for storage, share in found.sharing.items()},
        "call_us": 1e6 * found.call,
        **{
            f"depthwise_{name.replace(' ', '_')}_{precision}_gelements": rate / 1e9
            for name, rates in found.depthwise.items()
            for precision, rate in rates.items()
        },
        "layers": float(sum(map(len, listed.values()))),
    }


def measure(rounds: int, sample: float, largest: int = max(SIZES)) -> Machine:
    """All of a `Machine`, in a few seconds.

    Args:
        rounds: samples of each speed; the fastest counts, as noise only slows.
        sample: seconds of one.
        largest: bytes of the largest working set.
    """
    sizes = sorted(size for size in SIZES if size <= largest)
    p, out = (aligned((max(sizes) // 4 + APART,), np.float32) for _ in range(2))
    filled = out.ctypes.data + APART  # else stores block loads of equal lower address bits

    def rate(ir: str, numbers: int) -> float:
        """Numbers a second of a stream over `numbers`."""
        kernel, blocks = compile_function(ir, "kernel", 2, 2).call, max(1, numbers // BLOCK)
        repeats = max(1, (1 << 17) // (blocks * BLOCK))
        call = _bound(kernel, p, filled, blocks, repeats)
        return blocks * BLOCK * repeats / min(timing.hot({"": call}, rounds, sample)[""])

    def curve(ir: str) -> Curve:
        return tuple((size, 4 * rate(ir, size // 4)) for size in sizes)

    first = 2048  # numbers that fit into the first cache twice, in fp32
    storages: tuple[Storage, ...] = ("float32", "float16", "bfloat16")
    read, strided = micro.read_ir("float32"), micro.strided_ir(CHANNELS)
    return Machine(
        cpu=cpu.cpu_name(),
        peaks={name: peak(PRECISIONS[ARITHMETIC[name]], rounds, sample) for name in arithmetics()},
        loads={storage: rate(micro.read_ir(storage), first) for storage in storages},
        stores={storage: _stored(storage, lambda ir: rate(ir, first)) for storage in storages},
        widening=tuple((size, rate(micro.copy_ir("float16", "float32"), size // 6)) for size in sizes),
        reads=curve(read),
        writes=curve(micro.copy_ir(None, "float32")),
        cold=tuple((size, _cold(read, BLOCK, p, size, rounds)) for size in sizes),
        cold_strided=tuple(
            (size, _cold(strided, micro.PIXELS * CHANNELS, p, size, rounds))
            for size in sizes
            if size >= 4 * micro.PIXELS * CHANNELS
        ),
        unhidden=_unhidden(lambda ir: rate(ir, first)),
        sharing={storage: _sharing(storage, lambda ir: rate(ir, first)) for storage in storages},
        depthwise=depthwise.rates(timed(), rounds, sample),
        call=depthwise.call_seconds(rounds, sample),
        together=tuple((size, _together(p, size, rounds)) for size in sizes if size > 1 << 18),
    )


def timed() -> list[str]:
    """The precisions whose speed means something on this CPU."""
    return [name for name in TIMED if name in cpu.available()]


def arithmetics() -> list[str]:
    """The arithmetics for which this CPU has instructions."""
    return [name for name, precision in ARITHMETIC.items() if cpu.has(*PRECISIONS[precision].needs)]


def peak(precision: Precision, rounds: int, sample: float) -> float:
    """Operations a second with all operands in registers."""
    turns = 20_000
    memory = aligned((64,), np.float32)
    call = _bound(compile_function(micro.peak_ir(precision), "kernel", 1, 1).call, memory, turns)
    return micro.peak_flops(precision, turns) / min(timing.hot({"": call}, rounds, sample)[""])


def quiet_work(seconds: float = 0.01) -> Callable[[], float]:
    """The fixed work of `timing.Quiet`: fp32 multiplications, seconds by the wall clock, the median of five runs.

    The wall clock also sees other processes, which take caches and memory away even where the CPU clock stands still.
    A core that was idle or did lighter work runs faster for some milliseconds: two runs before the timed ones and
    runs this long make a reading steady within 3 % where runs of 2 ms move by 16 % (Xeon, family 6 model 207).
    """
    precision, memory = PRECISIONS["f32"], aligned((64,), np.float32)
    kernel = compile_function(micro.peak_ir(precision), "kernel", 1, 1).call
    once = _bound(kernel, memory, 1000)
    turns = 1000 * timing.repetitions(once, seconds)
    call = _bound(kernel, memory, turns)
    return lambda: statistics.median([timing.sample_of(call, 1, time.perf_counter) for _ in range(7)][2:])


def save(machine: Machine, folder: Path) -> None:
    """Write machine.json."""
    write_json(folder / FILE, asdict(machine))


def load(folder: Path) -> Machine:
    """Read machine.json."""
    held = read_json(folder / FILE)
    curves = {name: tuple(map(tuple, held[name])) for name in CURVES}
    return Machine(**(held | curves))


def _bound(kernel: Callable[..., None], *arguments: int | np.ndarray) -> Callable[[], None]:
    """A call on numbers, addresses and arrays; it keeps the arrays alive, which an address does not."""
    numbers = [value.ctypes.data if isinstance(value, np.ndarray) else value for value in arguments]

    def call(_held: object = arguments) -> None:
        kernel(*numbers)

    return call


def _unhidden(rate: Callable[[str], float]) -> float:
    """What of conversions and multiplications does not hide: together = longest + share * others."""
    together, multiplied = 1 / rate(micro.mixed_ir("float16", 2)), 1 / rate(micro.mixed_ir("float32", 2))
    return _share(together, multiplied, 1 / rate(micro.read_ir("float16")))


def _stored(storage: Storage, rate: Callable[[str], float]) -> float:
    """Numbers a second, converted and stored; a constant would be converted once, so they are copied from fp32."""
    return rate(micro.copy_ir(None if storage == "float32" else "float32", storage))


def _sharing(storage: Storage, rate: Callable[[str], float]) -> float:
    """The same for short sums that are stored at once: the median over sums of 1 to 12 products."""
    once = (1 / rate(micro.mixed_ir("float32", 3))) / 3
    loaded, stored = 1 / rate(micro.read_ir(storage)), 1 / _stored(storage, rate)
    return statistics.median(
        _share(1 / rate(micro.copy_ir(storage, storage, each)), each * once, loaded, stored) for each in SUMS
    )


def _share(together: float, *alone: float) -> float:
    """The share s in together = longest + s * (the others)."""
    longest = max(alone)
    return min(1.0, max(0.0, (together - longest) / (sum(alone) - longest)))


def _cold(ir: str, block: int, p: np.ndarray, size: int, rounds: int) -> float:
    """Bytes a second of one pass over `size` bytes that no cache holds."""
    kernel, blocks = compile_function(ir, "kernel", 2, 2).call, size // 4 // block
    sums = aligned((64,), np.float32)
    call = _bound(kernel, p, sums, blocks, 1)
    empty = timing.emptier([(p.ctypes.data, size)])
    return 4 * block * blocks / timing.medians(timing.cold({"": call}, rounds, {"": empty}))[""]


def _together(p: np.ndarray, size: int, rounds: int) -> float:
    """Bytes a second of two threads that read at the same time, each its own `size` bytes where there is room."""
    kernel = compile_function(micro.read_ir("float32"), "kernel", 2, 2).call
    sums = aligned((2, 64), np.float32)
    repeats = max(1, (1 << 25) // size)
    start = p.ctypes.data
    places = [start, start + (size if 2 * size <= p.nbytes else 0)]
    parts = [
        _bound(kernel, place, sums[which], size // 4 // BLOCK, repeats) for which, place in enumerate(places)
    ]

    def both() -> float:
        threads = [threading.Thread(target=part) for part in parts]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun

    return 2 * size * repeats / min(both() for _ in range(rounds))


def _named(size: int) -> str:
    return f"{size >> 10}k" if size < 1 << 20 else f"{size >> 20}m"
