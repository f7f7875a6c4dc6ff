"""One step of a sharpness-aware optimiser around any torch optimiser.

For each perturbation batch of m examples: a pass at w (loss, g1), a pass at w + eps (g2), w back to the bit. The base
optimiser then steps with the mean over these batches of a g1 + b g2 (``rules``), clipped if asked.

    optimizer = SharpnessAware(torch.optim.SGD(net.parameters(), lr=0.1), Settings(SAM(), m=128, rho=0.05), module=net)
    report = optimizer.step(lambda batch: cross_entropy(net(batch[0]), batch[1]), (x, y))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import BadInputError
from common.optim import state
from common.optim.base import check
from common.optim.gradient import Found, Sharp
from common.optim.settings import Settings
from common.optim.sweeps import Loss, Sweeps


@dataclass(frozen=True)
class Report:
    """What a step saw.

    Attributes:
        loss: mean loss at w, over what the first pass computed; None where the rule makes no pass at w (MSAM).
        perturbed: mean loss at w + eps; None for a step without perturbation.
        rho: neighbourhood size (mean over perturbation batches); 0 for a step without perturbation.
        norm: mean over perturbation batches of the norm that is divided by; 0 where none was.
        skipped: a GradScaler found an overflow and left w alone.
    """

    loss: Float[Tensor, ""] | None
    perturbed: Float[Tensor, ""] | None
    rho: float
    norm: float
    skipped: bool


class SharpnessAware:
    """A base optimiser, and how its gradient is made.

    It is no ``torch.optim.Optimizer``: schedulers belong on `base`, whose state ``state_dict`` contains.

    Args:
        base: any torch optimiser; see ``large_batch`` for LARS and LAMB.
        settings: rule, rho, batches.
        module: whose buffers (running statistics) keep what the first pass made of them.
        scaler: of mixed precision; a disabled one counts as none. eps does not depend on its scale, so nothing is
            unscaled before the end.
        generators: random generators of the user that a loss draws from, besides the global ones.
        backward: makes gradients of a loss (Lightning: ``manual_backward``).
        apply: steps the base optimiser (Lightning: the wrapped optimiser's ``step``); not with a scaler.

    Raises:
        BadInputError: the settings do not fit the base optimiser.
    """

    def __init__(
        self,
        base: Optimizer,
        settings: Settings,
        *,
        module: nn.Module | None = None,
        scaler: torch.amp.GradScaler | None = None,
        generators: Sequence[torch.Generator] = (),
        backward: Callable[[Tensor], Any] | None = None,
        apply: Callable[[], Any] | None = None,
    ) -> None:
        check(base, settings)
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        if scaler is not None and apply is not None:
            raise BadInputError("a scaler steps the base optimiser itself: leave out apply.")
        self.base, self.settings, self.scaler = base, settings, scaler
        self.apply = apply
        self.steps = 0
        self.memory: dict[int, Tensor] = {}
        self._sweeps = Sweeps(base, module, scaler, tuple(generators), backward)
        self._sharp = Sharp(base, settings, self._sweeps)

    def step(self, loss: Loss, batch: Any) -> Report:
        """One step. On an error the parameters, and the base optimiser, are as before it.

        Args:
            loss: the mean loss over a part of `batch`; called twice on each, with the same random numbers.
            batch: nested tuples, lists and dicts of tensors with the examples along their first dimension.

        Raises:
            BadInputError: no loss; m does not divide B; a gradient that is sparse, or in one pass only.
            NonFiniteError: ||g1|| is not finite, and there is no scaler to skip the step.
        """
        if not callable(loss):
            raise BadInputError(
                "step needs the loss as a function of a part of the batch: step(loss, batch)."
            )
        try:
            with torch.enable_grad():
                found = self._find(loss, batch)
        finally:
            self._sweeps.clear()
        for p, g in zip(self._sweeps.params, found.gradient, strict=True):
            p.grad = g
        skipped = self._descend()
        if found.memory and not skipped:
            self.memory = found.memory
        self.steps += 1
        return Report(found.loss, found.perturbed, found.rho, found.norm, skipped)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs, as plain data: own state, the base optimiser's, the scaler's."""
        return state.save(self)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            BadInputError: it is another optimiser's; nothing was changed.
        """
        state.load(self, saved)

    def _find(self, loss: Loss, batch: Any) -> Found:
        if self.settings.perturbs(self.steps):
            return self._sharp.perturbed(loss, batch, self.steps)
        return self._sharp.plain(loss, batch, self.memory)

    def _descend(self) -> bool:
        scaler, before = self.scaler, self._sweeps.scale()
        if scaler is None:
            self._clip()
            (self.apply or self.base.step)()  # looked up anew: schedulers replace the method
            return False
        scaler.unscale_(self.base)
        self._clip()
        scaler.step(self.base)
        scaler.update()
        return scaler.get_scale() < before

    def _clip(self) -> None:
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self._sweeps.params, self.settings.clip)
