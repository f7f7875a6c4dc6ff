"""A trained network as the kernels see it: a list of operators, batch norm folded, activations and sums fused.

Every value is [N, channels, height, width]; a vector has height = width = 1. A node is named by its module's path
and produces one value of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import unknown
from projects.fp16_cnn.precision import Precision, Storage, precision_of
from projects.fp16_cnn.shape import LayerShape

Activation = Literal["none", "relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid"]
Plan = str | Mapping[str, str]
"""A precision's name for all layers, or one for each layer named; the layers left out stay in f32."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.

    Attributes:
        inputs: names of the values it reads.
        out: channels, height and width of its value.
    """

    name: str
    inputs: tuple[str, ...]
    out: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Layer(Node):
    """activation(weight * x + bias + residual): a convolution or a fully connected layer, `*` a cross-correlation.

    Attributes:
        shape: its batch is the example's.
        weight: [out channels, in channels / groups, kernel height, kernel width], in the model's own type.
        bias: [out channels].
        residual: `inputs` holds a second value, of the output's shape, added before the activation.
    """

    shape: LayerShape
    weight: Tensor
    bias: Tensor | None = None
    activation: Activation = "none"
    residual: bool = False


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """Maximum or average over a window.

    Attributes:
        padding: above, below, left, right.
        divisor: of the average: all of the window, or what lies inside the input.
    """

    kind: Literal["max", "average"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    divisor: Literal["window", "inside"] = "window"


@dataclass(frozen=True, eq=False)
class GlobalAverage(Node):
    """Mean over height and width."""


@dataclass(frozen=True, eq=False)
class Add(Node):
    """activation(x + y), both of one shape."""

    activation: Activation = "none"


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """x[n, c, h, w] s[n, c]: the product of a squeeze-and-excitation block."""


@dataclass(frozen=True, eq=False)
class Activate(Node):
    """activation(x)."""

    activation: Activation = "relu"


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """[N, C, H, W] as [N, C H W, 1, 1], in torch's order."""


@dataclass(frozen=True, eq=False)
class Fallback(Node):
    """An operator without a kernel, run by torch in fp32, one image after the other.

    Attributes:
        operator: its name in torch.
        call: takes one image of each input, [1, ...].
        shapes: of one image of each input, as the model has it.
    """

    operator: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A network in the order of its execution.

    Attributes:
        source: name of the images' value.
        shape: channels, height, width of an image.
        batch: images in the example.
        output: name of the logits' value.
    """

    source: str
    shape: tuple[int, int, int]
    batch: int
    nodes: tuple[Node, ...]
    output: str

    @property
    def layers(self) -> list[Layer]:
        """Convolutions and fully connected layers."""
        return [node for node in self.nodes if isinstance(node, Layer)]

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, value: str) -> Iterator[Node]:
        """The nodes that read a value."""
        return (node for node in self.nodes if value in node.inputs)

    def extent(self, value: str) -> tuple[int, int, int]:
        """Channels, height, width of a value."""
        return self.shape if value == self.source else self.node(value).out


def precisions(program: Program, plan: Plan | None) -> dict[str, Precision]:
    """Each layer's precision.

    Raises:
        BadInputError: the plan names a layer that the program lacks, or an unknown precision.
    """
    names = [layer.name for layer in program.layers]
    if plan is None or isinstance(plan, str):
        return dict.fromkeys(names, precision_of(plan or "f32"))
    for name in plan:
        if name not in names:
            raise unknown("layer", name, names)
    return {name: precision_of(plan.get(name, "f32")) for name in names}


def storages(program: Program, plan: Plan | None) -> dict[str, Storage]:
    """What each value lies in memory as: what the layers that multiply it read, where they agree, else float32.

    A layer that reads another type gets a converted copy, so that a value is rounded once on its way to a layer.
    Operators that do not multiply (pooling, sums, residuals) read any type; they keep the type that their own readers
    want. The logits are float32.
    """
    chosen = precisions(program, plan)
    wanted: dict[str, set[Storage]] = {program.source: set()} | {node.name: set() for node in program.nodes}
    wanted[program.output].add("float32")
    stored: dict[str, Storage] = {}

    def settle(value: str) -> Storage:
        types = wanted[value]
        stored[value] = types.pop() if len(types) == 1 else "float32"
        return stored[value]

    for node in reversed(program.nodes):
        own = settle(node.name)
        if isinstance(node, Layer):
            wanted[node.inputs[0]].add(chosen[node.name].activations)
        elif isinstance(node, Fallback):
            for name in node.inputs:
                wanted[name].add("float32")
        else:
            wanted[node.inputs[0]].add(own)
    settle(program.source)
    return stored


def round_to(x: Tensor, storage: Storage) -> Tensor:
    """`x` rounded to the storage's type, to nearest even, in its own type."""
    return x if storage == "float32" else x.to(getattr(torch, storage)).to(x.dtype)
