"""One small layer of every precision that the features allow, for a process that may die: `cpu.try_override`."""

from __future__ import annotations

import numpy as np

from common.errors import RethesisError
from projects.fp16_cnn import cpu
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.precision import PRECISIONS, Precision
from projects.fp16_cnn.shape import LayerShape

TOLERANCE = 0.02  # of bf16, the coarsest


def check(precision: Precision) -> None:
    """Compare a pointwise layer with numpy.

    Raises:
        RethesisError: the result is wrong.
    """
    draws = np.random.default_rng(0)
    shape = LayerShape("conv", 1, 32, 32, 4, 4)
    layout = Layout(1, 4, 4, 32, storage=precision.activations)
    weight = draws.standard_normal((32, 32, 1, 1)).astype(np.float32) / 6
    values = draws.standard_normal((1, 4, 4, 32)).astype(np.float32)
    x, y = Buffer(layout), Buffer(layout)
    x.write(values)
    build(shape, precision, weight, None, source=layout, target=layout)(x, y)
    expected = values @ weight[:, :, 0, 0].T
    error = float(np.abs(y.read() - expected).max() / np.abs(expected).max())
    if not error < TOLERANCE:
        raise RethesisError(f"{precision.name}: relative error {error:.2g}")


if __name__ == "__main__":
    for name in cpu.available():
        check(PRECISIONS[name])
