"""Class-balanced batches: m images of each of k classes, as a pure function of (seed, step).

Classes, and the images of each class, come from streams of blocks that are as even as blocks can be. The stream of n
things goes through one permutation of them after another, cut into blocks of `size`:

- the things of a block are different ones. Where a block begins in one permutation and ends in the next one, the
  next one is changed within its first `size` places so that it does not repeat what the block already has;
- each permutation holds everything once, so at any point two things were taken equally often, or one of them once
  more.

Permutations and blocks meet again after n / gcd(n, size) blocks, a cycle, and nothing crosses its end; so any block
needs its own cycle and no history, and a resume starts at any step.

A class comes once in each pass over the classes, and takes the next block of its own images then. A class with fewer
images than m gives each of them m // n times and m mod n of them, the next block, once more: only such a class
repeats an image within a batch, and ``common.training.data.Keyed`` then augments the copies alike, since they have the
same (step, index).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from common.data.glyphs.draws import bits
from common.errors import BadInputError

Block = Int64[NDArray[np.int64], " size"]
Cycle = Int64[NDArray[np.int64], "blocks size"]


class BalancedSampler(Sampler[list[tuple[int, int]]]):
    """Batches of the keys (step, index), for ``common.training.data.Keyed`` and ``loader``.

    Args:
        labels: int64 [n], the class of each sample; a number without a sample is no class.
        classes: different classes in a batch.
        per_class: images of each, next to each other in the batch.
        steps: number of batches in the whole training.
        seed: of the streams.
        start: the first step to yield.

    Raises:
        BadInputError: fewer classes than a batch needs, or a number that must be positive is not.
    """

    def __init__(
        self,
        labels: Int64[Tensor, " n"],
        classes: int,
        per_class: int,
        steps: int,
        seed: int,
        start: int = 0,
    ) -> None:
        if classes < 1 or per_class < 1:
            raise BadInputError(f"a batch of {classes} classes with {per_class} images of each has no image")
        table: NDArray[np.int64] = labels.cpu().numpy()
        found, sizes = np.unique(table, return_counts=True)
        if classes > len(found):
            raise BadInputError(
                f"a batch of {classes} classes cannot be drawn from {len(found)}: make it smaller"
            )
        self.labels: list[int] = found.tolist()
        order = np.argsort(table, kind="stable")
        self.indices: list[NDArray[np.int64]] = np.split(order, np.cumsum(sizes)[:-1])
        self.classes, self.per_class, self.seed = classes, per_class, seed
        self.steps, self.start = steps, start
        self._cycles: dict[int, tuple[int, Cycle]] = {}  # of each class the last one, of the classes at -1

    def __len__(self) -> int:
        """Batches of the whole training, whatever `start` is, as Lightning expects."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield [(step, index) for index in self.batch(step)]

    def batch(self, step: int) -> list[int]:
        """The indices of a step's samples, class by class: a function of the sampler's arguments and `step` only."""
        indices: list[int] = []
        first = step * self.classes
        for at, number in enumerate(self._block(-1, len(self.labels), self.classes, step)):
            visit = (first + at) // len(self.labels)
            own = self.indices[int(number)]
            indices += map(int, own[self._images(int(number), visit)])
        return indices

    def _images(self, number: int, visit: int) -> Block:
        n = len(self.indices[number])
        times, more = divmod(self.per_class, n)
        everything = np.tile(np.arange(n), times)
        return np.concatenate([everything, self._block(number, n, more, visit)]) if more else everything

    def _block(self, number: int, n: int, size: int, at: int) -> Block:
        """Block `at` of a class's stream, or of the stream of classes (-1)."""
        cycle, row = divmod(at, n // math.gcd(n, size))
        known = self._cycles.get(number)
        if known is None or known[0] != cycle:
            stream = ("classes",) if number < 0 else ("images", self.labels[number])
            known = self._cycles[number] = cycle, even_cycle(n, size, cycle, self.seed, *stream)
        return known[1][row]


def even_cycle(n: int, size: int, cycle: int, *key: int | str) -> Int64[NDArray[np.int64], "blocks size"]:
    """The n / gcd(n, size) blocks of a cycle of an even stream; see the module.

    Args:
        n: number of things.
        size: things in a block, 1 to n.
        cycle: its number, from 0.
        key: of the random numbers.
    """
    passes = size // math.gcd(n, size)
    parts: list[Int64[NDArray[np.int64], " n"]] = []
    for number in range(passes):
        order = np.argsort(bits(n, *key, cycle * passes + number), kind="stable")
        begun = number * n % size  # things of this pass's first block that the pass before gave
        if begun:
            head, taken = order[:size], np.isin(order[:size], parts[-1][-begun:])
            order[:size] = np.concatenate([head[~taken], head[taken]])
        parts.append(order)
    return np.concatenate(parts).reshape(-1, size)
