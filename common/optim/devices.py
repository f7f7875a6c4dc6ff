"""The perturbation batch over several devices: each of D processes holds B / D examples of the batch.

m up to B / D: each process perturbs its own batches. Larger m: blocks of m D / B neighbouring processes share one
gradient g1, so that the result depends on m and not on D. The loss must call the bare module or stand under
``no_sync()``: the sums over processes are made here.

Where each process holds a part of every weight (FSDP2), all stand at the same w + eps, and gradients come averaged:
every perturbation batch is then spread over all processes, m / D of its examples on each.
"""

from __future__ import annotations

import torch.distributed as dist

from common.errors import BadInputError
from common.optim.batches import check_divides
from common.optim.vectors import Vector
from common.processes.parts import is_part
from common.processes.shares import mean_


class Devices:
    """The processes of ``torch.distributed``, or this one alone.

    Args:
        sharded: each holds a part of the weights.
    """

    def __init__(self, sharded: bool = False) -> None:
        self.sharded = sharded
        on = dist.is_available() and dist.is_initialized()
        self.world = dist.get_world_size() if on else 1
        self.rank = dist.get_rank() if on else 0
        self._blocks: dict[int, dist.ProcessGroup] = {}

    def local(self, m: int, examples: int) -> int:
        """How many examples of a perturbation batch stand on this process, which holds `examples` of the batch.

        Raises:
            BadInputError: m does not divide B, or the processes cannot be split into blocks of m examples.
        """
        check_divides("m", m, "B", examples * self.world)
        if self.sharded:
            if m % self.world:
                raise BadInputError(
                    f"m = {m} must be a multiple of the {self.world} processes that share weights."
                )
            return m // self.world
        if m > examples and m % examples:
            raise BadInputError(
                f"m = {m} must be a multiple of the {examples} examples that each of {self.world} processes holds."
            )
        if m < examples and examples % m:
            raise BadInputError(f"m = {m} must divide the {examples} examples that each process holds.")
        return min(m, examples)

    def block_mean_(self, v: Vector, m: int, examples: int) -> None:
        """The mean over the processes that share a perturbation batch, in place."""
        size = max(1, m // examples)
        if size > 1 and not self.sharded:
            mean_(v, self._block(size), size)

    def mean_(self, v: Vector) -> None:
        """The mean over all processes, in place, of what is not averaged already."""
        mean_([t for t in v if not is_part(t)])

    def first_number(self, m: int, examples: int) -> int:
        """The number, in the whole batch, of this process's first perturbation batch."""
        return 0 if self.sharded else self.rank * examples // m

    def _block(self, size: int) -> dist.ProcessGroup | None:
        if size not in self._blocks:
            for start in range(0, self.world, size):  # every process must take part in making every group
                ranks = list(range(start, start + size))
                group = dist.new_group(ranks)
                if self.rank in ranks and isinstance(group, dist.ProcessGroup):
                    self._blocks[size] = group
        return self._blocks[size]
