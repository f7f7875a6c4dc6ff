"""Glyphs as a data set: balanced, any size, made in memory when it is asked for.

    letters, = draw_classes(seed, 50)
    train = Glyphs(seed, "train", letters, n=4096, label_noise=0.2)
    test = Glyphs(seed, "test", letters, n=10_000)
    seen, validation, unseen = draw_classes(seed, 200, 100, 200)        # class-disjoint, for retrieval

Sample i is instance i // C of class i mod C (C classes), so every prefix is balanced to within one image a class,
and a smaller data set is a prefix of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from common.data.glyphs.draws import bits, uniform
from common.data.glyphs.instances import STANDARD, Look, render
from common.errors import BadInputError, unknown

Split = Literal["train", "validation", "test"]


class Glyphs(Dataset[tuple[Tensor, int]]):
    """Images of letters and their classes; item i is (float32 [1, size, size], class).

    Attributes:
        images: uint8 [n, 1, size, size].
        labels: int64 [n], what a learner is told.
        truth: int64 [n], the class that was drawn: `labels` without the label noise.
        letters: the code point of each class.

    Args:
        seed: of the instances and of the label noise.
        split: which instances; those of two splits never share their random numbers.
        letters: code points of the classes, see ``draw_classes``.
        n: number of images, exactly.
        size: the image's side in pixels: even, 16 by default; look-alikes were measured at 16.
        label_noise: the share of labels that are wrong: exactly round(share · n) of them, each uniform over the
            other classes, the same in every run; a larger share holds the smaller one's. Training split only.
        look: how much instances vary.

    Raises:
        BadInputError: an unknown split, too few images or classes, a share out of [0, 1], noise outside training.
    """

    def __init__(
        self,
        seed: int,
        split: Split,
        letters: Sequence[int],
        n: int,
        size: int = 16,
        label_noise: float = 0.0,
        look: Look = STANDARD,
    ) -> None:
        classes = len(letters)
        if split not in get_args(Split):
            raise unknown("split", split, get_args(Split))
        if classes < 2 or len(set(letters)) < classes or n < classes:
            raise BadInputError(
                f"{n} glyph images of {classes} classes: there must be two classes or more, all different, and an "
                "image or more of each"
            )
        if not 0 <= label_noise <= 1 or (label_noise and split != "train"):
            raise BadInputError(
                f"label noise must be a share, and on the training split: {label_noise}, {split}"
            )
        images = render(seed, split, letters, -(-n // classes), size, look)
        flat = np.ascontiguousarray(images.swapaxes(0, 1)).reshape(-1, 1, size, size)[:n]
        self.letters = list(letters)
        self.images: UInt8[Tensor, "n 1 size size"] = torch.from_numpy(flat)
        self.truth: Int64[Tensor, " n"] = torch.arange(n) % classes
        self.labels = mislabelled(self.truth, classes, label_noise, seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "1 size size"], int]:
        return floats(self.images[index]), int(self.labels[index])


def floats(images: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Grey values as a network's input, in [−1, 3): (x − 64) / 64, nearly centred and exact in float32."""
    return (images.float() - 64) / 64


def mislabelled(truth: Int64[Tensor, " n"], classes: int, share: float, seed: int) -> Int64[Tensor, " n"]:
    """The labels with exactly round(share · n) of them replaced by another class; see ``Glyphs``."""
    words = bits(2 * len(truth), seed, "label noise").reshape(-1, 2)
    wrong = np.argsort(words[:, 0], kind="stable")[: round(share * len(truth))]
    labels = truth.clone()
    away = 1 + (uniform(words[wrong, 1]) * (classes - 1)).astype(np.int64)
    labels[wrong] = (truth[wrong] + torch.from_numpy(away)) % classes
    return labels
