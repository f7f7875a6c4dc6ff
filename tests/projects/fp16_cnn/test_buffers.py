"""Activations in memory."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import BadInputError
from projects.fp16_cnn.buffers import Buffer, Layout


@pytest.mark.parametrize(("storage", "digits"), [("float32", 0.0), ("float16", 5e-4), ("bfloat16", 4e-3)])
def test_what_is_written_is_read_and_the_rest_is_zero(storage: str, digits: float) -> None:
    layout = Layout(2, 3, 4, 5, (1, 0, 2, 1), storage)  # type: ignore[arg-type]
    buffer = Buffer(layout)
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    buffer.write(values)
    np.testing.assert_allclose(buffer.read(), values, rtol=digits)
    assert buffer.array.shape == layout.shape == (2, 4, 7, 16)
    assert np.count_nonzero(buffer.array) == np.count_nonzero(values)
    assert buffer.pointer % 64 == 0
    assert buffer.interior.ctypes.data == buffer.pointer + layout.origin
    assert layout.nbytes == buffer.array.nbytes


def test_strides_are_those_of_the_array() -> None:
    layout = Layout(2, 3, 4, 5, (1, 0, 2, 1), "float16")
    assert layout.strides == Buffer(layout).array.strides[:3]


def test_too_large_for_fp16_is_infinite_and_another_shape_is_refused() -> None:
    buffer = Buffer(Layout(1, 1, 1, 2, storage="float16"))
    buffer.write(np.array([[[[70000.0, -70000.0]]]], np.float32))
    assert buffer.read().ravel().tolist() == [np.inf, -np.inf]
    with pytest.raises(BadInputError, match=r"\(1, 1, 1, 2\)"):
        buffer.write(np.zeros((1, 1, 2, 2), np.float32))
