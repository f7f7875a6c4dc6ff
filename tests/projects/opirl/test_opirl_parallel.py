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


def stage(out: Path, size: int, stop: int = -1, method: str = "opirl") -> Path:
    finish(begin(size, [*MODULE, str(out), "stage", method, str(stop)]), 0 if stop < 0 else 75)
    return out / "imitate" / "0"


def test_two_processes_update_as_one_in_float64(tmp_path: Path) -> None:
    """Every method's networks, temperature and target after 30 updates, a third of the states absorbing."""
    for size in (1, 2):
        finish(begin(size, [*MODULE, str(tmp_path / str(size)), "updates"]))
    for method in METHODS:
        one, two = (torch.load(tmp_path / size / f"{method}.pt", weights_only=True) for size in ("1", "2"))
        gap = max(float((one[name] - two[name]).abs().max()) for name in one)
        print(
            f"measured: {method} on 2 processes and on 1 (float64): largest difference of a weight {gap:.1e}"
        )
        assert gap < 1e-13
        assert all(value.isfinite().all() for value in one.values())


def test_a_stop_asked_of_one_process_changes_no_bit(tmp_path: Path) -> None:
    """The second process has no files: its replay buffer comes back from the first one's."""
    whole, cut = stage(tmp_path / "whole", 2), stage(tmp_path / "cut", 2, stop=20)
    assert not (cut / "policy.npz").exists()
    stage(tmp_path / "cut", 2)
    for name in ("history.jsonl", "policy.npz", "reward.npz", "replay-0.f32", "replay-1.f32"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["opirl", "airl"])
def test_two_processes_learn_what_one_learns(tmp_path: Path, method: str) -> None:
    """In float32 and with MuJoCo between the updates: close while the steps are few."""
    one, two = (stage(tmp_path / str(size), size, method=method) for size in (1, 2))
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
