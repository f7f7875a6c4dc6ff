"""The layers of a network, compiled: each builder returns a `Layer`; calling that computes a buffer from a buffer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from common.errors import BadInputError, unknown
from projects.fp16_cnn import blocking as blockings
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.ir.conv import Ablation, Convolution, conv_ir
from projects.fp16_cnn.ir.elementwise import Pointwise, Pool, compact_ir, pointwise_ir, pool_ir
from projects.fp16_cnn.ir.vectors import ACTIVATIONS, Activation
from projects.fp16_cnn.kernel import Layer, Phase
from projects.fp16_cnn.packing import DTYPES, aligned, pack_depthwise, pack_weight
from projects.fp16_cnn.precision import Precision, precision_of
from projects.fp16_cnn.shape import LayerShape


def build(
    shape: LayerShape,
    precision: Precision | str,
    weight: Float32[np.ndarray, "outputs inputs rows columns"],
    bias: Float32[np.ndarray, " outputs"] | None,
    *,
    activation: Activation = "none",
    residual: bool | Layout = False,
    source: Layout,
    target: Layout,
    blocking: Blocking | None = None,
    threads: int = 1,
    ablate: Ablation = "",
) -> Layer:
    """A convolution, depthwise convolution or fully connected layer: y = activation(conv(x) + bias + residual).

    Args:
        weight: `inputs` are those of one group.
        residual: whether a second input is added, of the target's layout unless another is given.
        source: of the precision's storage, with a border at least as wide as the padding.
        target: of any storage: the conversion is part of the store.
        blocking: None: a good one without measuring (`blocking.best` measures).
        ablate: leave a part out to see what it costs; the result is wrong then.

    Raises:
        BadInputError: shapes, layouts or names do not fit together.
    """
    precision = precision_of(precision) if isinstance(precision, str) else precision
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    added = residual if isinstance(residual, Layout) else target if residual else None
    _check(shape, precision, weight, bias, source, target, added)
    blocking = blocking or blockings.default(shape, precision)
    depthwise = blockings.depthwise(shape)
    reads = source
    if precision.multiplies == "float32" or precision.emulated:
        # converted once per call: a conversion for every multiplication would cost more than the multiplication
        reads = source if depthwise else replace(source, storage="float32")
    if source.compact or blockings.image(shape, precision):
        shape, weight = _unfolded(shape, weight)
        reads = replace(reads, compact=True)
    phases: list[Phase] = []
    x: str | np.ndarray = "x"
    if reads != source:
        x = aligned(reads.shape, DTYPES[reads.storage])
        if ablate != "noconvert" or reads.compact:
            phases.append(_whole(source, reads, x))
    conv = Convolution(shape, precision, reads, target, added, activation, blocking, ablate)
    if depthwise:
        packed = pack_depthwise(weight, precision.weights, conv.width)
    else:
        pairs = precision.multiplies == "bfloat16"
        packed = pack_weight(weight, precision.weights, shape.groups, conv.width, pairs)
    biases = aligned((target.channels_padded,), np.float32)
    if bias is not None:
        biases[: shape.out_channels] = bias
    operands = (x, packed, biases, "residual", "y")
    phases.append(Phase(conv_ir(conv), operands, conv.tiles))
    return Layer(source, target, phases, added, blocking, threads)


def max_pool(
    source: Layout,
    target: Layout,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    threads: int = 1,
) -> Layer:
    """The maximum of each window's inside part; NaN stays NaN.

    Raises:
        BadInputError: layouts do not fit, or a window lies outside the image.
    """
    return _pool(Pool(source, target, kernel, stride, padding, "max"), threads)


def average_pool(
    source: Layout,
    target: Layout,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    counts_padding: bool = True,
    threads: int = 1,
) -> Layer:
    """The mean of each window, with the zeros of the padding counted or not (torch's count_include_pad).

    Raises:
        BadInputError: layouts do not fit, or a window lies outside the image.
    """
    return _pool(Pool(source, target, kernel, stride, padding, "mean", counts_padding), threads)


def global_average(source: Layout, target: Layout, threads: int = 1) -> Layer:
    """The mean of each channel, summed in fp32: [N, H, W, C] to [N, 1, 1, C].

    Raises:
        BadInputError: layouts do not fit.
    """
    size = source.height, source.width
    return _pool(Pool(source, target, size, size, (0, 0, 0, 0), "mean"), threads)


def _pool(pool: Pool, threads: int) -> Layer:
    source, target = pool.source, pool.target
    top, bottom, left, right = pool.padding
    sizes = [
        (length + before + after - kernel) // stride + 1
        for length, before, after, kernel, stride in zip(
            (source.height, source.width), (top, left), (bottom, right), pool.kernel, pool.stride, strict=True
        )
    ]
    expected = (source.batch, *sizes, source.channels)
    if _size(target) != expected or min(sizes) < 1:
        raise BadInputError(
            f"pooling {_size(source)} gives {expected} (NHWC), the target holds {_size(target)}."
        )
    if any(pad >= kernel for pad, kernel in zip(pool.padding, np.repeat(pool.kernel, 2), strict=True)):
        raise BadInputError(f"pooling: the padding {pool.padding} is as wide as the kernel {pool.kernel}.")
    return Layer(source, target, [Phase(pool_ir(pool), ("x", "y"), pool.tiles)], threads=threads)


def add(
    source: Layout,
    target: Layout,
    other: Layout | None = None,
    activation: Activation = "none",
    threads: int = 1,
) -> Layer:
    """y = activation(x + second input), whose layout is `other` or the source's.

    Raises:
        BadInputError: layouts do not fit.
    """
    other = other or source
    return _pointwise(Pointwise((source, other), target, "add", activation), threads)


def scale(source: Layout, target: Layout, gate: Layout, threads: int = 1) -> Layer:
    """y = x * s with the second input s [N, 1, 1, C] (squeeze and excitation).

    Raises:
        BadInputError: layouts do not fit.
    """
    return _pointwise(Pointwise((source, gate), target, "multiply"), threads)


def activation(source: Layout, target: Layout, name: Activation, threads: int = 1) -> Layer:
    """y = activation(x).

    Raises:
        BadInputError: layouts do not fit.
    """
    return _pointwise(Pointwise((source,), target, "first", name), threads)


def convert(source: Layout, target: Layout, threads: int = 1) -> Layer:
    """The same values in another storage or with another border.

    Raises:
        BadInputError: layouts do not fit.
    """
    return _pointwise(Pointwise((source,), target), threads)


def _pointwise(pointwise: Pointwise, threads: int) -> Layer:
    target = pointwise.target
    if pointwise.activation not in ACTIVATIONS:
        raise unknown("activation", pointwise.activation, ACTIVATIONS)
    first, *others = pointwise.sources
    gates = (target.batch, 1, 1, target.channels)
    fits = _size(first) == _size(target)
    fits &= all(_size(other) in (_size(target), gates) for other in others)
    if not fits:
        sizes = ", ".join(str(_size(source)) for source in pointwise.sources)
        raise BadInputError(f"layer of {sizes} cannot fill {_size(target)} (NHWC): the sizes must be equal.")
    operands = ("x", "y", "residual")[: 1 + len(pointwise.sources)]
    phase = Phase(pointwise_ir(pointwise), operands, pointwise.tiles)
    return Layer(first, target, [phase], others[0] if others else None, threads=threads)


def _unfolded(shape: LayerShape, weight: np.ndarray) -> tuple[LayerShape, np.ndarray]:
    """A kernel's columns as further input channels: in a compact image the pixels of a row follow each other."""
    (rows, columns), inputs = shape.kernel, shape.in_channels
    narrow = replace(shape, in_channels=columns * inputs, kernel=(rows, 1), width=shape.width - columns + 1)
    return narrow, weight.transpose(0, 3, 1, 2).reshape(shape.out_channels, columns * inputs, rows, 1)


def _whole(source: Layout, target: Layout, scratch: np.ndarray) -> Phase:
    """A whole array, border included, into `scratch`: converted, or compact, or both."""
    batch, rows, columns, channels = source.shape
    if target.compact:
        return Phase(compact_ir(source, target), ("x", scratch), batch * rows * columns)
    flat = [Layout(batch, rows, columns, channels, storage=layout.storage) for layout in (source, target)]
    pointwise = Pointwise((flat[0],), flat[1])
    return Phase(pointwise_ir(pointwise), ("x", scratch), pointwise.tiles)


def _check(
    shape: LayerShape,
    precision: Precision,
    weight: np.ndarray,
    bias: np.ndarray | None,
    source: Layout,
    target: Layout,
    residual: Layout | None,
) -> None:
    """Everything that must fit together before a kernel may be trusted with pointers.

    Raises:
        BadInputError: something does not.
    """
    expected = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    inputs = (shape.batch, shape.height, shape.width, shape.in_channels)
    outputs = (shape.batch, shape.out_height, shape.out_width, shape.out_channels)
    facts = [
        (
            shape.in_channels % shape.groups == 0 and shape.out_channels % shape.groups == 0,
            "groups divide channels",
        ),
        (tuple(weight.shape) == expected, f"weight of shape {expected}, not {tuple(weight.shape)}"),
        (
            bias is None or bias.shape == (shape.out_channels,),
            f"a bias for each of {shape.out_channels} outputs",
        ),
        (_size(source) == inputs, f"an input of {inputs} (NHWC), not {_size(source)}"),
        (_size(target) == outputs, f"an output of {outputs} (NHWC), not {_size(target)}"),
        (
            source.storage == precision.activations,
            f"an input stored as {precision.activations}, not {source.storage}",
        ),
        (
            all(have >= need for have, need in zip(source.border, shape.padding, strict=True)),
            f"an input with a border of {shape.padding} (top, bottom, left, right), not {source.border}",
        ),
        (residual is None or _size(residual) == outputs, f"a second input of {outputs} (NHWC)"),
        (min(shape.out_height, shape.out_width) > 0, "a kernel that fits into the padded image"),
    ]
    for holds, fact in facts:
        if not holds:
            raise BadInputError(f"layer {shape} in {precision.name} needs {fact}.")


def _size(layout: Layout) -> tuple[int, int, int, int]:
    return layout.batch, layout.height, layout.width, layout.channels
