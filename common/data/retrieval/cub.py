"""CUB-200-2011 as it is published; classes 1 to 100 are for training, 101 to 200 for the test.

    CUB_200_2011/images.txt                 1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    CUB_200_2011/image_class_labels.txt     1 1
    CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg

``train_test_split.txt`` has both its sides in every class: it is for classification, and retrieval does not read it.
Pretrained backbones may have seen some of these images: the publisher warns that the set overlaps with ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from common.data.retrieval.dataset import Count, ImageFiles, OnDamage, Row, damaged, lines, listed, whole
from common.data.retrieval.images import Transform
from common.data.source import DataFile, DataSource, require
from common.errors import unknown

SOURCE = DataSource(
    "CUB_200_2011",
    "Wah, Branson, Welinder, Perona and Belongie, Caltech-UCSD Birds-200-2011, "
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    "none stated; for research, the images' rights are their owners'",
    1_150_000_000,
    {"images.txt": DataFile(), "image_class_labels.txt": DataFile()},
    "download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 and extract it in the folder above",
)
Split = Literal["train", "test"]
COMPLETE: Mapping[str, Count] = {"train": Count(5864, 100), "test": Count(5924, 100)}
_CLASSES: Mapping[str, range] = {"train": range(1, 101), "test": range(101, 201)}


def load(
    split: Split,
    transform: Transform | None = None,
    on_damage: OnDamage = "error",
    complete: Mapping[str, Count] = COMPLETE,
) -> ImageFiles:
    """A split of CUB-200-2011; class i is the i-th bird of the split.

    Args:
        split: "train" or "test"; validation classes are taken from train by whoever trains.
        transform: of each image, see ``ImageFiles``.
        on_damage: what a damaged image does, see ``ImageFiles``.
        complete: what a complete copy holds.

    Raises:
        BadInputError: an unknown split, or the data set is absent, incomplete or not what it says.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    folder = require(SOURCE)
    labels = folder / "image_class_labels.txt"
    number_of = {image: whole(SOURCE, labels, number) for image, number in lines(SOURCE, labels, 2)}
    paths = lines(SOURCE, folder / "images.txt", 2)
    orphan = next((path for image, path in paths if image not in number_of), None)
    if orphan:
        raise damaged(SOURCE, labels, f"it has no class for {orphan}")
    rows = [Row(f"images/{path}", number_of[image]) for image, path in paths]
    rows = listed(
        SOURCE, split, folder, [row for row in rows if row.number in _CLASSES[split]], complete[split]
    )
    names = {row.number: row.path.split("/")[1].partition(".")[2].replace("_", " ") for row in rows}
    return ImageFiles(folder, rows, names, transform, on_damage)
