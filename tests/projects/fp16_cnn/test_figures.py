"""Figures are drawn from whatever rows there are, and what they show adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.fp16_cnn import figures

Row = dict[str, Any]
DRAWN = (figures.rooflines, figures.time_lost, figures.predicted, figures.gains_by_layer, figures.peers)


def layer(label: str, **metrics: float) -> Row:
    times = {f"{name}_{state}_us": 100.0 for name in ("f32", "f16s", "bf16") for state in ("hot", "cold")}
    gains = {
        f"{name}_{state}_{what}": 1.5
        for name in ("f16s", "bf16")
        for state in ("hot", "cold")
        for what in ("gain", "model")
    }
    return {
        "stage": "attribution",
        "net": "net",
        "layer": label,
        "count": 2,
        "mflop": 10.0,
        "kb": 100.0,
        **times,
        **gains,
        **metrics,
    }


MACHINE = {"stage": "machine", "peak_float32_gflops": 100.0, "peak_bfloat16_gflops": 200.0, "read_16k_gb": 200.0,
           "read_8m_gb": 100.0, "read_memory_gb": 30.0}  # fmt: skip
LAYERS = [
    layer("64>64 56x56 k1 s1 relu"),
    layer("64>64 56x56 k3 s1 dw relu6", f16s_convert_us=20.0),
    layer("64>10 fc", f32_memory_us=70.0),
]

NOISY = [
    {**{key: row[key] for key in ("stage", "layer", "count", "mflop", "kb")}, "net": "other"}
    for row in LAYERS
]
"""What a network's rows hold when the machine was noisy in every process."""


def tool(name: str, ms: float, fp32: float) -> Row:
    ran = {"ran_f32": fp32, "ran_bf16": 1 - fp32, "ran_f16": 0.0}
    return {"stage": "compare", "net": "net", "batch": 1, "tool": name, "one_ms": ms, "all_ms": ms / 2, **ran}


TOOLS = [tool("own_f32", 2.0, 1.0), tool("openvino_f16", 1.0, 0.0)]


@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize(
    "rows", [[], [MACHINE], [*LAYERS], [*NOISY], [MACHINE, *LAYERS, *NOISY], [MACHINE, *LAYERS, *TOOLS]]
)
def test_every_figure_is_drawn_from_what_there_is(draw: Any, rows: Sequence[Row]) -> None:
    figure = draw(rows, "laptop")
    figure.canvas.draw()
    assert figure.axes


def test_a_rooflines_points_are_the_layers() -> None:
    figure = figures.rooflines([MACHINE, *LAYERS], "laptop")
    points = [tuple(line.get_data()) for line in figure.axes[0].lines if line.get_marker() in "o^s"]
    x, y = points[0]
    assert (list(x), list(y)) == ([100.0], [100.0])  # 1e7 operations, 1e5 bytes, 1e-4 s


def test_many_networks_stand_in_rows_of_three() -> None:
    rows = [layer("64>64 56x56 k1 s1 relu") | {"net": f"net{number}"} for number in range(7)]
    figure = figures.rooflines([MACHINE, *rows], "workstation")
    shown = [axes for axes in figure.axes if axes.axison]
    places = [axes.get_subplotspec() for axes in shown]
    assert [axes.get_title(loc="left") for axes in shown] == [f"net{number}" for number in range(7)]
    assert [place.rowspan.start for place in places if place] == [0, 0, 0, 1, 1, 1, 2]
    assert [bool(axes.get_ylabel()) for axes in shown] == [True, False, False] * 2 + [True]


def test_bars_end_at_the_time_of_the_layer() -> None:
    figure = figures.time_lost([MACHINE, *LAYERS], "laptop")
    ends: dict[float, float] = {}
    for bar in figure.axes[0].patches:
        ends[bar.get_y()] = max(ends.get(bar.get_y(), 0.0), bar.get_x() + bar.get_width())  # type: ignore[attr-defined]
    assert list(ends.values()) == pytest.approx([1.0, 1.0, 1.0])


@given(st.floats(1.0, 100.0), st.floats(0.0, 200.0), st.floats(0.0, 200.0), st.floats(1.0, 1000.0))
def test_parts_of_a_time_are_not_negative_and_add_up(
    total: float, memory: float, convert: float, peak: float
) -> None:
    row = {"mflop": 1.0, "f16s_hot_us": total, "f16s_memory_us": memory, "f16s_convert_us": convert}
    parts = figures.spent(row, "f16s", peak)
    assert min(parts.values()) >= -1e-9
    assert sum(parts.values()) == pytest.approx(total)
    assert parts["compute"] == pytest.approx(min(total, 1000.0 / peak))


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"ran_f32": 0.0, "ran_bf16": 1.0, "ran_f16": 0.0}, "ran bf16"),
        ({"ran_f32": 0.25, "ran_bf16": 0.75}, "75 % bf16, 25 % fp32"),
        ({}, ""),
    ],
)
def test_what_ran_in_words(shares: Row, words: str) -> None:
    assert figures.ran(shares) == words
