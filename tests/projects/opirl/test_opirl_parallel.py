"""OPIRL's trainings on two processes: those of one up to rounding, and stopped and continued to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.cluster import ranks
from common.errors import BadInputError
from projects.opirl.networks import whole_vectors
from tests.projects.opirl.together import METHODS
from tests.support.processes import begin, finish

MODULE = ("-m", "tests.projects.opirl.together")
pytestmark = pytest.mark.timeout(240)


def stage(out: Path, size: int, stop: int = -1, method: str = "opirl", strategy: str = "ddp") -> Path:
    program = [*MODULE, str(out), "stage", method, str(stop)]
    finish(begin(size, program, RETHESIS_STRATEGY=strategy), 0 if stop < 0 else 75)
    return out / "imitate" / "0"


def test_two_processes_update_as_one_in_float64(tmp_path: Path) -> None:
    """Every method's networks, temperature and target after 30 updates, a third of the states absorbing."""
    for size, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp")):
        program = [*MODULE, str(tmp_path / f"{size} {strategy}"), "updates"]
        finish(begin(size, program, RETHESIS_STRATEGY=strategy))
    for method in METHODS:
        one, *others = (
            torch.load(tmp_path / name / f"{method}.pt", weights_only=True)
            for name in ("1 ddp", "2 ddp", "2 fsdp")
        )
        for strategy, two in zip(("ddp", "fsdp"), others, strict=True):
            gap = max(float((one[name] - two[name]).abs().max()) for name in one)
            print(
                f"measured: {method}, {strategy} on 2 processes and on 1 (float64): largest difference of a "
                f"weight {gap:.1e}"
            )
            assert gap < 1e-13
        assert all(value.isfinite().all() for value in one.values())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_stop_asked_of_one_process_changes_no_bit(tmp_path: Path, strategy: str) -> None:
    """The second process has no files: its replay buffer comes back from the first one's."""
    whole = stage(tmp_path / "whole", 2, strategy=strategy)
    cut = stage(tmp_path / "cut", 2, stop=20, strategy=strategy)
    assert not (cut / "policy.npz").exists()
    stage(tmp_path / "cut", 2, strategy=strategy)
    for name in ("history.jsonl", "policy.npz", "reward.npz", "replay-0.f32", "replay-1.f32"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "strategy", "stop"),
    [
        ("opirl", "ddp", -1),
        ("opirl", "fsdp", -1),
        ("opirl", "fsdp", 20),
        ("airl", "ddp", -1),
        ("airl", "fsdp", -1),
    ],
)
def test_two_processes_learn_what_one_learns(tmp_path: Path, method: str, strategy: str, stop: int) -> None:
    """In float32 and with MuJoCo between the updates: close while the steps are few. Or one continues after two."""
    one = stage(tmp_path / "1", 1, method=method)
    if stop >= 0:
        stage(tmp_path / "2", 2, stop, method, strategy)
    two = stage(tmp_path / "2", 2 if stop < 0 else 1, -1, method, strategy)
    rows = [list(map(json.loads, (out / "history.jsonl").read_text().splitlines())) for out in (one, two)]
    assert [row["interactions"] for row in rows[0]] == [row["interactions"] for row in rows[1]]
    assert [row["return"] for row in rows[0]] == pytest.approx([row["return"] for row in rows[1]], rel=1e-3)
    with np.load(one / "policy.npz") as a, np.load(two / "policy.npz") as b:
        for name in a.files:
            if a[name].dtype.kind == "f":
                np.testing.assert_allclose(a[name], b[name], atol=1e-3)


def test_a_batch_too_small_for_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 rows for each of them: below that, a seed's bits would depend on the seeds stacked with it."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.place().size == 4
    whole_vectors(collect__batch=128)
    with pytest.raises(BadInputError, match=r"collect.batch is 64: a multiple of 32 for each of 4 processes"):
        whole_vectors(collect__batch=64)
