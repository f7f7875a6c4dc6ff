"""Blockings: by rule, by measuring, remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.fp16_cnn import blocking, tuner
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Layout
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.shape import LayerShape

SHAPE = LayerShape("conv", 1, 16, 32, 8, 8)


@given(
    st.integers(1, 9), st.integers(1, 600), st.integers(1, 300), st.integers(1, 60), st.sampled_from([1, 3]),
    st.sampled_from(sorted(PRECISIONS)),
)  # fmt: skip
def test_every_candidate_fits_the_registers(
    batch: int, inputs: int, outputs: int, size: int, kernel: int, name: str
) -> None:
    pad = kernel // 2
    shape = LayerShape("conv", batch, inputs, outputs, size, size, (kernel, kernel), (1, 1), (pad,) * 4)
    tried = blocking.candidates(shape, PRECISIONS[name])
    assert tried[0] == blocking.default(shape, PRECISIONS[name])
    assert len(tried) <= 20
    assert all(1 <= one.vectors * one.pixels <= max(28, blocking.registers()) for one in tried)


def test_pixels_four_kilobytes_apart_stay_few() -> None:
    far = LayerShape("conv", 1, 1024, 256, 14, 14)
    assert (
        blocking.default(far, PRECISIONS["f32"]).pixels
        <= 7
        < blocking.default(far, PRECISIONS["bf16"]).pixels
    )


def test_the_result_is_a_candidate_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(tuner, "SECONDS", 1e-4)
    found = blocking.best(SHAPE, PRECISIONS["f32"])
    assert found in blocking.candidates(SHAPE, PRECISIONS["f32"])
    other = blocking.best(SHAPE, PRECISIONS["f32"], target=Layout(1, 8, 8, 32, (1, 1, 1, 1)))
    assert other in blocking.candidates(SHAPE, PRECISIONS["f32"])
    text = tuner.cache_file().read_text()
    assert len(text.splitlines()) > 4
    monkeypatch.setattr(tuner, "measure", None)  # a second measurement would fail
    assert blocking.best(SHAPE, PRECISIONS["f32"]) == found


def test_a_damaged_cache_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(tuner, "measure", lambda *_: Blocking(1, 7))
    tuner.cache_file().write_text('{"half')
    assert blocking.best(SHAPE, PRECISIONS["f32"]) == Blocking(1, 7)
    monkeypatch.setattr(tuner, "measure", None)
    assert blocking.best(SHAPE, PRECISIONS["f32"]) == Blocking(1, 7)
