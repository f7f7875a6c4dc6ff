"""ImageNet-1k (ILSVRC 2012) in its own folders: ``train/<wnid>/*.JPEG`` and ``val``, sorted or as it is published.

    imagenet/train/n01440764/n01440764_10026.JPEG      1,000 folders
    imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG                            sorted into folders, or
    imagenet/val/ILSVRC2012_val_00000001.JPEG                                      as published, with the devkit:
    imagenet/ILSVRC2012_devkit_t12/data/{meta.mat,ILSVRC2012_validation_ground_truth.txt}

Class i is the i-th wnid in alphabetical order, as everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from common.data.source import DataSource, absent, require
from common.errors import BadInputError, unknown

SOURCE = DataSource(
    "imagenet",
    "ILSVRC 2012, https://www.image-net.org/challenges/LSVRC/2012/",
    "for non-commercial research and education, by agreement with image-net.org; the images' rights are their owners'",
    157_300_000_000,
    {},
    "register at image-net.org, download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz, and extract them to train/<wnid>/ (each class is a tar in the tar), val/ and "
    "ILSVRC2012_devkit_t12/",
)
_WNID = re.compile(r"n\d{8}")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
_KIT = ("ILSVRC2012_validation_ground_truth.txt", "meta.mat")


@dataclass(frozen=True)
class Counts:
    """What a complete copy holds."""

    classes: int = 1000
    train: int = 1_281_167
    validation: int = 50_000


COMPLETE = Counts()
Transform = Callable[[UInt8[Tensor, "3 height width"]], Tensor]


class ImageNet(Dataset[tuple[Tensor, int]]):
    """Item i is (image, class): uint8 [3, height, width] of the file's own size, or what `transform` makes of it.

    Attributes:
        files: path of each image, sorted.
        labels: class of each image.
        wnids: wnid of each class.

    Args:
        split: "train" or "validation" (the published validation images, on which everybody reports).
        transform: of each image; one that needs random numbers belongs to ``common.training.data.Keyed``.
        counts: of a complete copy.

    Raises:
        BadInputError: an unknown split, or the data set is absent, incomplete or not what it says; from an item:
            the file is damaged.
    """

    def __init__(
        self,
        split: Literal["train", "validation"],
        transform: Transform | None = None,
        counts: Counts = COMPLETE,
    ) -> None:
        if split not in ("train", "validation"):
            raise unknown("split", split, ("train", "validation"))
        folder = require(SOURCE)
        wnids, found = _sorted_folders(folder / "train")
        if len(wnids) != counts.classes:
            raise absent(SOURCE, [f"train has {len(wnids):,} class folders instead of {counts.classes:,}"])
        expected = counts.train
        if split == "validation":
            found, expected = _validation(folder, wnids), counts.validation
        if len(found) != expected:
            raise absent(SOURCE, [f"the {split} split has {len(found):,} images instead of {expected:,}"])
        self.wnids = wnids
        self.files = [path for path, _ in found]
        self.labels = [label for _, label in found]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = decode(Path(self.files[index]))
        return self.transform(image) if self.transform else image, self.labels[index]


def decode(path: Path) -> UInt8[Tensor, "3 height width"]:
    """The RGB image in a JPEG file (one of ImageNet's is a PNG, some are grey or CMYK).

    Raises:
        BadInputError: it is truncated, damaged, gigantic or no image.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInputError(
            f"{path} is damaged or no image ({error}). Get it again from {SOURCE.source}."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _sorted_folders(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The wnids that have a folder, and (path, class) of their images; str, as there are a million of them."""
    if not folder.is_dir():
        raise absent(SOURCE, [f"{folder.name}/ is missing"])
    wnids = sorted(
        entry.name for entry in os.scandir(folder) if _WNID.fullmatch(entry.name) and entry.is_dir()
    )
    found = [(path, label) for label, wnid in enumerate(wnids) for path in _images(folder / wnid)]
    return wnids, found


def _images(folder: Path) -> list[str]:
    return sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".JPEG"))


def _validation(folder: Path, wnids: list[str]) -> list[tuple[str, int]]:
    val = folder / "val"
    names, found = _sorted_folders(val)
    if not names:
        return _with_ground_truth(val, folder / _DEVKIT, wnids)
    if names != wnids:
        raise absent(SOURCE, [f"val/ has {len(names):,} class folders, and train/ others"])
    return found


def _with_ground_truth(val: Path, devkit: Path, wnids: list[str]) -> list[tuple[str, int]]:
    files = _images(val)
    wrong = [f"{(_DEVKIT / name).as_posix()} is missing" for name in _KIT if not (devkit / name).is_file()]
    if wrong:
        raise absent(SOURCE, ["val/ has no class folders", *wrong])
    truth, names = _ground_truth(devkit / _KIT[0]), _synsets(devkit / _KIT[1])
    class_of = {number: wnids.index(wnid) for number, wnid in names.items() if wnid in wnids}
    found: list[tuple[str, int]] = []
    for path in files:
        match = _VALIDATION.fullmatch(Path(path).name)
        number = int(match[1]) if match else 0
        if not 0 < number <= len(truth) or truth[number - 1] not in class_of:
            raise absent(SOURCE, [f"the devkit knows no class for val/{Path(path).name}"])
        found.append((path, class_of[truth[number - 1]]))
    return found


def _ground_truth(path: Path) -> list[int]:
    """ILSVRC2012_ID of each validation image, a line each."""
    try:
        return [int(line) for line in path.read_text(encoding="ascii").split()]
    except ValueError as error:
        raise BadInputError(f"{path} is damaged ({error}). Get it again from {SOURCE.source}.") from error


def _synsets(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> wnid, from the devkit's MATLAB file."""
    import scipy.io

    try:
        found: Any = cast(Any, scipy.io).loadmat(path, squeeze_me=True, variable_names=["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(found["synsets"])}
    except Exception as error:  # a damaged MATLAB file can fail in any way
        raise BadInputError(
            f"{path} is damaged ({type(error).__name__}: {error}). Get it again from {SOURCE.source}."
        ) from error
