"""Where images come from: the stack's letters, CIFAR and ImageNet in tiny copies of their published layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.data import cifar, source
from common.data.cifar import PIXELS
from common.data.imagenet import Counts, ImageNet
from common.errors import BadInputError
from common.training.seeds import generator
from projects.sam_batch_study.sources import Batches, Chosen, augmented, in_order, splits, squared, tensors
from projects.sam_batch_study.task import task

COUNT = 8  # records of each file
IMAGES: dict[str, Any] = {
    "source": "glyphs", "classes": 4, "size": 16, "train": 24, "validation": 10, "look": 6, "test": 8,
    "label_noise": 0.0, "augment": False,
}  # fmt: skip
OF_CIFAR = IMAGES | {"source": "cifar10", "classes": 10, "size": 32}


def images_of(part: Chosen) -> Tensor:
    return tensors(part)[0]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data come from here, and digests are cached here."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    monkeypatch.setattr(source.require, "__defaults__", (tmp_path / "cache.json",))
    return tmp_path


@pytest.fixture(params=["cifar10", "cifar100"])
def tiny_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The published binary version with `COUNT` records a file; its config section."""
    kind = cifar.KINDS[request.param]
    version = kind.versions[0]
    assert isinstance(version.label, int)
    files = dict.fromkeys(version.source.files, source.DataFile())
    parts = {name: tuple((file, COUNT) for file, _ in found) for name, found in version.splits.items()}
    small = replace(version, source=replace(version.source, files=files), splits=parts)
    monkeypatch.setitem(cifar.KINDS, request.param, replace(kind, versions=(small,)))
    (root / version.source.name).mkdir()
    for number, name in enumerate(files):
        random = np.random.default_rng(number)
        heads = random.integers(0, kind.classes, (COUNT, version.label), np.uint8)
        pixels = random.integers(0, 256, (COUNT, PIXELS), np.uint8)
        (root / version.source.name / name).write_bytes(np.concatenate([heads, pixels], axis=1).tobytes())
    kept, train = (10, 24) if request.param == "cifar10" else (2, 5)
    return OF_CIFAR | {"source": request.param, "classes": kind.classes, "validation": kept, "train": train}


@pytest.fixture
def tiny_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three classes in colours of their own, sorted folders; its config section."""
    monkeypatch.setattr(ImageNet.__init__, "__defaults__", (None, Counts(3, 12, 6)))
    for part, count in (("train", 4), ("val", 2)):
        for label in range(3):
            folder = root / "imagenet" / part / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (20, 14), (100 * label, 0, 0)).save(folder / f"{number}.JPEG", "JPEG")
    return IMAGES | {"source": "imagenet", "classes": 3, "size": 8, "train": 7, "validation": 4, "test": 6}


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_letters_are_those_of_the_stack(noise: float) -> None:
    """Bit for bit, wrong labels included."""
    images = IMAGES | {"label_noise": noise}
    found, expected = splits(5, images), task(5, images)
    assert (found.classes, found.shape) == (expected.classes, tuple(expected.train.x.shape[1:]))
    for ours, theirs in ((found.train, expected.train), (found.validation, expected.validation),
                         (found.test, expected.test)):  # fmt: skip
        x, y = tensors(ours)
        assert torch.equal(x, theirs.x) and torch.equal(y, theirs.y)
    assert torch.equal(images_of(found.validation.first(6)), expected.look.x)


def test_cifar_keeps_the_end_of_the_training_files(tiny_cifar: dict[str, Any]) -> None:
    found = splits(0, tiny_cifar)
    kind, kept = tiny_cifar["source"], tiny_cifar["validation"]
    every = cifar.Cifar(kind, "train", 0)
    assert (found.classes, found.shape) == (tiny_cifar["classes"], (3, 32, 32))
    assert torch.equal(found.train.labels, every.labels[: tiny_cifar["train"]])
    assert torch.equal(found.validation.labels, every.labels[-kept:])
    assert torch.equal(found.test.labels, cifar.Cifar(kind, "test", 0).labels)
    x, label = found.validation[0]
    assert torch.equal(x, every[len(every) - kept][0]) and label == int(every.labels[-kept])


def test_noise_is_in_the_training_labels_only(tiny_cifar: dict[str, Any]) -> None:
    clean, noisy = splits(1, tiny_cifar), splits(1, tiny_cifar | {"label_noise": 0.5})
    wrong = clean.train.labels != noisy.train.labels
    assert int(wrong.sum()) == round(0.5 * len(wrong))
    assert torch.equal(images_of(clean.train), images_of(noisy.train))
    assert torch.equal(clean.validation.labels, noisy.validation.labels)
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert not torch.equal(noisy.train.labels, splits(2, tiny_cifar | {"label_noise": 0.5}).train.labels)


def test_imagenet_takes_every_class_and_keeps_others_for_validation(tiny_imagenet: dict[str, Any]) -> None:
    """Files are sorted by class; training and validation images differ, and are the same for every seed."""
    found, other = splits(0, tiny_imagenet), splits(1, tiny_imagenet)
    assert not set(found.train.order.tolist()) & set(found.validation.order.tolist())
    assert (len(found.train), len(found.validation), len(found.test)) == (7, 4, 6)
    assert len(set(found.train.labels.tolist())) == 3
    assert sorted(found.test.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert torch.equal(found.train.order, other.train.order)
    for part in (found.train, found.validation, found.test):
        for x, label in (part[i] for i in range(len(part))):
            assert x.shape == found.shape == (3, 8, 8)
            assert float(x[0].mean()) == pytest.approx((100 * label / 255 - 0.485) / 0.229, abs=0.05)


def test_squared_takes_the_middle() -> None:
    """A bright column in the middle stays there, and the far ends are cut."""
    image = torch.zeros(3, 64, 128, dtype=torch.uint8)
    image[:, :, 62:66], image[:, :, :16], image[:, :, -16:] = 255, 200, 200
    x = squared(image, 56)[0] * 0.229 + 0.485
    assert x.shape == (56, 56) and float(x[:, 27:29].min()) > 0.9
    assert float(x[:, :26].max()) < 0.01 and float(x[:, 30:].max()) < 0.01


def test_batches_are_a_function_of_seed_and_step() -> None:
    """Begun at step 3 they are the rest; of other seeds they are others; with workers they are the same."""
    train = splits(0, IMAGES).train

    def batches(seed: int, start: int = 0, augment: bool = True, workers: int = 0) -> list[Any]:
        data = Batches(train, 8, 5, seed, augment, workers)
        data.start = start
        assert len(data.train_dataloader()) == 5
        return list(data.train_dataloader())

    whole, late, loaded = batches(1), batches(1, 3), batches(1, workers=1)
    assert len(late) == 2
    for (x, y), (again, labels) in (*zip(whole[3:], late, strict=True), *zip(whole, loaded, strict=True)):
        assert torch.equal(x, again) and torch.equal(y, labels)
    plain, other = batches(1, augment=False), batches(2)
    assert all(
        torch.equal(a[1], b[1]) and not torch.equal(a[0], b[0]) for a, b in zip(whole, plain, strict=True)
    )
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(whole, other, strict=True))
    assert plain[0][0].shape == (8, 1, 16, 16) and plain[0][1].dtype == torch.int64
    first_pass = torch.cat([x for x, _ in plain[:3]]).flatten(1)
    assert sorted(first_pass.sum(1).tolist()) == sorted(images_of(train).flatten(1).sum(1).tolist())


def test_augmentation_shifts_and_mirrors() -> None:
    """Every shift by up to four pixels, both ways round; nothing else."""
    x = torch.arange(1.0, 37.0).view(1, 6, 6)
    padded = torch.zeros(1, 14, 14)
    padded[:, 4:10, 4:10] = x
    possible = {
        tuple(image.flatten().tolist()): (top, left, image is not cut)
        for top in range(9) for left in range(9)
        for cut in [padded[:, top : top + 6, left : left + 6]]
        for image in (cut, cut.flip(-1))
    }  # fmt: skip
    seen = {
        possible[tuple(augmented((x, 3), generator(0, step))[0].flatten().tolist())] for step in range(1500)
    }
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert len(seen) > 155
    assert augmented((x, 3), generator(0, 0))[1] == 3


def test_letters_that_are_loaded_a_batch_at_once_have_the_bits_of_those_loaded_one_by_one() -> None:
    part = splits(3, IMAGES | {"label_noise": 0.25}).train.first(20)
    x, y = tensors(part)
    found = [torch.cat(each) for each in zip(*in_order(part, 8), strict=True)]
    assert torch.equal(found[0], x) and torch.equal(found[1], y)
    order = generator(5, "shuffle", 0)
    first = torch.randperm(20, generator=order)[:8]
    images, labels = next(iter(Batches(part, 8, 2, 5, augment=False).train_dataloader()))
    assert torch.equal(images, x[first]) and torch.equal(labels, y[first])


def test_in_order_gives_every_image_once_and_draws_nothing() -> None:
    part = splits(0, IMAGES).validation
    before = torch.get_rng_state()
    found = list(in_order(part, 4))
    assert [len(y) for _, y in found] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in found]), images_of(part))
    assert torch.equal(torch.cat([y for _, y in found]), part.labels)
    assert torch.equal(before, torch.get_rng_state())
    assert [len(y) for _, y in in_order(part, 100)] == [10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "glyph"}, r"unknown images.source 'glyph'. Did you mean 'glyphs'\?"),
        ({"look": 0}, "images.look must be at least 1"),
        ({"label_noise": 1.5}, "label_noise must be a share"),
        ({"source": "cifar10", "size": 32}, "images.classes = 4, but that of cifar10 is 10"),
        ({"source": "cifar10", "classes": 10}, "images.size = 16, but that of cifar10 is 32"),
        (OF_CIFAR, "CIFAR|cifar"),
        (IMAGES | {"source": "imagenet"}, "image-net.org"),
    ],
)
def test_what_cannot_be_is_named(root: Path, change: dict[str, Any], message: str) -> None:
    """Absent data are named by their loaders."""
    with pytest.raises(BadInputError, match=message):
        splits(0, IMAGES | change)


def test_more_images_than_there_are(tiny_cifar: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=r"images.train = 100, but cifar100? has \d+ images for it"):
        splits(0, tiny_cifar | {"train": 100})
    with pytest.raises(BadInputError, match=r"images.test = 100"):
        splits(0, tiny_cifar | {"test": 100})
    with pytest.raises(BadInputError, match="for validation"):
        splits(0, tiny_cifar | {"validation": 1000})
