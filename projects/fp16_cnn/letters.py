"""The images of the accuracy study: letters drawn by a seed, and a test set in which every source stands once.

What is independent in a glyph image? A letter's drawing in a face is the source; rotation, scale, contrast and noise
make many images of it, which are alike as crops of one photograph are, and fail together. So the test set holds one
image of each source (letter and face): image and source are then the same unit, and an exact binomial bound over images
is one over sources. Faces of one letter are still related; between the seeds of a study, which draw other letters, that
relation is part of the spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from common.data.glyphs.dataset import Glyphs, Split, floats
from common.data.glyphs.instances import Look, render
from common.data.glyphs.letters import draw_classes
from common.data.glyphs.sources import faces

LOOK = Look(
    rotation=15.0, shift=0.08, scale=(0.75, 1.1), ground=(0.0, 80.0), ink=(140.0, 255.0), noise=(10.0, 30.0)
)
"""More varied than the standard one, at which the nets are right on nearly all images."""


@dataclass(frozen=True)
class Labelled:
    """Images, float32 [n, 1, size, size] as `floats` gives them, and classes."""

    x: Float32[Tensor, "n 1 size size"]
    y: Int64[Tensor, " n"]


def training(seed: int, images: Mapping[str, Any]) -> Labelled:
    """The training images: `train` of them."""
    return _balanced(seed, "train", images, int(images["train"]))


def validation(seed: int, images: Mapping[str, Any]) -> Labelled:
    """Other images of the same letters: for curves, and for what a plan is made from."""
    return _balanced(seed, "validation", images, int(images["validation"]))


def held_out(seed: int, images: Mapping[str, Any]) -> Labelled:
    """One image of each letter in each face that its first `draws` test instances hold, ordered by letter and face."""
    letters, size, draws = _letters(seed, images), int(images["size"]), int(images["draws"])
    drawn = render(seed, "test", letters, draws, size, LOOK)
    face = faces(seed, "test", letters, draws, size)
    chosen: list[np.ndarray] = []
    labels: list[int] = []
    for letter in range(len(letters)):
        _, first = np.unique(face[letter], return_index=True)
        chosen += list(drawn[letter, first])
        labels += [letter] * len(first)
    return Labelled(floats(torch.from_numpy(np.stack(chosen))[:, None]), torch.tensor(labels))


def raw(x: Float32[Tensor, "n 1 size size"]) -> Float32[Tensor, "n 1 size size"]:
    """The same images as grey values from 0 to 255: what a net gets when its normalisation is forgotten."""
    return 64 * x + 64


def _letters(seed: int, images: Mapping[str, Any]) -> list[int]:
    (letters,) = draw_classes(seed, int(images["classes"]))
    return letters


def _balanced(seed: int, split: Split, images: Mapping[str, Any], n: int) -> Labelled:
    drawn = Glyphs(seed, split, _letters(seed, images), n, int(images["size"]), look=LOOK)
    return Labelled(floats(drawn.images), drawn.labels)
