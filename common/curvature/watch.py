"""The probes of `telemetry` as live curves of a training: a Lightning callback for `common.training.fit.fit`."""

from __future__ import annotations

from typing import Any, Protocol

import pytorch_lightning as pl
from jaxtyping import Shaped
from torch import Tensor, nn

from common.curvature.landscape import LossFunction
from common.curvature.telemetry import Probes, telemetry
from common.errors import BadInputError


class Log(Protocol):
    """Such as `common.tracking.record.Recorder.log`."""

    def __call__(self, step: int, /, **values: float) -> None:
        """A row of the curve."""


class CurvatureWatch(pl.Callback):
    """Measures the curvature after every `every`-th step; the training keeps its bits.

    Args:
        model: what is watched, a part of the LightningModule or all of it; outputs = model(inputs).
        loss: (outputs, targets) -> mean over the examples, without weight decay.
        inputs, targets: the examples: the full training set, where the ``full_batch_…`` curves are to mean something.
        probes: what to measure and how; rho, rate and decay are those of the training.
        every: steps from one measurement to the next.
        log: where the rows go.

    Raises:
        BadInputError: `every` is below 1; from a step, what `telemetry` refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        inputs: Shaped[Tensor, "n ..."],
        targets: Shaped[Tensor, "n ..."],
        probes: Probes,
        every: int,
        log: Log,
    ) -> None:
        if every < 1:
            raise BadInputError(f"curvature is measured every 1 or more steps, not every {every}.")
        self._watched = model, loss, inputs, targets, probes
        self._every, self._log = every, log

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, where it is due."""
        if (batch_idx + 1) % self._every == 0:
            self._log(batch_idx + 1, **telemetry(*self._watched))
