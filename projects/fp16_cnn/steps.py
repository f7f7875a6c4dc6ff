"""A program cut into kernels: the layout of every value, a compiled layer for every node, conversions between them.

A value's border is as wide as its widest reader needs, so that its producer writes into a border of zeros and no
reader pads. Where readers disagree on the storage, the value stays in fp32 and each gets a converted copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from projects.fp16_cnn import layer as builders
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.kernel import Layer as Kernel
from projects.fp16_cnn.precision import Precision, Storage
from projects.fp16_cnn.program import (
    Activate,
    Add,
    Fallback,
    Flatten,
    GlobalAverage,
    Layer,
    Node,
    Plan,
    Pool,
    Program,
    Scale,
    precisions,
    storages,
)
from projects.fp16_cnn.shape import LayerShape

Border = tuple[int, int, int, int]
NONE: Border = (0, 0, 0, 0)
FEW = 4  # channels of an image that are not padded to a vector
Tuner = Callable[[LayerShape, Precision], Blocking]


@dataclass(frozen=True, eq=False)
class Step:
    """One call at run time.

    Attributes:
        name: of the node that it computes.
        reads: values, the first one the layer's input.
        kernel: None where torch computes the node.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    kernel: Kernel | None = None
    node: Node | None = None


@dataclass
class Steps:
    """What a part of a program became.

    Attributes:
        batch: images that a step computes.
        layouts: of every value, converted copies included.
        same: values that are another value's memory, seen in another shape.
    """

    program: Program
    batch: int
    layouts: dict[str, Layout] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)

    def as_stored(self, value: str, storage: Storage, border: Border | None = None) -> str:
        """A value in another storage or with another border: itself, or a copy that one more step converts."""
        own = self.layouts[value]
        layout = replace(own, storage=storage, border=own.border if border is None else border)
        if layout == own:
            return value
        copy = f"{value} as {storage} x{self.batch}" + ("" if border is None else " without border")
        if copy not in self.layouts:
            self.layouts[copy] = layout
            self.steps.append(Step(copy, (value,), copy, builders.convert(own, layout)))
        return copy


def cut(
    program: Program, plan: Plan | None, batch: int, tuner: Tuner | None = None, nodes: slice = slice(None)
) -> Steps:
    """The steps of a program for `batch` images.

    Args:
        nodes: those of the program that are wanted.
        tuner: finds a layer's blocking by measuring; None: a good one without.

    Raises:
        BadInputError: the plan does not fit the program.
    """
    chosen, stored = precisions(program, plan), storages(program, plan)
    made = Steps(program, batch)
    for value in (program.source, *(node.name for node in program.nodes)):
        channels, height, width = program.extent(value)
        border = _border(program, value)
        made.layouts[value] = Layout(batch, height, width, channels, border, stored[value])
    if _convolved_only(program, chosen, stored[program.source]):
        made.layouts[program.source] = replace(made.layouts[program.source], compact=True)
    for node in program.nodes[nodes]:
        _cut(made, node, chosen, tuner)
    return made


def _convolved_only(program: Program, chosen: Mapping[str, Precision], storage: Storage) -> bool:
    """Whether nothing but convolutions reads the images, one number after the other: channels need no padding then."""
    return program.shape[0] <= FEW and all(
        isinstance(node, Layer)
        and program.source not in node.inputs[1:]
        and node.shape.groups == 1
        and chosen[node.name].activations == storage
        for node in program.consumers(program.source)
    )


def _border(program: Program, value: str) -> Border:
    """As wide as the widest padding among the layers that read a value."""
    paddings = [
        node.shape.padding
        for node in program.consumers(value)
        if isinstance(node, Layer) and node.inputs[0] == value
    ]
    top, bottom, left, right = (max(widths) for widths in zip(NONE, *paddings, strict=True))
    return top, bottom, left, right


def _cut(made: Steps, node: Node, chosen: Mapping[str, Precision], tuner: Tuner | None) -> None:
    layouts, target = made.layouts, made.layouts[node.name]
    source = node.inputs[0]
    match node:
        case Layer():
            _layer(made, node, chosen[node.name], tuner)
            return
        case Flatten() if _only_dense(made.program, node):
            _alias(made, node)
            return
        case Flatten() | Fallback():
            made.steps.append(Step(node.name, node.inputs, node.name, None, node))
            return
        case Pool():
            build = builders.max_pool if node.kind == "max" else builders.average_pool
            counted = {} if node.kind == "max" else {"counts_padding": node.divisor == "window"}
            kernel = build(layouts[source], target, node.kernel, node.stride, node.padding, **counted)
        case GlobalAverage():
            kernel = builders.global_average(layouts[source], target)
        case Add():
            kernel = builders.add(layouts[source], target, layouts[node.inputs[1]], node.activation)
        case Scale():
            kernel = builders.scale(layouts[source], target, layouts[node.inputs[1]])
        case Activate():
            kernel = builders.activation(layouts[source], target, node.activation)
        case _:
            raise TypeError(f"no kernel for {type(node).__name__}")
    made.steps.append(Step(node.name, node.inputs, node.name, kernel, node))


def _layer(made: Steps, node: Layer, precision: Precision, tuner: Tuner | None) -> None:
    source = made.as_stored(node.inputs[0], precision.activations)
    shape, weight = replace(node.shape, batch=made.batch), _array(node.weight)
    flat = next((n for n in made.program.nodes if n.name == node.inputs[0] and isinstance(n, Flatten)), None)
    if flat is not None and node.inputs[0] in made.same:
        weight = _as_stored(weight, made.program.extent(flat.inputs[0]), made.layouts[source])
        shape = replace(shape, in_channels=weight.shape[1])
    added = node.inputs[1] if node.residual else None
    kernel = builders.build(
        shape,
        precision,
        weight,
        None if node.bias is None else _array(node.bias),
        activation=node.activation,
        residual=False if added is None else made.layouts[added],
        source=made.layouts[source],
        target=made.layouts[node.name],
        blocking=tuner(shape, precision) if tuner else None,
    )
    reads = (source,) if added is None else (source, added)
    made.steps.append(Step(node.name, reads, node.name, kernel, node))


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().float().numpy())


def _only_dense(program: Program, node: Flatten) -> bool:
    readers = list(program.consumers(node.name))
    return program.output != node.name and all(isinstance(reader, Layer) for reader in readers)


def _alias(made: Steps, node: Flatten) -> None:
    """An image is a vector already: [H, W, padded C] without a border; the weights that read it are reordered."""
    layout = made.layouts[node.name]
    source = made.as_stored(node.inputs[0], layout.storage, NONE)
    image = made.layouts[source]
    length = image.height * image.width * image.channels_padded
    made.layouts[node.name] = Layout(layout.batch, 1, 1, length, NONE, layout.storage)
    made.same[node.name] = source


def _as_stored(weight: np.ndarray, extent: tuple[int, int, int], vector: Layout) -> np.ndarray:
    """Columns [C, H, W] of a dense weight in the order [H, W, padded C], zero for padded channels."""
    channels, height, width = extent
    columns = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    padded = np.zeros((*columns.shape[:3], vector.channels // (height * width)), np.float32)
    padded[..., :channels] = columns
    return padded.reshape(len(weight), vector.channels, 1, 1)
