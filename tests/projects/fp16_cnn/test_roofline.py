"""The model on a machine of round numbers, where every prediction can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.fp16_cnn import roofline
from projects.fp16_cnn.machine import at, load, save
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.roofline import Terms
from projects.fp16_cnn.shape import LayerShape
from tests.projects.fp16_cnn.machines import MACHINE

POINTWISE = Cell(
    LayerShape("conv", 1, 1000, 1000, 100, 100), "none", False, 1
)  # 2e10 operations, 8.4e7 bytes
DENSE = Cell(LayerShape("dense", 1, 1000, 1000), "none", False, 1)  # 2e6 operations, 4e6 bytes and 8e3
DEPTHWISE = Cell(
    LayerShape("depthwise", 1, 64, 64, 28, 28, (3, 3), (1, 1), (1, 1, 1, 1), 64), "none", False, 1
)


def test_a_compute_bound_layer_gains_what_the_arithmetic_gains() -> None:
    assert roofline.seconds(MACHINE, POINTWISE, "f32", model="roofline") == pytest.approx(0.2)
    assert roofline.gain(MACHINE, POINTWISE, "f16s", model="roofline") == pytest.approx(1.0)
    assert roofline.gain(MACHINE, POINTWISE, "bf16", model="roofline") == pytest.approx(2.0)
    assert all(roofline.compute_bound(MACHINE, POINTWISE, name) for name in ("f32", "f16w", "f16s", "bf16"))


def test_a_memory_bound_layer_gains_what_its_bytes_lose_until_conversion_limits() -> None:
    moved = (4e6 + 8e3) / 50e9
    assert roofline.seconds(MACHINE, DENSE, "f32", model="roofline") == pytest.approx(moved)
    converted = (1e6 + 1e3) / 20e9  # longer than moving half the bytes
    assert roofline.seconds(MACHINE, DENSE, "f16s", model="roofline") == pytest.approx(converted)
    assert roofline.gain(MACHINE, DENSE, "bf16", model="roofline") == pytest.approx(2.0)
    assert not roofline.compute_bound(MACHINE, DENSE, "f32")
    fast = replace(MACHINE, loads=dict.fromkeys(MACHINE.loads, 1e12))
    assert roofline.gain(fast, DENSE, "f16s", model="roofline") == pytest.approx(2.0)


def test_cold_data_come_from_memory() -> None:
    slow = roofline.seconds(MACHINE, DENSE, "f32", "cold", "roofline")
    assert slow == pytest.approx(5 * roofline.seconds(MACHINE, DENSE, "f32", "hot", "roofline"))


def test_an_fp16_input_of_a_convolution_is_converted_in_a_pass_of_its_own() -> None:
    half, weights = (roofline.seconds(MACHINE, POINTWISE, name) for name in ("f16s", "f16w"))
    assert half - weights == pytest.approx(1e7 / 10e9)
    assert roofline.seconds(MACHINE, POINTWISE, "f16s", model="noconvert") == pytest.approx(0.2 + 1e-6)


def test_a_depthwise_layer_takes_its_core_and_its_memory_one_after_the_other() -> None:
    outputs, size = 28 * 28 * 64, roofline.bytes_of(DEPTHWISE, PRECISIONS["f16s"])
    expected = 1e-6 + outputs / 4e9 + size / 50e9
    assert roofline.seconds(MACHINE, DEPTHWISE, "f16s") == pytest.approx(expected)
    cold = 1e-6 + outputs / 4e9 + size / 5e9
    assert roofline.seconds(MACHINE, DEPTHWISE, "f16s", "cold") == pytest.approx(cold)
    free = 1e-6 + outputs / 5e9 + size / 50e9
    assert roofline.seconds(MACHINE, DEPTHWISE, "f16s", model="noconvert") == pytest.approx(free)
    assert (
        1.0
        < roofline.gain(MACHINE, DEPTHWISE, "f16s")
        < roofline.gain(MACHINE, DEPTHWISE, "f16s", model="noconvert")
    )


def test_bf16_of_a_depthwise_layer_is_multiplied_as_fp32() -> None:
    assert roofline.gain(MACHINE, DEPTHWISE, "bf16", model="roofline") <= 1.0


def test_a_residual_adds_its_bytes() -> None:
    added = replace(POINTWISE, residual=True)
    extra = roofline.bytes_of(added, PRECISIONS["bf16"]) - roofline.bytes_of(POINTWISE, PRECISIONS["bf16"])
    assert extra == 2 * 10_000_000


def test_a_stream_gains_nothing_in_the_first_cache_and_its_bytes_beyond() -> None:
    beyond = replace(MACHINE, reads=((1024.0, 1e9), (1e9, 1e9)))
    small, large = 64, 1 << 20
    ratio = [roofline.stream(beyond, n, "f32") / roofline.stream(beyond, n, "f16s") for n in (small, large)]
    assert ratio[0] < 1.0
    assert ratio[1] == pytest.approx(2.0, rel=1e-3)  # less the call


parts = st.floats(0.0, 1.0)


@given(parts, parts, parts, parts, st.floats(0.0, 1.0))
def test_a_time_lies_between_its_longest_part_and_their_sum(
    compute: float, memory: float, convert: float, store: float, share: float
) -> None:
    for hidden in (True, False):
        seconds = Terms(compute, memory, convert, store, 0.0, share, hidden).seconds
        assert max(compute, memory, convert, store) <= seconds + 1e-12
        assert seconds <= compute + memory + convert + store + 1e-12


def test_a_curve_is_interpolated_on_logarithms_and_constant_outside() -> None:
    curve = ((1e3, 100.0), (1e5, 1.0))
    assert at(curve, 1e4) == pytest.approx(10.0)
    assert at(curve, 10.0) == 100.0
    assert at(curve, 1e9) == 1.0


def test_a_machine_survives_its_file(tmp_path: Path) -> None:
    save(MACHINE, tmp_path)
    assert load(tmp_path) == MACHINE


def test_the_geometric_middle_of_two_times_is_scale_free() -> None:
    double = replace(MACHINE, peaks={name: 2 * peak for name, peak in MACHINE.peaks.items()})
    assert math.isclose(
        roofline.gain(double, POINTWISE, "bf16", model="roofline"),
        roofline.gain(MACHINE, POINTWISE, "bf16", model="roofline"),
    )
