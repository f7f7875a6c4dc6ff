"""CIFAR-10 and CIFAR-100 as they are published, in the binary version or the Python one, whichever is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from common.data import plainpickle
from common.data.source import DataFile, DataSource, require, root
from common.errors import BadInputError, unknown

PIXELS = 3 * 32 * 32
_MOST_BYTES = 1 << 30  # no file of these is a fifth of it
_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Version:
    """One published form of a set.

    Attributes:
        source: its files, licence and how to get it.
        splits: "train" and "test" -> its files and the records in each.
        label: the key of the labels (Python), or the number of label bytes, of which the last counts (binary).
    """

    source: DataSource
    splits: Mapping[str, tuple[tuple[str, int], ...]]
    label: str | int


@dataclass(frozen=True)
class Kind:
    """A set: number of classes, mean and standard deviation of the training pixels by channel, its versions."""

    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    versions: tuple[Version, ...]


def _version(
    folder: str, archive: str, size: int, train: list[tuple[str, int]], test: str, label: str | int
) -> Version:
    splits = {"train": tuple(train), "test": ((test, 10_000),)}
    record = label + PIXELS if isinstance(label, int) else None
    files = {
        name: DataFile(records * record if record else None)
        for part in splits.values()
        for name, records in part
    }
    how = (
        f"download {archive} from {_PAGE} and extract it in the folder above: tar -xf {archive} (the binary and the "
        "Python version are both read)"
    )
    licence = "none stated; the page asks to cite A. Krizhevsky, Learning Multiple Layers of Features, 2009"
    return Version(DataSource(folder, f"A. Krizhevsky, {_PAGE}", licence, size, files, how), splits, label)


def _batches(suffix: str) -> list[tuple[str, int]]:
    return [(f"data_batch_{number}{suffix}", 10_000) for number in range(1, 6)]


KINDS: dict[str, Kind] = {
    "cifar10": Kind(
        10,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        (
            _version(
                "cifar-10-batches-bin",
                "cifar-10-binary.tar.gz",
                184_380_000,
                _batches(".bin"),
                "test_batch.bin",
                1,
            ),
            _version(
                "cifar-10-batches-py",
                "cifar-10-python.tar.gz",
                186_000_000,
                _batches(""),
                "test_batch",
                "labels",
            ),
        ),
    ),
    "cifar100": Kind(
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        (
            _version(
                "cifar-100-binary",
                "cifar-100-binary.tar.gz",
                184_440_000,
                [("train.bin", 50_000)],
                "test.bin",
                2,
            ),
            _version(
                "cifar-100-python",
                "cifar-100-python.tar.gz",
                186_000_000,
                [("train", 50_000)],
                "test",
                "fine_labels",
            ),
        ),
    ),
}


class Cifar(Dataset[tuple[Tensor, int]]):
    """CIFAR-10 or CIFAR-100 in memory; item i is (float32 [3, 32, 32], normalised by channel; class).

    Attributes:
        images: uint8 [n, 3, 32, 32].
        labels: int64 [n]; of CIFAR-100 the fine ones.

    Args:
        kind: "cifar10" or "cifar100".
        split: "train", "validation" or "test". The publisher has no validation split: it is the last `validation`
            images of the training files, which stand in random order there, and train is the rest.
        validation: their number; 0 leaves all to train.

    Raises:
        BadInputError: an unknown name, or the data set is absent, incomplete, damaged or not what it says.
    """

    def __init__(
        self, kind: str, split: Literal["train", "validation", "test"], validation: int = 5000
    ) -> None:
        if split not in ("train", "validation", "test"):
            raise unknown("split", split, ("train", "validation", "test"))
        version = version_of(kind)
        images, labels = _read(version, "test" if split == "test" else "train", KINDS[kind].classes)
        if not 0 <= validation < len(labels):
            raise BadInputError(f"{validation} images cannot be kept from {len(labels)} for validation")
        if split != "test":
            kept = len(labels) - validation
            part = slice(kept) if split == "train" else slice(kept, None)
            images, labels = images[part], labels[part]
        self.images: UInt8[Tensor, "n 3 32 32"] = torch.from_numpy(images)
        self.labels: Int64[Tensor, " n"] = torch.from_numpy(labels)
        self._mean = 255 * torch.tensor(KINDS[kind].mean)[:, None, None]
        self._std = 255 * torch.tensor(KINDS[kind].std)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "3 32 32"], int]:
        return self.floats(self.images[index]), int(self.labels[index])

    def floats(self, images: UInt8[Tensor, "*batch 3 32 32"]) -> Float32[Tensor, "*batch 3 32 32"]:
        """Images less the training set's mean, by its standard deviation, channel by channel."""
        return (images.float() - self._mean) / self._std


def version_of(kind: str) -> Version:
    """The version of a set whose folder is there, the binary one first (also when neither is there)."""
    if kind not in KINDS:
        raise unknown("data set", kind, KINDS)
    versions = KINDS[kind].versions
    return next((version for version in versions if (root() / version.source.name).is_dir()), versions[0])


def _read(
    version: Version, split: str, classes: int
) -> tuple[UInt8[NDArray[np.uint8], "n 3 32 32"], Int64[NDArray[np.int64], " n"]]:
    folder = require(version.source)
    parts = [_records(folder / name, count, version.label) for name, count in version.splits[split]]
    for (name, _), (_, labels) in zip(version.splits[split], parts, strict=True):
        if labels.min() < 0 or labels.max() >= classes:
            raise _damaged(folder / name, f"a label that is not from 0 to {classes - 1}")
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images.reshape(-1, 3, 32, 32), labels


def _records(path: Path, count: int, label: str | int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels uint8 [count, 3072] and labels int64 [count] of one file."""
    if path.stat().st_size > _MOST_BYTES:
        raise _damaged(path, "it is far too large")
    data = path.read_bytes()
    if isinstance(label, str):
        return _from_pickle(path, data, count, label)
    if len(data) != count * (label + PIXELS):
        raise _damaged(path, f"{len(data):,} bytes instead of {count * (label + PIXELS):,}")
    table = np.frombuffer(data, np.uint8).reshape(count, label + PIXELS)
    return table[:, label:], table[:, label - 1].astype(np.int64)


def _from_pickle(
    path: Path, data: bytes, count: int, key: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = plainpickle.read(data)
    except plainpickle.NotPlainError as error:
        raise _damaged(path, str(error)) from error
    pixels: Any = batch.get("data")
    labels: Any = batch.get(key)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, PIXELS):
        raise _damaged(path, f"no array 'data' of {count:,} x {PIXELS:,} bytes")
    if not isinstance(labels, list) or len(labels) != count or {type(label) for label in labels} != {int}:  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        raise _damaged(path, f"no list {key!r} of {count:,} whole numbers")
    return pixels, np.array([min(max(label, -1), 1 << 20) for label in labels], np.int64)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _damaged(path: Path, why: str) -> BadInputError:
    return BadInputError(f"{path} is damaged or not what its name says: {why}. Get it again from {_PAGE}.")
