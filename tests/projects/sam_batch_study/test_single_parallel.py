"""A net on two processes, whole on each or in parts: what one process trains, and to the bit when continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.processes import begin, finish

MODULE = ("-m", "tests.projects.sam_batch_study.together")
pytestmark = pytest.mark.timeout(240)


def left(out: Path, size: int, strategy: str = "ddp", m: int = 32, stop: int = -1) -> dict[str, Any]:
    code = 0 if stop < 0 else 75
    finish(begin(size, [*MODULE, str(out), str(m), str(stop)], RETHESIS_STRATEGY=strategy), code)
    return torch.load(out / "left.pt", weights_only=True) if code == 0 else {}


def gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a weight, over the same crossings."""
    assert one["weights"].keys() == other["weights"].keys() and len(one["weights"]) > 2
    return max(
        float((value - other["weights"][name][key]).abs().max())
        for name, state in one["weights"].items()
        for key, value in state.items()
    )


@pytest.mark.parametrize(
    ("strategy", "m"),
    [
        ("fsdp", 8),  # each perturbation batch is spread over both
        pytest.param("fsdp", 32, marks=pytest.mark.slow),
        pytest.param("ddp", 32, marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_the_net_of_one(tmp_path: Path, strategy: str, m: int) -> None:
    """In float64: the same outcome, and the whole weights at each crossing of a level of loss."""
    one, two = left(tmp_path / "one", 1, m=m), left(tmp_path / "two", 2, strategy, m)
    assert one["outcome"] == pytest.approx(two["outcome"], rel=1e-6)
    found = gap(one, two)
    print(
        f"measured: ResNet, m = {m}, {strategy} on 2 processes and on 1 (float64): largest difference {found:.1e}"
    )
    assert found < 1e-12


@pytest.mark.slow
def test_stopped_and_continued_in_parts_to_the_bit(tmp_path: Path) -> None:
    """Also the best weights and those of the crossings, which a checkpoint holds whole."""
    whole = left(tmp_path / "whole", 2, "fsdp")
    left(tmp_path / "cut", 2, "fsdp", stop=7)
    cut = left(tmp_path / "cut", 2, "fsdp")
    assert gap(whole, cut) == 0.0 and whole["outcome"] == cut["outcome"]
