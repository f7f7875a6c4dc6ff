"""Pooling, sums, scales, activations and conversions against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from common.errors import BadInputError
from projects.fp16_cnn import layer
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.kernel import Layer
from projects.fp16_cnn.precision import Storage
from tests.projects.fp16_cnn.convolutions import ACTIVATION, STORED

storages = st.sampled_from(["float32", "float16", "bfloat16"])
borders = st.sampled_from([(0, 0, 0, 0), (1, 2, 0, 1)])
few = settings(max_examples=20, deadline=None, derandomize=True)


@st.composite
def images(draw: st.DrawFn) -> Layout:
    sizes = (
        draw(st.integers(1, 2)),
        draw(st.integers(4, 9)),
        draw(st.integers(4, 9)),
        draw(st.integers(1, 70)),
    )
    return Layout(*sizes, draw(borders), draw(storages))


def filled(layout: Layout, seed: int = 0) -> Buffer:
    buffer = Buffer(layout)
    size = (layout.batch, layout.height, layout.width, layout.channels)
    buffer.write(np.random.default_rng(seed).standard_normal(size).astype(np.float32))
    return buffer


def nchw(buffer: Buffer) -> Tensor:
    return torch.from_numpy(buffer.read()).double().permute(0, 3, 1, 2)


def agrees(made: Layer, x: Buffer, expected: Tensor, other: Buffer | None = None) -> None:
    y = Buffer(made.target)
    made(x, y, other)
    scale = max(1.0, float(expected.abs().max()))
    assert float((nchw(y) - expected).abs().max()) / scale <= STORED[made.target.storage]
    y.interior[...] = 0
    assert not y.array[..., : made.target.channels].any()


@few
@given(
    images(),
    borders,
    storages,
    st.sampled_from(["max", "mean", "inside"]),
    st.integers(2, 3),
    st.integers(1, 2),
)
def test_pooling(
    source: Layout, border: tuple, storage: Storage, kind: str, kernel: int, stride: int
) -> None:
    x, pad = filled(source), kernel // 2
    padding, window, step = (pad,) * 4, (kernel, kernel), (stride, stride)
    if kind == "max":
        expected = F.max_pool2d(nchw(x), kernel, stride, pad)
    else:
        expected = F.avg_pool2d(nchw(x), kernel, stride, pad, count_include_pad=kind == "mean")
    target = Layout(source.batch, *expected.shape[2:], source.channels, border, storage)
    if kind == "max":
        agrees(layer.max_pool(source, target, window, step, padding), x, expected)
    else:
        agrees(
            layer.average_pool(source, target, window, step, padding, kind == "mean", threads=2), x, expected
        )


@few
@given(images(), borders, storages, storages)
def test_pointwise(source: Layout, border: tuple, storage: Storage, second: Storage) -> None:
    x = filled(source)
    target = Layout(source.batch, source.height, source.width, source.channels, border, storage)
    agrees(layer.convert(source, target), x, nchw(x))
    other = filled(Layout(source.batch, source.height, source.width, source.channels, storage=second), 1)
    expected = F.relu(nchw(x) + nchw(other))
    agrees(layer.add(source, target, other.layout, "relu"), x, expected, other)
    gate = filled(Layout(source.batch, 1, 1, source.channels, storage=second), 2)
    agrees(layer.scale(source, target, gate.layout, threads=2), x, nchw(x) * nchw(gate), gate)
    pooled = Layout(source.batch, 1, 1, source.channels, storage=storage)
    agrees(layer.global_average(source, pooled), x, nchw(x).mean((2, 3), keepdim=True))


@pytest.mark.parametrize("name", [name for name in ACTIVATION if name != "none"])
def test_activations_over_their_whole_range(name: str) -> None:
    layout = Layout(1, 1, 1, 4000)
    x, y = Buffer(layout), Buffer(layout)
    values = np.concatenate([np.linspace(-120, 120, 3994), [0, -0.0, 1e-30, np.inf, -np.inf, np.nan]])
    x.write(values.astype(np.float32)[None, None, None])
    layer.activation(layout, layout, name)(x, y)  # type: ignore[arg-type]
    with_infinity = ACTIVATION[name](nchw(x)).permute(0, 2, 3, 1).numpy()
    if name in ("silu", "hardswish"):  # -infinity times 0: torch has NaN too, or -0
        values[-2] = with_infinity[..., -2] = 0
        y.array[..., 3998] = 0
    np.testing.assert_allclose(y.read(), with_infinity, rtol=1e-6, atol=1e-30)


def test_a_maximum_keeps_nan_and_ignores_the_border() -> None:
    source = Layout(1, 4, 4, 16, (1, 1, 1, 1))
    x, y = Buffer(source), Buffer(Layout(1, 2, 2, 16))
    values = np.full((1, 4, 4, 16), -1, np.float32)
    values[0, 0, 0, 3] = np.nan
    x.write(values)
    layer.max_pool(source, y.layout, (3, 3), (2, 2), (1, 1, 1, 1))(x, y)
    assert np.isnan(y.read()[0, 0, 0, 3])
    assert (y.read()[0, 1:] == -1).all()


def test_sizes_that_do_not_fit_are_refused() -> None:
    source = Layout(1, 4, 4, 16)
    with pytest.raises(BadInputError, match="sizes must be equal"):
        layer.add(source, Layout(1, 4, 5, 16))
    with pytest.raises(BadInputError, match=r"gives \(1, 2, 2, 16\)"):
        layer.max_pool(source, source, (2, 2), (2, 2))
    with pytest.raises(BadInputError, match="as wide as the kernel"):
        layer.max_pool(source, Layout(1, 8, 8, 16), (3, 3), (1, 1), (3, 3, 3, 3))


def test_a_window_may_reach_past_the_image_by_all_but_one_row() -> None:
    """As torch's ceil_mode has it: 3 x 3 windows, 3 apart, on 10 x 10 pixels."""
    x = filled(Layout(1, 10, 10, 16, (0, 2, 0, 2)))
    made = layer.max_pool(x.layout, Layout(1, 4, 4, 16), (3, 3), (3, 3), (0, 2, 0, 2))
    agrees(made, x, F.max_pool2d(nchw(x), 3, 3, ceil_mode=True))
