"""Rounding to storage, and weights in panels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.fp16_cnn.packing import aligned, from_bf16, pack_weight, panel_inputs, panel_starts, to_bf16


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_bf16_rounds_as_torch_does(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bf16(to_bf16(values)), expected)


def test_bf16_keeps_nan_and_infinity() -> None:
    payload = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000], np.uint32).view(np.float32)
    back = from_bf16(to_bf16(payload))
    assert np.isnan(back[:2]).all() and back[2] == np.inf


def test_arrays_start_at_cache_lines() -> None:
    assert all(aligned((size,), np.float16).ctypes.data % 64 == 0 for size in (1, 3, 1000))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_panels_cover_every_channel_and_read_its_inputs(
    groups: int, inputs: int, outputs: int, vectors: int
) -> None:
    total = -(-groups * outputs // 16) * 16
    width = min(16 * vectors, total)
    starts = panel_starts(total, width)
    assert sorted({start + lane for start in starts for lane in range(width)}) == list(range(total))
    firsts, count = panel_inputs(groups * inputs, groups * outputs, groups, width)
    for start, first in zip(starts, firsts, strict=True):
        for channel in range(start, min(start + width, groups * outputs)):
            group = channel // outputs
            assert first <= group * inputs and (group + 1) * inputs <= first + count
        assert first >= 0 and first + count <= -(-groups * inputs // 16) * 16


def test_a_packed_weight_lies_in_the_order_of_reading() -> None:
    weight = np.arange(32 * 3 * 2 * 2, dtype=np.float32).reshape(32, 3, 2, 2)
    packed = pack_weight(weight, "float32", 1, 16, pairs=False)
    assert packed.shape == (2, 2, 2, 3, 16)
    assert packed[1, 0, 1, 2, 5] == weight[16 + 5, 2, 0, 1]
    pairs = pack_weight(weight, "bfloat16", 1, 16, pairs=True)
    assert pairs.shape == (2, 2, 2, 2, 16, 2)
    assert from_bf16(pairs[0, 1, 0, 1, 7])[0] == weight[7, 2, 1, 0] and pairs[0, 1, 0, 1, 7, 1] == 0
