"""Images of the study by the config section `images`, for nets that are trained one after another.

Letters are those of `task`, bit for bit. Of CIFAR the last training images are kept for validation, and of ImageNet
random ones, the same for every seed: its published validation images, on which everybody reports, are the test set.
Where a training set or a test set is larger than asked for, the first images are taken (ImageNet: of that order).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from common.data.cifar import KINDS, Cifar
from common.data.glyphs.dataset import Glyphs, floats, mislabelled
from common.data.glyphs.letters import draw_classes
from common.data.imagenet import ImageNet
from common.errors import BadInputError, unknown
from common.training.data import Key, Keyed, StepData, StepSampler, loader, shared
from common.training.seeds import numpy_generator

Sample = tuple[Tensor, int]
PADDING = 4  # pixels around an image that is cropped at random
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, by channel


class Chosen(Dataset[Sample]):
    """Some images of a data set with labels of their own; item i is (float32 [c, h, w], class).

    Args:
        samples: whose images are taken.
        order: which of them.
        labels: what a learner is told of each.
    """

    def __init__(
        self, samples: Dataset[Any], order: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]
    ) -> None:
        self.samples, self.order, self.labels = samples, order, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[int(self.order[index])][0], int(self.labels[index])

    def first(self, n: int) -> Chosen:
        """The first n of them, or all."""
        return Chosen(self.samples, self.order[:n], self.labels[:n])


class Whole(Dataset[Sample]):
    """Letters, which are in memory: a batch at once, three times as fast as one by one, and bit for bit the same.

    Args:
        part: some letters.
        glyphs: its samples.
    """

    def __init__(self, part: Chosen, glyphs: Glyphs) -> None:
        self.images, self.order, self.labels = glyphs.images, part.order, part.labels

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Float[Tensor, "b 1 size size"], Int64[Tensor, " b"]]:
        """The images and labels of these keys (step, index)."""
        index = torch.tensor([each for _, each in keys])
        return floats(self.images[self.order[index]]), self.labels[index]


@dataclass(frozen=True)
class Splits:
    """The three parts of one seed's data; only the training part has label noise. `shape`: of one image."""

    train: Chosen
    validation: Chosen
    test: Chosen
    classes: int
    shape: tuple[int, int, int]


class Batches(StepData):
    """The batches of one training: shuffled passes and augmentation, pure functions of (seed, step, index).

    Args:
        train: the images.
        batch: B.
        steps: updates.
        seed: of the order and of the augmentation.
        augment: flip and crop at random; both passes of an optimiser see the same images.
        workers: processes that load.
    """

    divides = True

    def __init__(
        self, train: Chosen, batch: int, steps: int, seed: int, augment: bool, workers: int = 0
    ) -> None:
        super().__init__(steps)
        self.train, self.batch, self.seed, self.augment = train, batch, seed, augment
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches from step `start` on: (float32 [B, c, h, w], int64 [B])."""
        sampler = StepSampler(len(self.train), self.batch, self.steps, self.seed, self.start)
        return _loader(self.train, shared(sampler), self.workers, self.seed, self.augment)


class InOrder(StepSampler):
    """One pass in the data's own order, the last batch as small as it comes."""

    def __init__(self, size: int, batch: int) -> None:
        super().__init__(size, min(batch, size), -(-size // batch), 0)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.steps):
            yield [(step, i) for i in range(step * self.batch, min((step + 1) * self.batch, self.size))]


def in_order(samples: Chosen, batch: int, workers: int = 0) -> DataLoader[Any]:
    """Every image once, as it is; leaves torch's global generator alone."""
    return _loader(samples, InOrder(len(samples), batch), workers, generator=torch.Generator())


def tensors(part: Chosen) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """All images and labels in memory, for whatever measures a whole set at once."""
    return torch.stack([part[i][0] for i in range(len(part))]), part.labels


def splits(seed: int, images: Mapping[str, Any]) -> Splits:
    """Training, validation and test images.

    Args:
        seed: draws letters and their images, and the wrong labels.
        images: the config section of that name.

    Raises:
        BadInputError: an unknown source, fewer images than asked for, classes or size that are not the source's, or
            the data are absent, incomplete or damaged.
    """
    source, noise = str(images["source"]), float(images["label_noise"])
    if source not in SOURCES:
        raise unknown("images.source", source, SOURCES)
    for name in ("train", "validation", "look", "test"):
        if int(images[name]) < 1:
            raise BadInputError(f"images.{name} must be at least 1, not {images[name]}.")
    if not 0 <= noise <= 1:
        raise BadInputError(f"images.label_noise must be a share from 0 to 1, not {noise}.")
    return SOURCES[source](seed, images)


def augmented(sample: Sample, draw: torch.Generator) -> Sample:
    """Shifted by up to `PADDING` pixels (0 comes in at the edges) and, every other time, mirrored."""
    x, label = sample
    _, height, width = x.shape
    top, left = torch.randint(2 * PADDING + 1, (2,), generator=draw).tolist()
    x = functional.pad(x, (PADDING,) * 4)[:, top : top + height, left : left + width]
    return (x.flip(-1) if int(torch.randint(2, (), generator=draw)) else x), label


def _loader(
    part: Chosen,
    sampler: Sampler[list[Key]],
    workers: int,
    seed: int = 0,
    augment: bool = False,
    **options: Any,
) -> DataLoader[Any]:
    if isinstance(part.samples, Glyphs) and not augment:
        return loader(Whole(part, part.samples), sampler, workers, collate_fn=_as_it_is, **options)
    return loader(Keyed(part, seed, augmented if augment else None), sampler, workers, **options)


def _as_it_is(batch: Any) -> Any:
    return batch


def _glyphs(seed: int, images: Mapping[str, Any]) -> Splits:
    (letters,) = draw_classes(seed, int(images["classes"]))
    size = int(images["size"])

    def part(split: Literal["train", "validation", "test"], share: float = 0.0) -> Chosen:
        made = Glyphs(seed, split, letters, int(images[split]), size, share)
        return Chosen(made, torch.arange(len(made)), made.labels)

    train = part("train", float(images["label_noise"]))
    return Splits(train, part("validation"), part("test"), len(letters), (1, size, size))


def _cifar(seed: int, images: Mapping[str, Any]) -> Splits:
    source, kept = str(images["source"]), int(images["validation"])
    _expect(images, "classes", KINDS[source].classes)
    _expect(images, "size", 32)

    def part(split: Literal["train", "validation", "test"]) -> Chosen:
        found = Cifar(source, split, 0 if split == "test" else kept)
        return _prefix(images, split, Chosen(found, torch.arange(len(found)), found.labels))

    train = _noisy(part("train"), seed, images)
    return Splits(train, part("validation"), part("test"), KINDS[source].classes, (3, 32, 32))


def _imagenet(seed: int, images: Mapping[str, Any]) -> Splits:
    size, kept = int(images["size"]), int(images["validation"])
    transform = functools.partial(squared, size=size)
    training, published = ImageNet("train", transform), ImageNet("validation", transform)
    _expect(images, "classes", len(training.wnids))
    ours, theirs = _shuffled(training, "train"), _shuffled(published, "test")
    if kept >= len(ours):
        raise BadInputError(f"{kept} images cannot be kept from {len(ours)} for validation")
    rest = len(ours) - kept
    validation = Chosen(training, ours.order[rest:], ours.labels[rest:])
    train = _noisy(_prefix(images, "train", ours.first(rest)), seed, images)
    return Splits(train, validation, _prefix(images, "test", theirs), len(training.wnids), (3, size, size))


def squared(image: UInt8[Tensor, "3 height width"], size: int) -> Float[Tensor, "3 {size} {size}"]:
    """The middle of an image whose shorter side is 8/7 of `size`, normalised by channel."""
    side = round(size * 8 / 7)
    scale = side / min(image.shape[1:])
    new = [max(side, round(length * scale)) for length in image.shape[1:]]
    x = functional.interpolate(image[None].float(), new, mode="bilinear", antialias=True)[0]
    top, left = ((length - size) // 2 for length in new)
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (x[:, top : top + size, left : left + size] - mean) / std


def _shuffled(found: ImageNet, name: str) -> Chosen:
    """In an order of its own: the files are sorted by class, and a prefix would be of the first classes."""
    order = torch.from_numpy(numpy_generator(0, "imagenet", name).permutation(len(found)))
    return Chosen(found, order, torch.tensor(found.labels)[order])


def _noisy(part: Chosen, seed: int, images: Mapping[str, Any]) -> Chosen:
    labels = mislabelled(part.labels, int(images["classes"]), float(images["label_noise"]), seed)
    return Chosen(part.samples, part.order, labels)


def _prefix(images: Mapping[str, Any], split: str, part: Chosen) -> Chosen:
    wanted = int(images[split])
    if wanted > len(part):
        raise BadInputError(
            f"images.{split} = {wanted:,}, but {images['source']} has {len(part):,} images for it "
            f"(images.validation = {images['validation']} are kept from training)."
        )
    return part.first(wanted)


def _expect(images: Mapping[str, Any], key: str, value: int) -> None:
    if int(images[key]) != value:
        raise BadInputError(
            f"images.{key} = {images[key]}, but that of {images['source']} is {value}: set it so."
        )


SOURCES: Mapping[str, Callable[[int, Mapping[str, Any]], Splits]] = {
    "glyphs": _glyphs,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "imagenet": _imagenet,
}
