"""The callback: what `telemetry` gives at the same weights, and a training that does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from common.curvature.landscape import Landscape
from common.curvature.telemetry import Probes, telemetry
from common.curvature.watch import CurvatureWatch
from common.errors import BadInputError
from common.tracking.record import Recorder, read_history
from common.training.data import StepIndices
from common.training.fit import fit
from tests.common.curvature.nets import mlp

STEPS, EVERY = 7, 3
PROBES = Probes(rho=0.1, lr=0.2)


class FullBatch(pl.LightningModule):
    """Gradient descent on all examples; remembers its weights."""

    def __init__(self, landscape: Landscape) -> None:
        super().__init__()
        self.net, self.landscape = landscape.model, landscape
        self.seen: list[dict[str, Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), PROBES.lr)

    def training_step(self, batch: list[int], batch_idx: int) -> Tensor:
        return self.landscape.loss(self.net(self.landscape.inputs), self.landscape.targets)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append({name: value.clone() for name, value in self.net.state_dict().items()})


def trained(out: Path, watched: bool) -> tuple[FullBatch, list[Any]]:
    landscape = mlp()
    module = FullBatch(landscape)
    out.mkdir()
    with Recorder(out) as record:
        probed = landscape.model, landscape.loss, landscape.inputs, landscape.targets, PROBES
        callbacks = [CurvatureWatch(*probed, every=EVERY, log=record.log)] if watched else []
        fit(module, StepIndices(STEPS), out, records=[record], callbacks=callbacks)
    return module, list(read_history(out / "history.jsonl"))


def test_the_curve_is_that_of_the_weights_and_the_training_keeps_its_bits(tmp_path: Path) -> None:
    plain, none = trained(tmp_path / "plain", False)
    module, rows = trained(tmp_path / "watched", True)
    assert not none and [row["step"] for row in rows] == [3, 6]
    for before, after in zip(plain.seen, module.seen, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    for row in rows:
        landscape = mlp()
        landscape.model.load_state_dict(module.seen[int(row["step"]) - 1])
        found = telemetry(landscape.model, landscape.loss, landscape.inputs, landscape.targets, PROBES)
        assert {name: row[name] for name in found} == found


def test_a_period_below_one_is_refused() -> None:
    with pytest.raises(BadInputError, match="every 1 or more steps, not every 0"):
        CurvatureWatch(
            nn.Linear(1, 1), nn.functional.mse_loss, torch.ones(1, 1), torch.ones(1, 1), PROBES, 0, print
        )
