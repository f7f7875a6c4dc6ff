"""The Lightning module under ``fit``: killed twice, it ends with the bits of a training that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from common.errors import BadInputError
from tests.common.optim.quadratic import data
from tests.common.optim.trainee import CASES, Trainee

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
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


def test_weights_of_a_checkpoint_bring_no_state_of_the_wrapper(tmp_path: Path) -> None:
    """`load_from_checkpoint` starts another training, which may have another rule; steps count from 0."""
    first = Trainee(CASES["LookSAM"], -1)
    trainer = pl.Trainer(max_steps=4, logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.fit(first, DataLoader(TensorDataset(*data(0, 64)), batch_size=16))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    second = Trainee.load_from_checkpoint(
        tmp_path / "end.ckpt", settings=CASES["SAM"], fails_at=-1, weights_only=True
    )
    torch.testing.assert_close(second.state_dict(), first.state_dict())
    short = pl.Trainer(
        max_steps=2,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    short.fit(second, DataLoader(TensorDataset(*data(0, 64)), batch_size=16))
    assert second.sharpness is not None and second.sharpness.steps == 2


def test_a_trainer_that_scales_losses_is_refused(tmp_path: Path) -> None:
    """Clipping, decay and norms would be of the scaled gradient."""
    scaling = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    trainer = pl.Trainer(
        max_steps=1, logger=False, enable_progress_bar=False, enable_checkpointing=False, plugins=[scaling],
        default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(BadInputError, match="16-mixed: Lightning scales the loss"):
        trainer.fit(Trainee(CASES["SAM"], -1), DataLoader(TensorDataset(*data()), batch_size=16))
