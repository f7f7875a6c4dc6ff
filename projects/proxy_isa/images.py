"""Images of classes, in memory or on disk, as the rest of the study sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1]: how photographs are normalised, as timm's backbones want them."""


class Images(Protocol):
    """Images and their classes, 0 to `classes` - 1."""

    @property
    def y(self) -> Int64[Tensor, " n"]:
        """The classes."""
        ...

    @property
    def classes(self) -> int:
        """Their number."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what `take` gives."""
        ...

    def take(self, chosen: Int64[Tensor, " b"], step: int | None = None) -> Float[Tensor, "b c h w"]:
        """Some images; with a step as for training, where augmentation is a pure function of it and the index."""
        ...

    def of(self, chosen: Int64[Tensor, " k"]) -> Images:
        """The images of some classes, which are numbered anew in the order given."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Images as one tensor; not augmented, since each was rendered with its own variations."""

    x: Float[Tensor, "n c h w"]
    y: Int64[Tensor, " n"]
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def take(self, chosen: Int64[Tensor, " b"], step: int | None = None) -> Float[Tensor, "b c h w"]:
        """Some images."""
        return self.x[chosen]

    def of(self, chosen: Int64[Tensor, " k"]) -> InMemory:
        """The images of some classes."""
        labels, kept = renumbered(self.y, self.classes, chosen)
        return InMemory(self.x[kept], labels, len(chosen))


def renumbered(
    y: Int64[Tensor, " n"], classes: int, chosen: Int64[Tensor, " k"]
) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """The new labels of the samples of the `chosen` classes, and their indices."""
    place = torch.full((classes,), -1)
    place[chosen] = torch.arange(len(chosen))
    labels = place[y]
    kept = (labels >= 0).nonzero()[:, 0]
    return labels[kept], kept


def parts(images: Images, size: int) -> Iterator[Float[Tensor, "b c h w"]]:
    """All images in order, `size` at a time."""
    for chosen in torch.arange(len(images.y)).split(size):
        yield images.take(chosen)
