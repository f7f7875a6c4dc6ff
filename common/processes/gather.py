"""For a loss that is no mean over its examples: the whole batch on every process, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from common.errors import BadInputError


def gathered(part: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "n ..."]:
    """The rows of all processes, in the order that they have in the batch; alone, `part` itself.

    Each process took every n / b-th row (``common.training.data.shared``). When every process computes the same loss
    of the result and gradients are averaged over processes, as DDP and FSDP do, the gradient is that of one process.

    Raises:
        BadInputError: the processes hold different numbers of rows; raised in all of them.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return part
    sizes = [torch.zeros((), dtype=torch.int64, device=part.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(part), device=part.device))
    if len({int(size) for size in sizes}) > 1:
        raise BadInputError(f"ranks hold {[int(size) for size in sizes]} rows: give every rank as many.")
    return _Gather.apply(part).reshape(-1, *part.shape[1:])  # pyright: ignore[reportFunctionMemberAccess]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, part.contiguous())
        return torch.stack(parts, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # of every process's copy of the loss
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        return total[:, dist.get_rank()]
