"""Kernels that each do one thing, as text LLVM IR: multiply, convert, read, write, or two of these at once.

Together they measure what a layer's time is made of: the peak of each arithmetic, the cost of converting between
storages, the bandwidth of each level of the memory, and how far conversions and multiplications run beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from projects.fp16_cnn import cpu
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.multiply import Multiply
from projects.fp16_cnn.ir.vectors import constant, fma, load, store, vector
from projects.fp16_cnn.packing import LANES
from projects.fp16_cnn.precision import BYTES, Precision, Storage

ZERO = "zeroinitializer"
UNROLLED = 8  # vectors of one turn of a stream
STEP = UNROLLED * LANES  # numbers of one turn
PIXELS = 42 * UNROLLED
PARAMETERS = [("ptr", "%p"), ("ptr", "%out"), ("i64", "%blocks"), ("i64", "%repeats")]


def chains() -> int:
    """Independent sums: enough to hide the latency, few enough to stay in registers."""
    return 24 if cpu.has("avx512f") else 6


def peak_ir(precision: Precision) -> str:
    """kernel(p, turns): `chains()` independent multiply-adds of an arithmetic a turn, operands in registers."""
    e = Emitter()
    multiply = Multiply(e, precision, lanes_of(precision))
    weight, value = multiply.weight("%p"), multiply.input("%p")
    with e.loop("%turns", carried=[(multiply.kind, ZERO)] * chains()) as loop:
        loop.following = [multiply.add(total, weight, value) for total in loop.carried]
    for total in loop.following:
        e.line(f"store volatile {multiply.kind} {total}, ptr %p, align 64")
    return e.function("kernel", [("ptr", "%p"), ("i64", "%turns")])


def lanes_of(precision: Precision) -> int:
    """Numbers in a vector of sums."""
    return 32 if precision.multiplies == "float16" and not precision.emulated else LANES


def peak_flops(precision: Precision, turns: int) -> int:
    """Additions and multiplications of `peak_ir` in `turns` turns."""
    step = 2 if precision.multiplies == "bfloat16" else 1
    return 2 * turns * chains() * lanes_of(precision) * step


def read_ir(storage: Storage) -> str:
    """kernel(p, out, blocks, repeats): add up 128 `blocks` numbers as fp32, `repeats` times."""
    return _summed(storage, 0)


def mixed_ir(storage: Storage, multiplications: int) -> str:
    """As `read_ir`, each vector multiplied and added several times, sums in registers: a long inner product."""
    return _summed(storage, multiplications)


def copy_ir(source: Storage | None, target: Storage, multiplications: int = 0) -> str:
    """kernel(p, out, blocks, repeats): convert 128 `blocks` numbers from one storage to another, `repeats` times.

    Args:
        source: None: nothing is read.
        multiplications: of each vector on its way: a short sum that is stored at once, as in a depthwise layer.
    """
    e = Emitter()
    with e.loop("%repeats"), e.loop("%blocks", carried=[("ptr", "%p"), ("ptr", "%out")]) as block:
        p, out = block.carried
        for place in range(UNROLLED):
            number = constant(1.0)
            if source is not None:
                number = load(e, e.address(p, place * LANES * BYTES[source]), LANES, source)
            total = ZERO if multiplications else number
            for _ in range(multiplications):
                total = fma(e, number, number, total, LANES)
            store(e, total, e.address(out, place * LANES * BYTES[target]), LANES, target)
        moved = e.address(p, STEP * BYTES[source]) if source is not None else p
        block.following = [moved, e.address(out, STEP * BYTES[target])]
    return e.function("kernel", PARAMETERS)


def strided_ir(channels: int) -> str:
    """kernel(p, out, blocks, repeats): add up fp32 as a depthwise layer reads it, 16 channels of every pixel at a time.

    A block is 42 x 8 pixels of `channels` numbers; all of its channels are read before the next block.
    """
    kind, stride = vector(LANES), 4 * channels
    e = Emitter()
    with e.loop("%repeats", carried=[(kind, ZERO)] * UNROLLED) as repeat:
        with e.loop("%blocks", carried=[("ptr", "%p"), *_typed(repeat.carried)]) as block:
            p, *sums = block.carried
            with e.loop(channels // LANES, carried=[("ptr", p), *_typed(sums)]) as panel:
                first, *sums = panel.carried
                with e.loop(PIXELS // UNROLLED, carried=[("ptr", first), *_typed(sums)]) as pixel:
                    at, *sums = pixel.carried
                    for place, total in enumerate(sums):
                        number = load(e, e.address(at, place * stride), LANES, "float32")
                        sums[place] = e.value(f"fadd {kind} {total}, {number}")
                    pixel.following = [e.address(at, UNROLLED * stride), *sums]
                panel.following = [e.address(first, 4 * LANES), *pixel.following[1:]]
            block.following = [e.address(p, PIXELS * stride), *panel.following[1:]]
        repeat.following = block.following[1:]
    _keep(e, repeat.following)
    return e.function("kernel", PARAMETERS)


def _summed(storage: Storage, multiplications: int) -> str:
    e = Emitter()
    zeros = [(vector(LANES), ZERO)] * (UNROLLED * max(1, multiplications))
    with e.loop("%repeats", carried=zeros) as repeat:
        with e.loop("%blocks", carried=[("ptr", "%p"), *_typed(repeat.carried)]) as block:
            p, *sums = block.carried
            for place in range(UNROLLED):
                number = load(e, e.address(p, place * LANES * BYTES[storage]), LANES, storage)
                if not multiplications:
                    sums[place] = e.value(f"fadd {vector(LANES)} {sums[place]}, {number}")
                for chain in range(place, UNROLLED * multiplications, UNROLLED):
                    sums[chain] = fma(e, number, number, sums[chain], LANES)
            block.following = [e.address(p, STEP * BYTES[storage]), *sums]
        repeat.following = block.following[1:]
    _keep(e, repeat.following)
    return e.function("kernel", PARAMETERS)


def _typed(sums: Sequence[str]) -> list[tuple[str, str]]:
    return [(vector(LANES), name) for name in sums]


def _keep(e: Emitter, sums: Sequence[str]) -> None:
    """Store the sums, so that no compiler leaves them out."""
    for total in sums:
        e.line(f"store volatile {vector(LANES)} {total}, ptr %out, align 64")
