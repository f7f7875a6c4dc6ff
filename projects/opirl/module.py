"""The LightningModule around an arm: manual optimisation, evaluation at fixed interactions, state for exact resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import nn

from common.errors import NonFiniteError
from common.processes.shares import check_alike
from common.tracking.record import Recorder
from projects.opirl.arm import Arm, Setting
from projects.opirl.rollout import evaluate


class Training(pl.LightningModule):
    """N members of one arm learning in one environment.

    Args:
        arm: the method; its parameters become this module's.
        setting: where it learns.
        steps: steps in the whole run.
        every: interactions between evaluations of the deterministic policy (there is one before the first step).
        episodes: episodes of one evaluation, always from the same starts.
        records: one per member.

    Attributes:
        curve: rows (interactions, return of member 0, 1, ...).
    """

    averages_gradients = True  # over processes: projects/opirl/adam.py
    cuts_itself = True  # projects/opirl/networks.py

    def __init__(
        self,
        arm: Arm,
        setting: Setting,
        steps: int,
        every: int,
        episodes: int,
        records: Sequence[Recorder],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        assert isinstance(arm, nn.Module)
        self.arm: Arm = arm
        self.setting, self.steps, self.episodes, self.records = setting, steps, episodes, records
        self.every = max(1, every // max(1, arm.stride))
        self.curve: list[list[float]] = []

    def training_step(self, batch: list[int], index: int) -> None:
        """The steps numbered in `batch`, one after the other."""
        for k in batch:
            if k == 0:
                self.evaluate(0)
            try:
                self.arm.step(k)
            except NonFiniteError as error:
                raise NonFiniteError(f"step {k}: {error}") from None
            if (k + 1) % self.every == 0 or k + 1 == self.steps:
                self.evaluate(k + 1)

    def evaluate(self, steps: int) -> None:
        """Evaluate every member and append to its history."""
        setting = self.setting
        returns = evaluate(self.arm.act, setting.env, self.episodes, setting.seeds, self.arm.counters).mean(1)
        check_alike(torch.from_numpy(returns), "the return of an evaluation")
        interactions = steps * self.arm.stride
        self.curve.append([float(interactions), *map(float, returns)])
        more = self.arm.diagnostics(steps)
        for i, (record, value, counter) in enumerate(
            zip(self.records, returns, self.arm.counters, strict=True)
        ):
            extra = {name: float(values[i]) for name, values in more.items()}
            record.log(
                steps, interactions=interactions, evaluation=counter.evaluation, **{"return": value}, **extra
            )

    def returns(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k n"]]:
        """Interactions and returns of every evaluation."""
        table = np.array(self.curve)
        return table[:, 0], table[:, 1:]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """For the checkpoint; the arm steps them itself."""
        return self.arm.optimisers()

    def journals(self) -> Mapping[str, Any]:
        """The arm's append-only files."""
        return self.arm.journals()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not know of."""
        counts = [counter.evaluation for counter in self.arm.counters]
        checkpoint["opirl"] = {"arm": self.arm.state(), "curve": self.curve, "evaluation": counts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put it back."""
        saved = checkpoint["opirl"]
        self.arm.load_state(saved["arm"])
        self.curve = [list(row) for row in saved["curve"]]
        for counter, count in zip(self.arm.counters, saved["evaluation"], strict=True):
            counter.evaluation = int(count)
