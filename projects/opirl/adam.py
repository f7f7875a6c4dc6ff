"""Adam as torch.optim.Adam(fused=True) computes it, to the bit, without its bookkeeping.

torch looks for hooks, profilers and accelerators at every step: some 0.2 ms, and 0.6 ms once Lightning is imported
(it makes torch look for the driver of a GPU anew each time), beside 0.1 ms of arithmetic on networks of 64 units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from common.errors import NonFiniteError
from common.processes.cut import Cut, cut_of
from common.processes.shares import mean_

MOMENTS = ("exp_avg", "exp_avg_sq")


def descend(optimiser: torch.optim.Optimizer, loss: Float[Tensor, " n"], what: str) -> None:
    """One step on the members' losses, which add up: no member's gradient meets another's.

    Args:
        what: whose loss, for the message.

    Raises:
        NonFiniteError: a loss is not finite, in any process; the parameters are as before.
    """
    seen = loss.detach().clone()
    mean_([seen])
    if not bool(torch.isfinite(seen).all()):
        bad = torch.nonzero(~torch.isfinite(seen)).flatten().tolist()
        raise NonFiniteError(f"the loss of {what} is {seen[bad[0]].item()} (members {bad} of {len(seen)})")
    optimiser.zero_grad()
    loss.sum().backward()
    optimiser.step()


class Adam(torch.optim.Adam):
    """Parameters of one dtype on one device; state and checkpoints are those of torch's Adam.

    Of a parameter that is cut over the processes a step sees, and keeps moments for, this process's part; a
    checkpoint holds them whole, and every process has to ask for it.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step for the parameters that have a gradient: its mean over the processes of the training."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            mean_([p.grad for p in params if p.grad is not None and cut_of(p) is None])
            if not all(p in self.state for p in params):
                super().step()  # creates the state
                return
            self._descend(group, params)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """As torch's, whole."""
        return self._moments(super().state_dict(), lambda cut, own: cut.whole(own))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a whole state, of any number of processes."""
        super().load_state_dict(self._moments(state_dict, lambda cut, whole: cut.own(whole)))

    def _moments(self, state: dict[str, Any], change: Callable[[Cut, Tensor], Tensor]) -> dict[str, Any]:
        """A copy of a state in which those of the parameters that are cut are changed."""
        result = dict(state["state"])
        cuts = [cut_of(p) for group in self.param_groups for p in group["params"]]
        for index, cut in enumerate(cuts):
            if cut is not None and index in result:
                old = result[index]
                result[index] = {**old, **{name: change(cut, old[name]) for name in MOMENTS}}
        return {**state, "state": result}

    def _descend(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self.state[p] for p in params]
        counts = [state["step"] for state in states]
        torch.ops.aten._foreach_add_.Scalar(counts, 1)
        beta1, beta2 = group["betas"]
        torch.ops.aten._fused_adam_.default(
            params,
            [p.grad for p in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            counts,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
