"""The Lightning module under ``fit``: killed twice, it ends with the bits of a training that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
STEPS = 12


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trainings")
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:The `srun` command is available:UserWarning",
            "-m",
            "tests.common.optim.trainee",
            str(folder),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["SAM", "LookSAM", "late RandomDirection"])
def test_resume_equals_uninterrupted(trainings: dict[str, Any], case: str) -> None:
    whole, (first, second, last) = trainings[case]["whole"], trainings[case]["parts"]
    assert first == second == {"error": "killed"}
    for name in ("digest", "steps", "global_step", "lr"):
        assert last[name] == whole[name], name
    assert (whole["steps"], whole["global_step"]) == (STEPS, STEPS)
    assert 0 < len(last["losses"]) < STEPS
    assert all(whole["losses"][step] == loss for step, loss in last["losses"].items())


def test_schedules_reach_the_wrapper(trainings: dict[str, Any]) -> None:
    rho = trainings["SAM"]["whole"]["rho"]
    assert rho[0] == pytest.approx(0.1)
    assert rho == sorted(rho, reverse=True)
    assert rho[-1] < 0.01
    late = trainings["late RandomDirection"]["whole"]["rho"]
    assert [i for i, value in enumerate(late) if value > 0] == [5, 7, 9, 11]
