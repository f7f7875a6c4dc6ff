"""Layers against torch in float64, on the operands as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.packing import from_storage, to_storage
from projects.fp16_cnn.precision import Precision, Storage, precision_of
from projects.fp16_cnn.shape import LayerShape

ACTIVATION = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}
STORED: dict[Storage, float] = {"float32": 2e-6, "float16": 5e-4, "bfloat16": 4e-3}
"""Relative to the largest output: half a unit in the last place of the storage, and the fp32 sum's rounding."""
SUMMED = {"float32": 0.0, "bfloat16": 1e-5, "float16": 8e-3}


@dataclass(frozen=True)
class Case:
    """One layer and what surrounds it."""

    shape: LayerShape
    activation: Any = "none"
    residual: bool = False
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    storage: Storage | None = None
    blocking: Blocking | None = None
    threads: int = 1
    spare: int = 0  # how much wider the source's border is than the padding


def rounded(values: np.ndarray, storage: Storage) -> Tensor:
    """Values as `storage` keeps them, in float64."""
    return torch.from_numpy(from_storage(to_storage(values, storage), storage)).double()


def check(case: Case, name: str, seed: int = 0) -> None:
    """Assert that the layer computes what torch computes, and leaves its borders zero."""
    precision, shape = precision_of(name), case.shape
    draws = np.random.default_rng(seed)
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = (draws.standard_normal(size) / np.sqrt(shape.terms)).astype(np.float32)
    bias = draws.standard_normal(shape.out_channels).astype(np.float32)
    x, y, other = buffers(case, precision, draws)
    layer = build(
        shape, precision, weight, bias, activation=case.activation, residual=case.residual,
        source=x.layout, target=y.layout, blocking=case.blocking, threads=case.threads,
    )  # fmt: skip
    layer(x, y, other)
    expected = torch_layer(case, precision, x, weight, bias, other)
    scale = max(1.0, float(expected.abs().max()))
    error = float((torch.from_numpy(y.read()).double() - expected).abs().max()) / scale
    assert error <= STORED[y.layout.storage] + SUMMED[precision.multiplies], (case, name, error)
    y.interior[...] = 0
    assert not y.array[..., : shape.out_channels].any()


def buffers(
    case: Case, precision: Precision, draws: np.random.Generator
) -> tuple[Buffer, Buffer, Buffer | None]:
    """Input with values, output, second input with values."""
    shape = case.shape
    top, bottom, left, right = (side + case.spare for side in shape.padding)
    inputs = (shape.batch, shape.height, shape.width, shape.in_channels)
    outputs = (shape.batch, shape.out_height, shape.out_width, shape.out_channels)
    x = Buffer(Layout(*inputs, (top, bottom, left, right), precision.activations))
    x.write(draws.standard_normal(inputs).astype(np.float32))
    target = Layout(*outputs, case.border, case.storage or precision.activations)
    other = Buffer(target) if case.residual else None
    if other is not None:
        other.write(draws.standard_normal(outputs).astype(np.float32))
    return x, Buffer(target), other


def torch_layer(
    case: Case, precision: Precision, x: Buffer, weight: np.ndarray, bias: np.ndarray, other: Buffer | None
) -> Tensor:
    """The layer in float64, NHWC."""
    shape = case.shape
    top, bottom, left, right = shape.padding
    image = F.pad(torch.from_numpy(x.read()).double().permute(0, 3, 1, 2), (left, right, top, bottom))
    kernel = rounded(weight, precision.weights)
    total = F.conv2d(image, kernel, torch.from_numpy(bias).double(), shape.stride, groups=shape.groups)
    total = total.permute(0, 2, 3, 1)
    if other is not None:
        total = total + torch.from_numpy(other.read()).double()
    return ACTIVATION[case.activation](total)
