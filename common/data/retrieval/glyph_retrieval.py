"""Glyph retrieval, embedded: classes are letters, and the letters of train, validation and test are different ones.

    train = GlyphRetrieval(seed, "train", CUB_LIKE)
    test = GlyphRetrieval(seed, "test", CUB_LIKE)

The seed draws the classes, the number of images of each and the images: a replicate is a seed. Which letters, why,
and how hard they are: CARD.md; ``python -m common.data.retrieval.glyph_retrieval`` measures it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from common.data.glyphs.dataset import floats
from common.data.glyphs.draws import bits
from common.data.glyphs.instances import STANDARD, Look, render
from common.data.glyphs.letters import draw_classes
from common.errors import BadInputError, unknown

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_CHUNK = 1024


@dataclass(frozen=True)
class Variant:
    """How many classes and images.

    Attributes:
        train: classes for training; class-disjoint folds are made out of them by whoever trains.
        validation: classes for pilots and choices that need no folds.
        test: classes that no choice may see.
        images: fewest and most images of a class, each number in between equally likely.
        look: how much the images of a class vary.
    """

    train: int
    validation: int
    test: int
    images: tuple[int, int]
    look: Look = STANDARD

    def __post_init__(self) -> None:
        low, high = self.images
        if not 1 <= low <= high:
            raise BadInputError(
                f"a class must have an image or more, and the range must not be empty: {self}"
            )


# Sixty images of twelve faces: five of a face, which must not be near copies of each other.
VARIED = Look(rotation=20, shift=0.1, scale=(0.75, 1.1), ground=(0, 80), ink=(150, 255), noise=(10, 30))
CUB_LIKE = Variant(100, 100, 100, (60, 60), VARIED)
SOP_LIKE = Variant(248, 50, 248, (5, 6))  # all 546 letters that can be told apart


class GlyphRetrieval(Dataset[tuple[Tensor, int]]):
    """Images of a split's letters, class by class; item i is (float32 [1, size, size], class).

    Attributes:
        images: uint8 [n, 1, size, size].
        labels: int64 [n], 0 to classes - 1, ascending.
        classes: number of classes.
        names: the letter of each class.
        letters: its code point.

    Args:
        seed: of everything that is drawn.
        split: "train", "validation" or "test".
        variant: numbers of classes and images.
        size: the image's side in pixels, even.

    Raises:
        BadInputError: an unknown split, or more classes than letters.
    """

    def __init__(self, seed: int, split: Split, variant: Variant = CUB_LIKE, size: int = 24) -> None:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        drawn = draw_classes(seed, variant.train, variant.validation, variant.test)
        self.letters = drawn[SPLITS.index(split)]
        self.classes = len(self.letters)
        self.names = [chr(letter) for letter in self.letters]
        counts = np.array([_count(seed, letter, variant.images) for letter in self.letters])
        images = render(seed, split, self.letters, variant.images[1], size, variant.look)
        kept = images[np.arange(variant.images[1]) < counts[:, None]]
        self.images: UInt8[Tensor, "n 1 size size"] = torch.from_numpy(kept[:, None])
        self.labels: Int64[Tensor, " n"] = torch.from_numpy(np.repeat(np.arange(self.classes), counts))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "1 size size"], int]:
        return floats(self.images[index]), int(self.labels[index])


def _count(seed: int, letter: int, images: tuple[int, int]) -> int:
    low, high = images
    return low + int(bits(1, seed, "images of a class", letter)[0]) % (high - low + 1)


def pixel_recall(
    images: UInt8[Tensor, "n 1 size size"], labels: Int64[Tensor, " n"], centred: bool = False
) -> float:
    """R@1 of raw pixels: the share of images whose nearest other one by cosine has their class.

    Args:
        images: queries and gallery in one.
        labels: their classes.
        centred: take each image's mean grey value off first: the cosine is then the correlation, which the random
            contrast does not change.
    """
    pixels: Float[Tensor, "n pixels"] = images.flatten(1).float()
    if centred:
        pixels = pixels - pixels.mean(1, keepdim=True)
    pixels = torch.nn.functional.normalize(pixels, dim=1)
    right = 0
    for start in range(0, len(pixels), _CHUNK):
        rows = torch.arange(start, min(start + _CHUNK, len(pixels)))
        cosine = pixels[rows] @ pixels.T
        cosine[rows - start, rows] = -2
        right += int((labels[cosine.argmax(1)] == labels[rows]).sum())
    return right / len(pixels)


if __name__ == "__main__":
    for name, variant in (("CUB-like", CUB_LIKE), ("SOP-like", SOP_LIKE)):
        for seed in range(4):
            data = GlyphRetrieval(seed, "test", variant)
            found = [pixel_recall(data.images, data.labels, centred) for centred in (False, True)]
            print(
                f"{name} seed {seed}: {len(data)} images, R@1 cosine {found[0]:.3f} correlation {found[1]:.3f}"
            )
