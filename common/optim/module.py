"""A LightningModule that trains with a sharpness-aware optimiser: manual optimisation, resumed to the bit.

Lightning's automatic optimisation would run ``training_step`` twice a step, mix clean and perturbed losses in what is
logged, clip in both passes and leave the optimiser out under 16-bit plugins.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import pytorch_lightning as pl
from jaxtyping import Float
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from common.errors import BadInputError
from common.optim import state
from common.optim.settings import Settings
from common.optim.sharpness import Report, SharpnessAware

KEY = "sharpness"


class SharpnessModule(pl.LightningModule):
    """Give it ``loss`` and ``base_optimizer``; the rest is optional.

    Args:
        settings: rule, rho, batches.
    """

    averages_gradients = True  # over processes, see common.optim.devices
    steps_on_parts = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.sharpness: SharpnessAware | None = None
        self._saved: dict[str, Any] | None = None

    @abstractmethod
    def loss(self, batch: Any) -> Float[Tensor, ""]:
        """The mean loss over a part of the batch; called twice on each part with the same random numbers."""

    @abstractmethod
    def base_optimizer(self) -> Optimizer:
        """The base optimiser of this module's parameters."""

    def schedule(self, optimizer: Optimizer) -> LRScheduler | None:
        """The learning rate's schedule, stepped after every step; none unless overridden."""
        return None

    def on_report(self, report: Report, step: int) -> None:
        """What a step saw: the place to log."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The base optimiser and its schedule.

        Raises:
            BadInputError: the Trainer scales losses (precision 16-mixed), of which the step would know nothing.
        """
        if self._trainer is not None and getattr(self._trainer.precision_plugin, "scaler", None) is not None:
            raise BadInputError(
                "precision=16-mixed: Lightning scales the loss out of this module's sight. Use bf16-mixed, or "
                "SharpnessAware with a GradScaler of its own."
            )
        base = self.base_optimizer()
        self.sharpness = SharpnessAware(
            base, self.settings, module=self, backward=self.manual_backward, apply=self._descend
        )
        scheduler = self.schedule(base)
        return base if scheduler is None else {"optimizer": base, "lr_scheduler": scheduler}

    def on_train_start(self) -> None:
        """Take over what ``on_load_checkpoint`` read: only now is there an optimiser."""
        if self._saved is not None:
            state.load(self._optimizer(), self._saved, with_base=False)
            self._saved = None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One step."""
        report = self._optimizer().step(self.loss, batch)
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            cast("LRScheduler", scheduler).step()
        self.on_report(report, batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the wrapper's own state (Lightning saves the base optimiser's)."""
        checkpoint[KEY] = state.save(self._optimizer(), with_base=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the wrapper's state until there is an optimiser; ``load_from_checkpoint`` wants the weights only."""
        if self._trainer is not None:
            self._saved = checkpoint[KEY]

    def _optimizer(self) -> SharpnessAware:
        assert self.sharpness is not None
        return self.sharpness

    def _descend(self) -> None:
        cast("Optimizer", self.optimizers()).step()
