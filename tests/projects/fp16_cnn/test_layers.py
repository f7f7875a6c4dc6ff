"""The stage that times layers: every kernel of every layer is there, and cold means that all of its memory is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from common.study.model import JobRef
from projects.fp16_cnn import counters, cpu, layers, machine, networks
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.shape import LayerShape
from tests.projects.fp16_cnn.pages import PAGES, SLACK, touch

CELLS = [
    Cell(LayerShape("conv", 1, 16, 32, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1)), "relu", True, 2),
    Cell(LayerShape("depthwise", 1, 16, 16, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), 16), "relu6", False, 1),
    Cell(LayerShape("dense", 1, 64, 10), "none", False, 1),
]
OPTIONS = {
    "rounds": 1,
    "cold_rounds": 1,
    "sample": 1e-5,
    "attempts": 1,
    "ablations": True,
    "two_threads": True,
    "tune": False,
    "counters": False,
}
needs_f16c = pytest.mark.skipif(not cpu.has("f16c"), reason="the CPU has no F16C")


@needs_f16c
def test_every_layer_is_timed_in_every_precision_and_taken_apart(tmp_path: Path) -> None:
    networks.save({"tiny": CELLS}, tmp_path)
    cfg = {"timing": OPTIONS, "nets": {"tiny": "dense"}, "axes": {"net": "tiny", "seed": 0}}
    metrics = layers.run(cfg, {"machine": [JobRef({}, tmp_path, {})]}, tmp_path)
    lines = layers.read(tmp_path)
    assert metrics["layers"] == len(lines) == 3
    assert [(line["label"], line["count"]) for line in lines] == [(cell.label, cell.count) for cell in CELLS]
    for line in lines:
        expected = {*machine.timed(), "again", "f32:l1", "f16w:noconvert", "f16s:noconvert", "f16s:l1"}
        assert expected <= set(line["hot"]) == set(line["cold"])
        assert min(*line["hot"].values(), *line["cold"].values()) > 0
        assert bool(line["two"]) == (line["kind"] == "conv")
        assert "counted" not in line
    if "bf16" in machine.timed():  # only a depthwise layer converts bf16
        assert ["bf16:noconvert" in line["hot"] for line in lines] == [False, True, False]


def run_counted(tmp_path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and the one line of a job that counts."""
    networks.save({"tiny": CELLS[:1]}, tmp_path)
    options = OPTIONS | {"counters": True, "ablations": False, "sample": 1e-3}
    cfg = {"timing": options, "nets": {"tiny": "dense"}, "axes": {"net": "tiny", "seed": 0}}
    metrics = layers.run(cfg, {"machine": [JobRef({}, tmp_path, {})]}, tmp_path)
    (line,) = layers.read(tmp_path)
    return dict(metrics), line


def test_counts_are_those_of_one_call_hot_and_cold_and_of_precisions_alone() -> None:
    kernel = layers.Timed(cast("Any", None), touch, (), None)
    with counters.counting({"page_faults": (counters.SOFTWARE, 2)}) as counting:
        if counting.missing:
            pytest.skip(counting.announce())
        found = layers.counted({"f32": kernel, "again": kernel, "f32:l1": kernel}, counting, 1e-4)
    for state in ("hot", "cold"):
        assert set(found[state]) == {"f32"}
        assert PAGES <= found[state]["f32"]["page_faults"] <= PAGES + SLACK


def test_counters_stand_beside_the_times_of_every_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = {"task_clock": (counters.SOFTWARE, 1)}
    monkeypatch.setattr(counters, "EVENTS", everywhere)
    metrics, line = run_counted(tmp_path)
    if not metrics["counters"]:
        pytest.skip("perf_event_open is forbidden here")
    for state in ("hot", "cold"):
        assert set(line["counted"][state]) == set(machine.timed())
        assert all(events["task_clock"] > 0 for events in line["counted"][state].values())


def test_a_machine_without_counters_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    metrics, line = run_counted(tmp_path)
    words = capfd.readouterr().out
    assert words.startswith("hardware counters: ")
    assert words.count("not available: ") == len(counters.EVENTS) - metrics["counters"]
    assert ("counted" in line) == (metrics["counters"] > 0)


@pytest.mark.parametrize("precision", ["f32", pytest.param("f16s", marks=needs_f16c)])
def test_cold_regions_cover_input_weights_scratch_and_outputs(precision: str) -> None:
    cell = CELLS[0]
    weight, bias = layers.weights(cell, np.random.default_rng(0))
    timed = layers.bind(cell, precision, weight, bias, tuned=False)
    size = PRECISIONS[precision]
    wide = 4 if size.activations == "float32" else 2
    padded_input, outputs = 8 * 8 * 16, 6 * 6 * 32
    least = wide * (padded_input + 2 * outputs) + weight.size * (4 if size.weights == "float32" else 2)
    least += 4 * padded_input if precision == "f16s" else 0  # converted once into a scratch array
    assert sum(size for _, size in timed.regions) >= least


def test_equal_seeds_give_equal_weights() -> None:
    first, second = (layers.weights(CELLS[0], np.random.default_rng(3))[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert float(np.std(first)) == pytest.approx(np.sqrt(2 / CELLS[0].shape.terms), rel=0.1)


def test_weights_beyond_every_cache_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Cell(LayerShape("dense", 1, 8192, 4112), "none", False, 1)
    monkeypatch.setattr(machine, "timed", lambda: ["f32"])
    found = layers.prepare(large, np.random.default_rng(0), tuned=False, ablations=True)
    assert set(found) == {"f32", "again"}
    assert found["again"] is found["f32"]
