"""A program run by torch: the reference that the kernels and the precisions are judged against.

With a plan, weights and values are rounded to what they are stored as, and sums in half precision are rounded to fp16
after every term, in the kernels' order: kernel row, kernel column, channel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from projects.fp16_cnn.precision import NEVER, Precision, Storage
from projects.fp16_cnn.program import (
    Activate,
    Activation,
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
    round_to,
    storages,
)

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


@torch.no_grad()
def run(
    program: Program,
    x: Float[Tensor, "n c h w"],
    dtype: torch.dtype = torch.float64,
    quantise: Plan | None = None,
) -> Float[Tensor, "n classes"]:
    """The logits of images.

    Args:
        dtype: of the arithmetic between the roundings.
        quantise: a plan; None rounds nothing.

    Raises:
        BadInputError: the plan does not fit the program.
    """
    return values(program, x, dtype, quantise)[program.output].flatten(1)


@torch.no_grad()
def values(
    program: Program,
    x: Float[Tensor, "n c h w"],
    dtype: torch.dtype = torch.float64,
    quantise: Plan | None = None,
) -> dict[str, Tensor]:
    """Every value of the program, [n, channels, height, width], as stored."""
    stored = storages(program, quantise)
    chosen = precisions(program, quantise) if quantise is not None else None
    held = {program.source: round_to(x.to(dtype), stored[program.source])}
    for node in program.nodes:
        inputs = [held[name] for name in node.inputs]
        y = compute(node, inputs, None if chosen is None else chosen.get(node.name))
        held[node.name] = y if quantise is None else round_to(y, stored[node.name])
    return held


def compute(node: Node, inputs: list[Tensor], precision: Precision | None) -> Tensor:
    """The value of one node, not rounded to its storage."""
    x = inputs[0]
    match node:
        case Layer():
            return _layer(node, inputs, precision)
        case Pool(kind="max"):
            padded = F.pad(x, _torch_padding(node.padding), value=-torch.inf)
            return F.max_pool2d(padded, node.kernel, node.stride)
        case Pool():
            total = F.avg_pool2d(F.pad(x, _torch_padding(node.padding)), node.kernel, node.stride)
            if node.divisor == "window":
                return total
            inside = F.pad(torch.ones_like(x[:1, :1]), _torch_padding(node.padding))
            return total / F.avg_pool2d(inside, node.kernel, node.stride)
        case GlobalAverage():
            return x.mean((2, 3), keepdim=True)
        case Add():
            return ACTIVATIONS[node.activation](x + inputs[1])
        case Scale():
            return x * inputs[1]
        case Activate():
            return ACTIVATIONS[node.activation](x)
        case Flatten():
            return x.reshape(len(x), -1, 1, 1)
        case Fallback():
            return fall_back(node, inputs)
        case _:
            raise TypeError(f"no reference for {type(node).__name__}")


def fall_back(node: Fallback, inputs: list[Tensor]) -> Tensor:
    """The operator on each image by itself, since the graph was fixed for one, as [n, channels, height, width]."""
    made: list[Tensor] = []
    for i in range(len(inputs[0])):
        # Clones, for an operator that works in place.
        image = [x[i].reshape(shape).clone() for x, shape in zip(inputs, node.shapes, strict=True)]
        made.append(node.call(*image).reshape(1, *node.out))
    return torch.cat(made)


def _torch_padding(padding: tuple[int, int, int, int]) -> list[int]:
    return [padding[2], padding[3], padding[0], padding[1]]


def _layer(node: Layer, inputs: list[Tensor], precision: Precision | None) -> Tensor:
    x, dtype = inputs[0], inputs[0].dtype
    weight = node.weight.to(dtype)
    weights: Storage = "float32" if precision is None else precision.weights
    weight = round_to(weight, weights)
    if precision is not None:
        x = round_to(x, precision.activations)
    x = F.pad(x, _torch_padding(node.shape.padding))
    if precision is not None and precision.multiplies == "float16":
        y = half_sums(x, weight, node.shape.stride, node.shape.groups, precision.flush)
    else:
        y = F.conv2d(x, weight, stride=node.shape.stride, groups=node.shape.groups)
    if node.bias is not None:
        y = y + node.bias.to(dtype)[:, None, None]
    if node.residual:
        y = y + inputs[1]
    return ACTIVATIONS[node.activation](y)


def half_sums(
    x: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "o i r s"],
    stride: tuple[int, int],
    groups: int,
    flush: int,
) -> Float[Tensor, "n o y z"]:
    """A convolution summed in fp16, one rounding a term; every `flush` terms the sum moves to a wide one.

    A run of terms ends with its kernel tap, so that at most the channels of a group are added before a flush (the
    kernels' runs may reach over the taps of a row, and are `flush` terms long at most as well). A sum of no more than
    `flush` terms is not flushed, nor any sum with `flush` = NEVER.
    """
    n, _, height, width = x.shape
    outs, terms, rows, columns = weight.shape
    flush = NEVER if flush >= terms * rows * columns else flush
    y, z = (height - rows) // stride[0] + 1, (width - columns) // stride[1] + 1
    wide = x.new_zeros(n, groups, outs // groups, y, z)
    half = torch.zeros_like(wide)
    grouped = x.reshape(n, groups, terms, height, width)
    factors = weight.reshape(groups, outs // groups, terms, rows, columns)
    for r in range(rows):
        for s in range(columns):
            tap = grouped[..., r : r + (y - 1) * stride[0] + 1 : stride[0], :]
            tap = tap[..., s : s + (z - 1) * stride[1] + 1 : stride[1]]
            for c in range(terms):
                product = tap[:, :, None, c] * factors[None, :, :, c, r, s, None, None]
                half = round_to(half + product, "float16")
                if flush < NEVER and ((c + 1) % flush == 0 or c + 1 == terms):
                    wide, half = wide + half, torch.zeros_like(half)
    return (wide + half).reshape(n, outs, y, z)
