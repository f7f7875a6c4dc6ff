"""Stop within a step of the first loss, gradient or weight that is not finite, before it is used."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import NonFiniteError
from common.processes.parts import whole


def check_finite(value: Float[Tensor, ...], step: int, what: str = "loss", every: int = 1) -> None:
    """Raise unless every element of `value` is finite; about 5 us on a CPU, a synchronisation on a GPU.

    For a manual loop: call it with the loss before the update.

    Args:
        value: a loss, or one loss for each member of a stack.
        step: number of the step, for the message.
        what: name of the value, for the message.
        every: check only steps that are multiples of it.

    Raises:
        NonFiniteError: names the step and, where there are several, the elements.
    """
    if step % every or bool(torch.isfinite(value).all()):
        return
    flat = whole(value.detach()).reshape(-1)  # of a value in parts every process comes here
    bad = [int(i) for i in torch.nonzero(~torch.isfinite(flat)).reshape(-1)]
    where = f" (elements {bad[:8]} of {flat.numel()})" if flat.numel() > 1 else ""
    raise NonFiniteError(f"{what} became {flat[bad[0]].item()} at step {step}{where}")


def check_parameters(module: nn.Module, step: int) -> None:
    """Raise if a parameter is not finite.

    Raises:
        NonFiniteError: names the parameter.
    """
    for name, parameter in module.named_parameters():
        check_finite(whole(parameter), step, f"parameter {name}")


class FiniteGuard(pl.Callback):
    """Checks the loss before the backward pass and the gradient's norm before each optimiser step.

    Args:
        every: check only steps that are multiples of it (on a GPU a check waits for the device).
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """The loss."""
        check_finite(loss, trainer.fit_loop.batch_idx, "loss", self.every)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """The norm of all gradients of this optimiser: not finite when one of them is not."""
        step = trainer.fit_loop.batch_idx
        if step % self.every:
            return
        groups: list[dict[str, Any]] = optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        check_finite(nn.utils.get_total_norm(gradients), step, "gradient norm")
