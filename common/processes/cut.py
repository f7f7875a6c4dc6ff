"""Flat tensors of which each process holds a part: what FSDP does to layers, for weights that are used by hand."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from common.processes.shares import mean_

MARK = "_cut"


class Cut:
    """Cuts vectors of `length` entries into equal parts, the last filled up with zeros.

    With one part `own` and `whole` hand back what they were given.

    Args:
        length: entries of a whole vector.
        parts: number of processes among which it is cut.
        index: of this process's part.
    """

    def __init__(self, length: int, parts: int = 1, index: int = 0) -> None:
        self.length, self.parts, self.index = length, parts, index

    def own(self, whole: Shaped[Tensor, "... length"]) -> Shaped[Tensor, "... part"]:
        """This process's part of a tensor that all processes have; a copy."""
        if self.parts == 1:
            return whole
        each = -(-self.length // self.parts)
        mine = whole[..., self.index * each : (self.index + 1) * each]
        return nn.functional.pad(mine, (0, each - mine.shape[-1]))

    def whole(self, own: Shaped[Tensor, "... part"]) -> Shaped[Tensor, "... length"]:
        """The tensor put together; every process has to ask. Its gradient is averaged over them, then cut."""
        return own if self.parts == 1 else cast(Tensor, _Whole.apply(own, self))

    def parameter(self, whole: Float[Tensor, "... length"]) -> nn.Parameter:
        """The own part as a parameter, by which ``cut_of`` knows it again."""
        result = nn.Parameter(self.own(whole.detach()))
        if self.parts > 1:
            setattr(result, MARK, self)
        return result

    def keep(self, module: nn.Module, *names: str) -> None:
        """Let the module's state dict hold these parameters or buffers whole, so that any number may load it."""
        if self.parts == 1:
            return

        def put_together(_: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
            for name in names:
                state[prefix + name] = self.whole(state[prefix + name].detach())

        def take_apart(_: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
            for name in names:
                if prefix + name in state:
                    state[prefix + name] = self.own(state[prefix + name])

        module.register_state_dict_post_hook(put_together)
        module.register_load_state_dict_pre_hook(take_apart)


def cut_of(parameter: Tensor) -> Cut | None:
    """How this parameter was cut; None: it is whole, and its gradient is this process's own."""
    return getattr(parameter, MARK, None)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, cut: Cut) -> Tensor:
        ctx.cut = cut
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(cut.parts)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, -1)[..., : cut.length]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        mean = grad_outputs[0].clone()
        mean_([mean])
        return ctx.cut.own(mean), None
