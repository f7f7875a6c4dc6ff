"""What one seed learns: its own letters, and training, validation and test images of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.data.glyphs.dataset import Glyphs, floats
from common.data.glyphs.letters import draw_classes
from common.training.seeds import numpy_generator


@dataclass(frozen=True)
class Part:
    """Images and their classes."""

    x: Float[Tensor, "n c h w"]
    y: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Task:
    """The three parts of one seed's data; only the training part has label noise."""

    seed: int
    classes: int
    train: Part
    validation: Part
    test: Part
    looks: int

    @property
    def look(self) -> Part:
        """The first `looks` validation images: what a net is looked at with on the way."""
        return Part(self.validation.x[: self.looks], self.validation.y[: self.looks])


def task(seed: int, images: Mapping[str, Any]) -> Task:
    """Render it, in about 0.2 s for 14,000 images.

    Args:
        seed: draws letters, images and wrong labels.
        images: the config section of that name.
    """
    (letters,) = draw_classes(seed, int(images["classes"]))
    size, noise = int(images["size"]), float(images["label_noise"])

    def part(split: Any, n: int, share: float = 0.0) -> Part:
        made = Glyphs(seed, split, letters, n, size, share)
        return Part(floats(made.images), made.labels)

    return Task(
        seed,
        len(letters),
        part("train", int(images["train"]), noise),
        part("validation", int(images["validation"])),
        part("test", int(images["test"])),
        int(images["look"]),
    )


class Order:
    """Which training images make the batch of each step: shuffled passes, a pure function of (seed, init, step).

    Args:
        n: training images, a multiple of `batch`: no pass has a remainder, which would change m.
    """

    def __init__(self, seed: int, init: int, n: int, batch: int) -> None:
        self.seed, self.init, self.n, self.batch = seed, init, n, batch
        self._kept: tuple[int, Int64[Tensor, " n"]] | None = None

    def __call__(self, step: int) -> Int64[Tensor, " b"]:
        """Indices of the batch of this step."""
        epoch, place = divmod(step, self.n // self.batch)
        if self._kept is None or self._kept[0] != epoch:
            shuffled = numpy_generator(self.seed, "shuffle", self.init, epoch).permutation(self.n)
            self._kept = epoch, torch.from_numpy(np.ascontiguousarray(shuffled))
        return self._kept[1][place * self.batch : (place + 1) * self.batch]
