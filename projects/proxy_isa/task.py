"""What one seed learns and is tested on, and class-disjoint folds of what it learns from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import BadInputError
from common.training.seeds import numpy_generator
from projects.proxy_isa.images import Images


@dataclass(frozen=True)
class Task:
    """Training images, which choices are made within, and test images of other classes.

    Attributes:
        gallery: what test images are looked up in; None: the other test images.
    """

    seed: int
    train: Images
    test: Images
    gallery: Images | None = None


def task(name: str, seed: int, options: Mapping[str, Any]) -> Task:
    """The task that study.py names for a value of the axis `data`.

    Args:
        name: the value.
        seed: of everything that is drawn.
        options: the config section `data`.
    """
    study = importlib.import_module("projects.proxy_isa.study").STUDY
    module, _, function = str(study.stage("learn").arms["data"][name]).partition(":")
    return getattr(importlib.import_module(module), function)(seed, options)


def folds(images: Images, count: int, seed: int) -> list[tuple[Images, Images]]:
    """Class-disjoint folds: (trained on, held out), each class held out once.

    Raises:
        BadInputError: fewer than two classes for a fold.
    """
    if count < 2 or images.classes < 2 * count:
        raise BadInputError(
            f"{images.classes} classes cannot be cut into {count} folds of two classes or more."
        )
    order = torch.from_numpy(numpy_generator(seed, "folds").permutation(images.classes))
    held = [order[k::count] for k in range(count)]
    return [
        (images.of(torch.cat([held[j] for j in range(count) if j != k])), images.of(held[k]))
        for k in range(count)
    ]
