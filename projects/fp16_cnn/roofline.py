"""Why a layer takes the time it takes: the longest of computing, moving and converting, and what hides behind it.

The roofline with a conversion term, t = max(F / P, B / BW, N / C) [Naganuma 2018 asks for the reason in each layer;
Williams, Waterman, Patterson 2009 for the roofline], F operations, P the arithmetic's peak, B bytes, BW the bandwidth
at the layer's working set, N numbers converted, C conversions a second. The gain of a precision is t(fp32) / t.

`pipes` refines it by what the kernels do. The parts of an inner loop share the ports of a core, so that the shorter
ones hide only in part: t = longest + s (sum of the others), with s measured on the machine: small where sums stay in
registers (convolutions, fully connected layers), larger where they are stored after a few products (sums of streams).
What a depthwise layer's core takes is measured on data in the first cache, see `depthwise`. Memory hides behind the
core's work where data are hot or form one long stream, which is fetched ahead; it adds to it where a convolution meets
cold data, and in depthwise layers, which read a few channels of each pixel. An fp16 input of a convolution is first
converted into a scratch array, in a pass of its own. Every kernel is called once. Nothing is fitted to the layers'
times: every coefficient is a microbenchmark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from projects.fp16_cnn import depthwise
from projects.fp16_cnn.blocking import default
from projects.fp16_cnn.machine import Machine, at
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import BYTES, PRECISIONS, Precision
from projects.fp16_cnn.shape import LayerShape

State = Literal["hot", "cold"]
Model = Literal["pipes", "roofline", "noconvert", "memory"]
MODELS: tuple[Model, ...] = ("pipes", "roofline", "noconvert", "memory")


@dataclass(frozen=True)
class Terms:
    """Seconds that each part of a layer would take alone.

    Attributes:
        compute: multiplications and additions.
        memory: moving weights, inputs and outputs, where they are too far away for the first cache.
        convert: loads with their conversions in the first cache.
        store: stores with theirs.
        before: calling the kernel, and converting the input in a pass of its own.
        share: of the shorter parts of the core's work that the longest does not hide.
        hidden: whether memory hides behind the core's work.
    """

    compute: float
    memory: float
    convert: float
    store: float
    before: float
    share: float
    hidden: bool = True

    @property
    def seconds(self) -> float:
        """The pass before, the core's work, and the memory that it does not hide."""
        parts = (self.compute, self.convert, self.store)
        core = max(parts) + self.share * (sum(parts) - max(parts))
        return self.before + (max(core, self.memory) if self.hidden else core + self.memory)


def seconds(
    machine: Machine, cell: Cell, precision: str, state: State = "hot", model: Model = "pipes"
) -> float:
    """Predicted time of a layer.

    Args:
        model: "noconvert" is `pipes` in which conversions cost nothing; "memory" counts bytes alone.

    Raises:
        KeyError: the machine has no such arithmetic.
    """
    kind = PRECISIONS[precision]
    if model == "pipes":
        return terms(machine, cell, kind, state).seconds
    if model == "noconvert":
        return without_conversion(machine, cell, kind, state).seconds
    moved = bytes_of(cell, kind) / bandwidth(machine, bytes_of(cell, kind), state)
    if model == "memory":
        return moved
    return max(
        cell.shape.flops / machine.peak(arithmetic(cell.shape, kind)), moved, conversions(machine, cell, kind)
    )


def gain(machine: Machine, cell: Cell, precision: str, state: State = "hot", model: Model = "pipes") -> float:
    """Predicted time in fp32 over that in a precision."""
    return seconds(machine, cell, "f32", state, model) / seconds(machine, cell, precision, state, model)


def compute_bound(machine: Machine, cell: Cell, precision: str) -> bool:
    """A convolution whose computing is the longest part even when all its data come from memory, in the roofline."""
    kind = PRECISIONS[precision]
    if cell.shape.kind != "conv":
        return False
    moved = bytes_of(cell, kind) / bandwidth(machine, bytes_of(cell, kind), "cold")
    return cell.shape.flops / machine.peak(kind) > max(moved, conversions(machine, cell, kind))


def terms(machine: Machine, cell: Cell, kind: Precision, state: State) -> Terms:
    """The parts of a layer's time as our kernels spend it."""
    shape = cell.shape
    size = bytes_of(cell, kind)
    compute = shape.flops / machine.peak(arithmetic(shape, kind))
    if shape.kind == "depthwise":
        core = depthwise.seconds(machine.depthwise, shape, kind)
        return Terms(
            core, moved(machine, size, state, strided=True), 0.0, 0.0, machine.call, 0.0, hidden=False
        )
    stored = shape.outputs / machine.stores[kind.activations]
    dot = kind.multiplies == "bfloat16"
    weights = shape.weights * math.ceil(pixels(shape) / default(shape, kind).pixels)
    converted = 0.0 if dot or kind.weights == "float32" else weights / machine.loads[kind.weights]
    before, hidden = machine.call, state == "hot" or shape.kind == "dense"
    if kind.activations == "float16" and kind.multiplies == "float32":
        before += shape.inputs / at(machine.widening, 6 * shape.inputs)
    return Terms(compute, moved(machine, size, state), converted, stored, before, machine.unhidden, hidden)


def stream(
    machine: Machine, numbers: int, precision: str, state: State = "hot", convert: bool = True
) -> float:
    """Predicted time of a residual sum: two operands of `numbers` read, one written."""
    kind = PRECISIONS[precision].activations
    size = 3 * numbers * BYTES[kind]
    of = kind if convert else "float32"
    scale = 1.0 if convert else BYTES[kind] / BYTES["float32"]
    loaded, stored = 2 * numbers * scale / machine.loads[of], numbers * scale / machine.stores[of]
    return Terms(
        0.0, moved(machine, size, state), loaded, stored, machine.call, machine.sharing[kind]
    ).seconds


def stream_bytes(machine: Machine, numbers: int, precision: str, state: State) -> float:
    """Seconds of a residual sum that only moves its bytes."""
    size = 3 * numbers * BYTES[PRECISIONS[precision].activations]
    return size / bandwidth(machine, size, state)


def without_conversion(machine: Machine, cell: Cell, kind: Precision, state: State) -> Terms:
    """The same parts on a machine whose conversions are as fast as the loads and stores of as many bytes."""
    free = replace(
        machine,
        loads={name: machine.loads["float32"] * 4 / BYTES[name] for name in BYTES},
        stores={name: machine.stores["float32"] * 4 / BYTES[name] for name in BYTES},
        sharing=dict.fromkeys(BYTES, machine.sharing["float32"]),
        depthwise={name: dict.fromkeys(rates, rates["f32"]) for name, rates in machine.depthwise.items()},
    )
    return replace(terms(free, cell, kind, state), before=machine.call)


def moved(machine: Machine, size: float, state: State, strided: bool = False) -> float:
    """Seconds of moving `size` bytes, none where they fit into the first cache.

    Args:
        strided: a few channels of each pixel at a time: what comes from memory is not fetched ahead as well.
    """
    if state == "cold":
        return size / at(machine.cold_strided if strided else machine.cold, size)
    return size / at(machine.reads, size) if size > machine.reads[0][0] else 0.0


def bandwidth(machine: Machine, size: float, state: State) -> float:
    """Bytes a second at a working set."""
    return at(machine.cold if state == "cold" else machine.reads, size)


def bytes_of(cell: Cell, kind: Precision) -> int:
    """Bytes of weight, inputs and output, each counted once."""
    added = cell.shape.outputs * BYTES[kind.activations] if cell.residual else 0
    return cell.shape.bytes(kind) + added


def conversions(machine: Machine, cell: Cell, kind: Precision) -> float:
    """Seconds of converting every number that the kernel does not multiply as it is stored, once each."""
    if arithmetic(cell.shape, kind) is not kind:
        return (cell.shape.inputs + cell.shape.weights) / machine.loads[kind.activations]
    if kind.multiplies != "float32":
        return 0.0
    total = 0.0
    for numbers, storage in ((cell.shape.weights, kind.weights), (cell.shape.inputs, kind.activations)):
        total += 0.0 if storage == "float32" else numbers / machine.loads[storage]
    return total


def arithmetic(shape: LayerShape, kind: Precision) -> Precision:
    """What multiplies: a depthwise layer has no pairs of channels, and multiplies bf16 as fp32."""
    return PRECISIONS["f32"] if shape.kind == "depthwise" and kind.multiplies == "bfloat16" else kind


def pixels(shape: LayerShape) -> int:
    """Positions of the output, in the whole batch."""
    return shape.batch * shape.out_height * shape.out_width
