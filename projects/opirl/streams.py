"""Random numbers as a pure function of (seed, name, step): nothing to save, nothing shared between members.

Numbers are drawn in blocks of steps, because a generator's call costs more than a batch of its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from common.training.seeds import generator

Kind = Literal["normal", "uniform"]
BLOCK = 64


class Streams:
    """Stacked draws: ``at(step)[name]`` is (n, *shape), row i drawn from member i's own stream.

    Args:
        seeds: one per member.
        name: separates this object's numbers from every other's.
        draws: name -> (kind, shape of one member's draw).
    """

    def __init__(
        self, seeds: Sequence[int], name: str, draws: Mapping[str, tuple[Kind, tuple[int, ...]]]
    ) -> None:
        self.seeds = tuple(seeds)
        self.name = name
        self.draws = dict(draws)
        self._block = -1
        self._values = {
            key: torch.empty(BLOCK, len(self.seeds), *shape) for key, (_, shape) in self.draws.items()
        }

    def at(self, step: int) -> dict[str, Tensor]:
        """The draws of a step. They are views, valid until the next block is asked for."""
        block, row = divmod(step, BLOCK)
        if block != self._block:
            self._fill(block)
        return {key: values[row] for key, values in self._values.items()}

    def _fill(self, block: int) -> None:
        for key, (kind, shape) in self.draws.items():
            for index, seed in enumerate(self.seeds):
                source = generator(seed, self.name, key, block)
                fresh = torch.empty(BLOCK, *shape)
                filled = (
                    fresh.normal_(generator=source) if kind == "normal" else fresh.uniform_(generator=source)
                )
                self._values[key][:, index] = filled
        self._block = block
