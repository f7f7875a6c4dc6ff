"""Batches as a pure function of the step: shuffled passes, or m images of each of k classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Sampler

from common.data.balanced import BalancedSampler
from common.training.data import Key, StepData, StepSampler, shared
from projects.proxy_isa.images import Images

Batch = tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]


class ImageBatches(StepData):
    """Data module over images.

    Args:
        images: of the training classes.
        batch: images in a batch.
        steps: of the whole training.
        seed: of the order.
        per_class: images of each class in a batch; 0: shuffled passes over all images.

    Raises:
        BadInputError: fewer classes or images than a batch needs.
    """

    divides = True

    def __init__(self, images: Images, batch: int, steps: int, seed: int, per_class: int) -> None:
        super().__init__(steps)
        self.images, self.batch, self.seed, self.per_class = images, batch, seed, per_class
        self._sampler(0)

    def train_dataloader(self) -> _Batches:
        """From step `start` on."""
        return _Batches(self.images, shared(self._sampler(self.start)), self.steps)

    def _sampler(self, start: int) -> BalancedSampler | StepSampler:
        if self.per_class:
            classes = self.batch // self.per_class
            return BalancedSampler(self.images.y, classes, self.per_class, self.steps, self.seed, start)
        return StepSampler(len(self.images.y), self.batch, self.steps, self.seed, start)


class _Batches:
    def __init__(self, images: Images, sampler: Sampler[list[Key]], steps: int) -> None:
        self.images, self.sampler, self.steps = images, sampler, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for keys in self.sampler:
            chosen = torch.tensor([index for _, index in keys])
            yield self.images.take(chosen, keys[0][0]), self.images.y[chosen]
