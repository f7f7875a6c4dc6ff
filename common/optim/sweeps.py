"""One forward and backward pass over a part of the batch, in chunks, with randomness that can be played again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import BadInputError
from common.optim import base, batches
from common.optim.passes import held_buffers, random_state, set_random_state
from common.optim.precision import full_precision
from common.optim.vectors import Vector
from common.processes.parts import settle

Loss = Callable[[Any], Float[Tensor, ""]]
"""The mean loss over a part of the batch; no backward pass in it."""
States = list[dict[str, Any]]


class Sweeps:
    """Makes losses and gradients of the parameters, wherever these stand.

    Args:
        optimizer: of whose parameters gradients are taken.
        module: whose buffers only the first pass may change.
        scaler: whose scale losses are multiplied by.
        generators: the user's own generators.
        backward: makes gradients of a loss; None for ``Tensor.backward``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        module: nn.Module | None,
        scaler: torch.amp.GradScaler | None,
        generators: Sequence[torch.Generator],
        backward: Callable[[Tensor], Any] | None,
    ) -> None:
        self.optimizer, self.module, self.scaler = optimizer, module, scaler
        self.generators, self.backward = generators, backward or torch.Tensor.backward

    @property
    def params(self) -> Vector:
        """The trainable parameters, in order."""
        return base.parameters(self.optimizer)

    def loss(self, loss: Loss, part: Any, chunk: int, record: States) -> Float[Tensor, ""]:
        """The mean loss, without gradients."""
        with torch.no_grad():
            return self._sweep(loss, part, chunk, [], record, gradient=False)

    def gradient(
        self, loss: Loss, part: Any, chunk: int, play: States | None = None, record: States | None = None
    ) -> tuple[Float[Tensor, ""], list[Tensor | None]]:
        """The mean loss and its gradient by parameter (times the scaler's scale).

        Args:
            loss: of a chunk.
            part: the examples.
            chunk: how many of them at once.
            play: states of the generators that the first chunks start from.
            record: where to add the states that the chunks start from.

        Raises:
            BadInputError: the loss is no scalar, a gradient is sparse, or there is none at all.
        """
        self.clear()
        value = self._sweep(loss, part, chunk, play or [], record, gradient=True)
        gradient = [p.grad for p in self.params]
        self.clear()
        if all(g is None for g in gradient):
            raise BadInputError("no parameter of the base optimiser received a gradient from the loss.")
        sparse = [i for i, g in enumerate(gradient) if g is not None and g.layout != torch.strided]
        if sparse:
            raise BadInputError(
                f"{self.name(sparse[0])} has a sparse gradient; use a dense one (sparse=False)."
            )
        return value, gradient

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def name(self, number: int) -> str:
        """The parameter of this number, for a message."""
        named = self.module.named_parameters() if self.module else ()
        names = [name for name, p in named if p is self.params[number]]
        return f"parameter {names[0] if names else f'number {number}'} {list(self.params[number].shape)}"

    def scale(self) -> float:
        """What gradients are multiplied by."""
        return self.scaler.get_scale() if self.scaler else 1.0

    def settle(self) -> None:
        """Before the parameters are moved: nothing must remember where they stood."""
        if self.module is not None:
            settle(self.module)

    @contextmanager
    def at_w_eps(self, hold: bool, fp32: bool) -> Generator[None]:
        """Around a pass at w + eps: without a trace in the buffers, in full precision, where asked."""
        device = self.params[0].device.type
        with held_buffers(self.module if hold else None), full_precision(device) if fp32 else nullcontext():
            yield

    def _sweep(
        self, loss: Loss, part: Any, chunk: int, play: States, record: States | None, gradient: bool
    ) -> Float[Tensor, ""]:
        torch.clear_autocast_cache()  # it holds 16-bit copies of the weights, which have moved since
        total = torch.zeros(())
        parts = batches.chunks(part, chunk)
        for number, piece in enumerate(parts):
            if number < len(play):
                set_random_state(play[number], self.generators)
            if record is not None:
                record.append(random_state(self.generators))
            value = loss(piece)
            if not torch.is_tensor(value) or value.numel() != 1:
                raise BadInputError(
                    "the loss must return one number as a tensor: the mean over its examples."
                )
            share = value if len(parts) == 1 else value / len(parts)
            if gradient:
                self.backward(self.scaler.scale(share) if self.scaler else share)
            total = share.detach() if number == 0 else total + share.detach()
        return total
