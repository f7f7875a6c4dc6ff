"""Nets on two processes, whole on each or in parts: what one process trains, and to the bit when continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import BadInputError
from projects.sam_batch_study.rules import Rule
from tests.support.processes import begin, finish

MODULE = ("-m", "tests.projects.sam_batch_study.together")
pytestmark = pytest.mark.timeout(240)


def left(out: Path, size: int, strategy: str = "ddp", m: int = 32, stop: int = -1) -> dict[str, Any]:
    code = 0 if stop < 0 else 75
    finish(begin(size, [*MODULE, str(out), "single", str(m), str(stop)], RETHESIS_STRATEGY=strategy), code)
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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_stack_of_perceptrons_is_that_of_one_process(tmp_path: Path, strategy: str) -> None:
    """By every rule, each perturbation batch and the part that perturbs spread over both; the weights cut or not."""
    found: list[dict[str, dict[str, torch.Tensor]]] = []
    for size in (1, 2):
        out = tmp_path / str(size)
        out.mkdir()
        finish(begin(size, [*MODULE, str(out), "stack", "-1"], RETHESIS_STRATEGY=strategy))
        found.append(torch.load(out / "left.pt", weights_only=True))
    one, two = found
    for rule, state in one.items():
        assert torch.equal(state["stopped_at"], two[rule]["stopped_at"])
        largest = max(
            float((value - two[rule][name]).abs().nan_to_num(0.0).max()) for name, value in state.items()
        )
        print(
            f"measured: perceptrons, {rule}, {strategy} on 2 processes and on 1 (float64): largest difference "
            f"{largest:.1e}"
        )
        assert largest < 1e-12
        assert float((state["rows"] - one["sgd"]["rows"]).abs().max()) > 0 or rule == "sgd"


def test_a_stack_stopped_and_continued_in_parts_to_the_bit(tmp_path: Path) -> None:
    """Weights, velocity, best weights and those of the crossings: whole in the checkpoint, parts in the process."""
    left: list[dict[str, dict[str, torch.Tensor]]] = []
    for name in ("whole", "cut"):
        out = tmp_path / name
        out.mkdir()
        if name == "cut":
            finish(begin(2, [*MODULE, str(out), "stack", "5"], RETHESIS_STRATEGY="fsdp"), 75)
            assert not (out / "left.pt").exists()
        finish(begin(2, [*MODULE, str(out), "stack", "-1"], RETHESIS_STRATEGY="fsdp"))
        left.append(torch.load(out / "left.pt", weights_only=True))
    for rule, state in left[0].items():
        for name, value in state.items():
            torch.testing.assert_close(left[1][rule][name], value, rtol=0, atol=0, equal_nan=True)


def test_a_perturbation_batch_that_cannot_be_dealt_out_is_refused() -> None:
    assert Rule("sam", 64, 16, 4).part(2) == Rule("sam", 32, 8, 2)
    with pytest.raises(BadInputError, match=r"8 processes must divide m = 16 and the 4 examples"):
        Rule("sam", 64, 16, 4).part(8)
