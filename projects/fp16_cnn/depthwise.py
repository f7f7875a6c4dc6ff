"""What the core alone takes for an output of a depthwise layer: the layer's own kernel on data in the first cache.

Its sums are short (9 or 25 products) and stored at once, so that multiplications, conversions, activations and stores
meet at the core's ports in a way that no other microbenchmark shows: on a Zen 5 fp32 runs at the peak of its
multiplications, and half precision at two thirds of it, whatever its bytes.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from projects.fp16_cnn import layer, timing
from projects.fp16_cnn.blocking import default
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.precision import PRECISIONS, Precision
from projects.fp16_cnn.shape import LayerShape

KERNELS = (3, 5)
STRIDES = (1, 2)
CHANNELS = 32  # a vector of any arithmetic
ROWS, COLUMNS = (
    4,
    7,
)  # outputs: whole tiles of the default blocking; inputs, weights and outputs fit into 32 KiB
TURNS = 200  # of the whole layer in one call, which then takes some 10 us or more
Rates = dict[str, dict[str, float]]


def rates(names: Sequence[str], rounds: int, sample: float) -> Rates:
    """Kernel and stride ("k3 s1") -> precision -> outputs a second.

    Args:
        names: precisions that this CPU has instructions for.
        rounds: samples of each; the fastest counts.
        sample: seconds of one.
    """
    found: Rates = {}
    for kernel, stride in itertools.product(KERNELS, STRIDES):
        shape = _shape(kernel, stride)
        calls = {name: _call(shape, name, TURNS) for name in names}
        seconds = timing.hot(calls, rounds, sample)
        found[_key(kernel, stride)] = {name: TURNS * shape.outputs / min(seconds[name]) for name in names}
    return found


def call_seconds(rounds: int, sample: float) -> float:
    """What calling a kernel takes: one tile of a layer, which is next to nothing."""
    return min(timing.hot({"": _call(_shape(3, 1), "f32", 0)}, rounds, sample)[""])


def seconds(measured: Rates, shape: LayerShape, precision: Precision) -> float:
    """The core's time for a layer: of the measured kernel and stride next to its own, by its products.

    Outputs that tiles compute twice count twice: the last tile of a row or column overlaps its neighbour.
    """
    taps = math.prod(shape.kernel)
    kernel = min(KERNELS, key=lambda side: abs(side * side - taps))
    rate = measured[_key(kernel, min(max(STRIDES), *shape.stride))][precision.name] * kernel * kernel / taps
    blocking = default(shape, precision)
    rows = _overlap(shape.out_height, blocking.vectors)
    return shape.outputs * rows * _overlap(shape.out_width, blocking.pixels) / rate


def _overlap(size: int, tile: int) -> float:
    """Computed over needed: the fewest tiles of at most `tile`, all of one size."""
    count = -(-size // tile)
    return count * -(-size // count) / size


def _key(kernel: int, stride: int) -> str:
    return f"k{kernel} s{stride}"


def _shape(kernel: int, stride: int) -> LayerShape:
    height, width = ((outputs - 1) * stride + kernel for outputs in (ROWS, COLUMNS))
    return LayerShape(
        "depthwise",
        1,
        CHANNELS,
        CHANNELS,
        height,
        width,
        (kernel, kernel),
        (stride, stride),
        groups=CHANNELS,
    )


def _call(shape: LayerShape, name: str, turns: int) -> timing.Call:
    """The kernel, `turns` times from within: its walk over the tiles begins anew after the last one. 0: one tile."""
    storage = PRECISIONS[name].activations
    source = Layout(1, shape.height, shape.width, CHANNELS, storage=storage)
    target = Layout(1, shape.out_height, shape.out_width, CHANNELS, storage=storage)
    weight = np.full((CHANNELS, 1, *shape.kernel), 0.1, np.float32)
    built = layer.build(shape, name, weight, None, activation="relu6", source=source, target=target)
    x, y, (phase,) = Buffer(source), Buffer(target), built.phases
    pointers = {"x": x.pointer, "y": y.pointer, "residual": 0}
    addresses = [
        ctypes.c_void_p(pointers[operand] if isinstance(operand, str) else operand.ctypes.data)
        for operand in phase.operands
    ]
    end = ctypes.c_int64(max(1, turns * phase.tiles))
    call = partial(built.compiled[0].call, *addresses, ctypes.c_int64(0), end)

    def held(_kept: object = (built, x, y)) -> None:
        call()

    return held
