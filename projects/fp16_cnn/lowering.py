"""The operators of torch that have a kernel, and how each becomes a node of a `Program`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx

from projects.fp16_cnn.program import (
    Activate,
    Activation,
    Add,
    Flatten,
    GlobalAverage,
    Layer,
    Node,
    Pool,
    Scale,
)
from projects.fp16_cnn.shape import LayerShape

Padding = tuple[int, int, int, int]


class Unsupported(Exception):
    """No kernel computes this; the message says what exactly is missing."""


@dataclass
class Lowering:
    """What is known while a graph is walked.

    Attributes:
        constants: parameters, buffers and what depends on them alone.
        values: the name of the value that a node of the graph became.
        padded: nodes that pad with zeros, as (what they pad, padding): their readers take the padding over.
        several: operators of several results, which wait for their getitem nodes.
    """

    constants: dict[fx.Node, Any]
    values: dict[fx.Node, str] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    padded: dict[fx.Node, tuple[fx.Node, Padding]] = field(default_factory=dict)
    several: dict[fx.Node, bool] = field(default_factory=dict)

    def path(self, node: fx.Node) -> str:
        """The module that a node comes from."""
        stack = node.meta.get("nn_module_stack") or {"": ("", None)}
        return list(stack.values())[-1][0]

    def name(self, node: fx.Node, what: str = "") -> str:
        """A free name for a value: the module's path, the operator, and a number where needed."""
        base = ".".join(part for part in (self.path(node), what) if part) or "network"
        count = 1
        while (name := base if count == 1 else f"{base}#{count}") in self.nodes or name == "images":
            count += 1
        return name

    def emit(self, node: fx.Node, made: Node) -> None:
        """Appends a program's node as what the graph's node computes."""
        self.nodes[made.name] = made
        self.values[node] = made.name

    def materialise(self, node: fx.Node) -> None:
        """Refuses a value that exists only as its readers' padding."""
        if node in self.padded:
            raise Unsupported("zero padding that its reader cannot take over")

    def replace(self, node: fx.Node, old: fx.Node, made: Node) -> None:
        """The same value's node with one more operator fused, moved to the end, where all that it reads exists."""
        del self.nodes[self.values[old]]
        self.emit(node, made)

    def before(self, node: object) -> Node | None:
        """The program's node behind an argument that nothing else reads: what may still be fused into."""
        if not isinstance(node, fx.Node) or node not in self.values or len(node.users) != 1:
            return None
        return self.nodes.get(self.values[node])


Rule = Callable[[Lowering, fx.Node], None]
LOWERINGS: dict[str, Rule] = {}


def lowers(*operators: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operators; their in-place forms are the same."""

    def register(rule: Rule) -> Rule:
        LOWERINGS.update(dict.fromkeys(operators, rule))
        return rule

    return register


def argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    """An argument, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of what torch lets one number stand for."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (values[0], values[-1])


def sizes(node: object) -> tuple[int, ...]:
    """The shape that the graph's node has, [1, ...]."""
    return tuple(cast(fx.Node, node).meta["val"].shape)


def image(node: object) -> tuple[int, int, int]:
    """Channels, height, width; a vector's height and width are 1."""
    shape = sizes(node)
    if shape[0] != 1:
        raise Unsupported("of a tensor that puts parts of an image side by side as a batch")
    if len(shape) == 2:
        return shape[1], 1, 1
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    raise Unsupported(f"of a tensor [{', '.join(map(str, shape))}]")


@lowers("conv2d")
def convolution(lowering: Lowering, node: fx.Node) -> None:
    """A convolution, its zeros those of a padding operator before it included."""
    source = cast(fx.Node, node.args[0])
    outer: Padding = (0, 0, 0, 0)
    if source in lowering.padded:
        source, outer = lowering.padded[source]
    weight = _constant(lowering, node.args[1])
    bias = argument(node, 2, "bias", None)
    if pair(argument(node, 5, "dilation", 1)) != (1, 1):
        raise Unsupported("dilation")
    padding = argument(node, 4, "padding", 0)
    kernel = (weight.shape[2], weight.shape[3])
    if isinstance(padding, str):
        rows, columns = (kernel[0] - 1, kernel[1] - 1) if padding == "same" else (0, 0)
        inner = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    else:
        rows, columns = pair(padding)
        inner = (rows, rows, columns, columns)
    channels, height, width = image(source)
    groups = argument(node, 6, "groups", 1)
    total = cast(Padding, tuple(a + b for a, b in zip(inner, outer, strict=True)))
    if min(total) < 0:
        raise Unsupported("negative padding")
    depthwise = groups > 1 and groups == channels == weight.shape[0]
    dense = height == width == 1 and kernel == (1, 1) and groups == 1 and not any(total)
    shape = LayerShape(
        "depthwise" if depthwise else "dense" if dense else "conv",
        1,
        channels,
        weight.shape[0],
        height,
        width,
        kernel,
        pair(argument(node, 3, "stride", 1)) if not dense else (1, 1),
        total,
        groups,
    )
    _layer(lowering, node, source, shape, weight, None if bias is None else _constant(lowering, bias))


@lowers("linear")
def dense(lowering: Lowering, node: fx.Node) -> None:
    """A fully connected layer of a vector per image."""
    if len(sizes(node.args[0])) != 2:
        raise Unsupported("of more than one vector per image")
    weight = _constant(lowering, node.args[1])
    bias = argument(node, 2, "bias", None)
    shape = LayerShape("dense", 1, weight.shape[1], weight.shape[0])
    source = cast(fx.Node, node.args[0])
    weight = weight[:, :, None, None]
    _layer(lowering, node, source, shape, weight, None if bias is None else _constant(lowering, bias))


def _layer(
    lowering: Lowering, node: fx.Node, source: fx.Node, shape: LayerShape, weight: Tensor, bias: Tensor | None
) -> None:
    name, inputs = lowering.name(node), (_value(lowering, source),)
    lowering.emit(node, Layer(name, inputs, image(node), shape, weight, bias))


def _constant(lowering: Lowering, node: object) -> Tensor:
    if node not in lowering.constants:
        raise Unsupported("a weight that is computed from the images")
    return lowering.constants[cast(fx.Node, node)]


def _value(lowering: Lowering, node: object) -> str:
    read = cast(fx.Node, node)
    lowering.materialise(read)
    if read not in lowering.values:
        raise Unsupported("with a constant")
    image(read)
    return lowering.values[read]


@lowers("batch_norm")
def batch_norm(lowering: Lowering, node: fx.Node) -> None:
    """Folded into the layer before it, or a depthwise 1x1 layer."""
    source, gamma, beta, mean, variance = node.args[:5]
    if mean is None or variance is None:
        raise Unsupported("without running statistics")
    mean, variance = _constant(lowering, mean).double(), _constant(lowering, variance).double()
    scale = (variance + argument(node, 7, "eps", 1e-5)).rsqrt()
    if gamma is not None:
        scale = scale * _constant(lowering, gamma).double()
    shift = -mean * scale + (0 if beta is None else _constant(lowering, beta).double())
    layer = lowering.before(source)
    if isinstance(layer, Layer) and layer.activation == "none" and not layer.residual:
        weight = (layer.weight.double() * scale[:, None, None, None]).to(layer.weight.dtype)
        bias = shift if layer.bias is None else layer.bias.double() * scale + shift
        folded = replace(layer, weight=weight, bias=bias.to(weight.dtype))
        lowering.replace(node, cast(fx.Node, source), folded)
        return
    channels, height, width = image(source)
    dtype = cast(fx.Node, node).meta["val"].dtype
    shape = LayerShape("depthwise", 1, channels, channels, height, width, groups=channels)
    weight = scale[:, None, None, None].to(dtype)
    _layer(lowering, node, cast(fx.Node, source), shape, weight, shift.to(dtype))


def _activation(lowering: Lowering, node: fx.Node, activation: Activation) -> None:
    source = cast(fx.Node, node.args[0])
    fused = lowering.before(source)
    if isinstance(fused, Layer | Add) and fused.activation == "none":
        lowering.replace(node, source, replace(fused, activation=activation))
        return
    name, inputs = lowering.name(node), (_value(lowering, source),)
    lowering.emit(node, Activate(name, inputs, image(node), activation))


def _plain(activation: Activation) -> Rule:
    return lambda lowering, node: _activation(lowering, node, activation)


for _name in ("relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid"):
    LOWERINGS[_name] = _plain(cast(Activation, _name))


@lowers("hardtanh", "clamp", "clamp_min")
def clamp(lowering: Lowering, node: fx.Node) -> None:
    """ReLU and ReLU6 by another name."""
    hard = "hardtanh" in str(node.target)
    low = argument(node, 1, "min_val" if hard else "min", -1 if hard else None)
    high = argument(node, 2, "max_val" if hard else "max", 1 if hard else None)
    if low != 0 or high not in (None, 6):
        raise Unsupported(f"to [{low}, {high}]")
    _activation(lowering, node, "relu" if high is None else "relu6")


@lowers("add")
def add(lowering: Lowering, node: fx.Node) -> None:
    """A residual sum: fused into the layer that ends one of its branches."""
    first, second = node.args[:2]
    if not isinstance(second, fx.Node) or argument(node, 2, "alpha", 1) != 1:
        raise Unsupported("of a number, or scaled")
    if sizes(first) != sizes(second):
        raise Unsupported("of two shapes")
    inputs = (_value(lowering, first), _value(lowering, second))
    for source, other in ((first, inputs[1]), (second, inputs[0])):
        layer = lowering.before(source) if first is not second else None
        if isinstance(layer, Layer) and layer.activation == "none" and not layer.residual:
            fused = replace(layer, inputs=(layer.inputs[0], other), residual=True)
            lowering.replace(node, cast(fx.Node, source), fused)
            return
    lowering.emit(node, Add(lowering.name(node, "add"), inputs, image(node)))


@lowers("mul")
def scale(lowering: Lowering, node: fx.Node) -> None:
    """A factor per image and channel, on either side."""
    for first, second in (node.args[:2], node.args[1::-1]):
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            raise Unsupported("by a number")
        if sizes(first) == sizes(node) and sizes(second) == (*sizes(node)[:2], 1, 1):
            inputs = (_value(lowering, first), _value(lowering, second))
            lowering.emit(node, Scale(lowering.name(node, "scale"), inputs, image(node)))
            return
    raise Unsupported("but by one factor per channel")


@lowers("max_pool2d", "avg_pool2d")
def pool(lowering: Lowering, node: fx.Node) -> None:
    """A maximum or an average over windows."""
    kind: Literal["max", "average"] = "max" if "max" in str(node.target) else "average"
    kernel = pair(node.args[1])
    stride = pair(argument(node, 2, "stride", None) or kernel)
    rows, columns = pair(argument(node, 3, "padding", 0))
    _, height, width = image(node.args[0])
    out = image(node)
    # With ceil_mode the last window may leave the input: one more row or column of padding.
    below = max(0, (out[1] - 1) * stride[0] + kernel[0] - height - rows)
    right = max(0, (out[2] - 1) * stride[1] + kernel[1] - width - columns)
    divisor: Literal["window", "inside"] = "window"
    if kind == "max" and pair(argument(node, 4, "dilation", 1)) != (1, 1):
        raise Unsupported("dilation")
    if kind == "average":
        if argument(node, 6, "divisor_override", None) is not None or below > rows or right > columns:
            raise Unsupported("with ceil_mode or a divisor")
        divisor = "window" if argument(node, 5, "count_include_pad", True) else "inside"
    inputs = (_value(lowering, node.args[0]),)
    padding = (rows, below, columns, right)
    lowering.emit(node, Pool(lowering.name(node), inputs, out, kind, kernel, stride, padding, divisor))


@lowers("adaptive_avg_pool2d")
def adaptive(lowering: Lowering, node: fx.Node) -> None:
    """The mean of all pixels, of equal windows, or nothing at all."""
    source = cast(fx.Node, node.args[0])
    inputs = (_value(lowering, source),)
    (_, height, width), out = image(source), image(node)
    if out[1:] == (height, width):
        lowering.values[node] = inputs[0]
    elif out[1:] == (1, 1):
        lowering.emit(node, GlobalAverage(lowering.name(node), inputs, out))
    elif height % out[1] == 0 and width % out[2] == 0:
        window = (height // out[1], width // out[2])
        lowering.emit(node, Pool(lowering.name(node), inputs, out, "average", window, window))
    else:
        raise Unsupported(f"from {height}x{width} to {out[1]}x{out[2]}: its windows overlap")


@lowers("mean")
def mean(lowering: Lowering, node: fx.Node) -> None:
    """The mean of all pixels."""
    dims = argument(node, 1, "dim", None)
    if len(sizes(node.args[0])) != 4 or dims is None or sorted(d % 4 for d in dims) != [2, 3]:
        raise Unsupported("but over height and width")
    inputs = (_value(lowering, node.args[0]),)
    lowering.emit(node, GlobalAverage(lowering.name(node, "mean"), inputs, image(node)))


@lowers("flatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")
def reshape(lowering: Lowering, node: fx.Node) -> None:
    """All of an image as one vector; a vector stays one in any of its shapes."""
    source = cast(fx.Node, node.args[0])
    value = _value(lowering, source)
    before, after = image(source), image(node)
    if after[1:] != (1, 1) or math.prod(before) != after[0]:
        raise Unsupported("but to one vector per image")
    if before == after:
        lowering.values[node] = value
    else:
        lowering.emit(node, Flatten(lowering.name(node, "flatten"), (value,), after))


@lowers("pad", "constant_pad_nd")
def pad(lowering: Lowering, node: fx.Node) -> None:
    """Zeros around an image, left to the convolutions that read it."""
    amounts = [*cast(list[int], node.args[1]), 0, 0, 0, 0]
    mode = "constant" if "constant_pad" in str(node.target) else argument(node, 2, "mode", "constant")
    value = (
        argument(node, 2, "value", 0) if "constant_pad" in str(node.target) else argument(node, 3, "value", 0)
    )
    left, right, above, below = amounts[:4]
    convolutions = all(user.target is torch.ops.aten.conv2d.default for user in node.users)
    if mode != "constant" or value not in (None, 0) or any(amounts[4:]) or not convolutions:
        raise Unsupported("that no convolution can take over")
    source = cast(fx.Node, node.args[0])
    _value(lowering, source)
    lowering.padded[node] = (source, (above, below, left, right))
