"""CUB-200-2011, Cars-196, Stanford Online Products and In-shop, read as they are published, decoded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.data.retrieval import cars as cars196
from common.data.retrieval import cub as cub200
from common.data.retrieval import inshop as shop
from common.data.retrieval import sop as products
from common.data.retrieval.dataset import ImageFiles
from common.data.retrieval.images import eval_crop, train_crop
from common.errors import BadInputError
from common.training.seeds import generator
from projects.proxy_isa.images import MEAN, STD, renumbered
from projects.proxy_isa.task import Task

SIDE = 224


@dataclass(frozen=True)
class OnDisk:
    """Some images of a data set.

    Attributes:
        files: the whole split.
        index: of these images in it.
        y, classes: see `images.Images`.
        seed: of the augmentation.
        workers: threads that decode.
    """

    files: ImageFiles
    index: Int64[Tensor, " n"]
    y: Int64[Tensor, " n"]
    classes: int
    seed: int
    workers: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a crop."""
        return 3, SIDE, SIDE

    def take(self, chosen: Int64[Tensor, " b"], step: int | None = None) -> Float[Tensor, "b 3 h w"]:
        """Crops: the middle one, or for training a random one of (seed, step, image), which may be flipped."""

        numbers = self.index[chosen].tolist()
        with ThreadPoolExecutor(self.workers) as pool:
            images = list(pool.map(lambda number: self.files[number][0], numbers))
        if step is None:
            found = torch.stack([eval_crop(image) for image in images])
        else:  # in one thread: a random crop borrows the global generator
            keys = [generator(self.seed, "augment", step, number) for number in numbers]
            found = torch.stack([train_crop(image, key) for image, key in zip(images, keys, strict=True)])
        return (found - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def of(self, chosen: Int64[Tensor, " k"]) -> OnDisk:
        """The images of some classes."""
        labels, kept = renumbered(self.y, self.classes, chosen)
        return OnDisk(self.files, self.index[kept], labels, len(chosen), self.seed, self.workers)


def cub(seed: int, options: Mapping[str, Any]) -> Task:
    """Birds 1-100 against 101-200."""
    return _task(cub200.load, seed, options)


def cars(seed: int, options: Mapping[str, Any]) -> Task:
    """Cars 1-98 against 99-196."""
    return _task(cars196.load, seed, options)


def sop(seed: int, options: Mapping[str, Any]) -> Task:
    """Products 1-11,318 against the rest."""
    return _task(products.load, seed, options)


def inshop(seed: int, options: Mapping[str, Any]) -> Task:
    """Clothes; the test is a query that is looked up in a gallery."""
    return _task(shop.load, seed, options, "query", "gallery")


def _task(
    load: Callable[..., ImageFiles],
    seed: int,
    options: Mapping[str, Any],
    test: str = "test",
    gallery: str = "",
) -> Task:
    """All seeds have the published classes; folds, weights and order differ.

    Args:
        options: `on_damage` and `workers`.

    Raises:
        BadInputError: no thread to decode with, or a data set that is not there or damaged.
    """
    workers = int(options["workers"])
    if workers < 1:
        raise BadInputError(
            f"data.workers = {workers}: give the number of threads that decode images, 1 or more."
        )

    def part(split: str) -> OnDisk:
        files = load(split, on_damage=str(options["on_damage"]))
        for path, why in files.skipped:
            print(f"left out, damaged: {path} ({why})", flush=True)
        every = torch.arange(len(files.labels))
        return OnDisk(files, every, files.labels, files.classes, seed, workers)

    return Task(seed, part("train"), part(test), part(gallery) if gallery else None)
