"""For a loop that makes its own batches, on several processes: each learns from a part, gradients are averaged by hand.

All processes know the same batch: they act alike, with the same weights and the same random numbers. So two processes
train what one does, up to rounding. Alone, every function here hands back what it was given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from common.errors import BadInputError


def share(batch: Shaped[Tensor, ...], axis: int) -> Shaped[Tensor, ...]:
    """This process's part of a batch that lies along `axis`: entries rank, rank + size, rank + 2 size, ...; a view.

    Raises:
        BadInputError: the parts would not be equal; gradients are averaged with equal weight.
    """
    size = _size()
    if size == 1:
        return batch
    if batch.shape[axis] % size:
        raise BadInputError(
            f"a batch of {batch.shape[axis]} cannot be shared by {size} processes; make it a multiple."
        )
    return batch[(slice(None),) * axis + (slice(dist.get_rank(), None, size),)]


def mean_(
    values: Sequence[Shaped[Tensor, ...]], group: dist.ProcessGroup | None = None, size: int | None = None
) -> None:
    """The mean over all processes, in place, by one message; all must call it with the same shapes.

    Args:
        values: of one dtype on one device.
        group: of `size` processes, in place of all.
        size: number of processes.
    """
    size = size or _size()
    if size > 1 and values:
        flat = torch.cat([value.reshape(-1) for value in values])
        dist.all_reduce(flat, group=group)
        flat /= size
        for value, mean in zip(
            values, flat.split_with_sizes([value.numel() for value in values]), strict=True
        ):
            value.copy_(mean.view_as(value))


def total(value: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """The sum over all processes; the value itself, alone."""
    if _size() == 1:
        return value
    result = value.clone()
    dist.all_reduce(result)
    return result


def from_first_(value: Shaped[Tensor, ...]) -> None:
    """What process 0 holds, in place."""
    if _size() > 1:
        dist.broadcast(value, 0)


def check_alike(value: Shaped[Tensor, ...], what: str) -> None:
    """Raise, on all processes, unless all hold the same bits (a NaN is equal to itself).

    Raises:
        BadInputError: they do not, so the processes would drift apart; names `what`.
    """
    if _size() == 1:
        return
    first = value.clone()
    dist.broadcast(first, 0)
    same = torch.equal(*(one.reshape(-1).contiguous().view(torch.uint8) for one in (first, value)))
    differs = torch.tensor(int(not same), device=value.device)
    dist.all_reduce(differs)
    if differs:
        raise BadInputError(
            f"{what} differs between the processes of this job, which have to compute alike: "
            "run it on nodes of one CPU model, or on one node."
        )


def _size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
