"""Stanford Online Products as it is published: a list of each split, and a class is an eBay item.

Stanford_Online_Products/Ebay_train.txt     image_id class_id super_class_id path
                                            1 1 1 bicycle_final/111085122871_0.JPG
Stanford_Online_Products/Ebay_test.txt      the same, of other classes
Stanford_Online_Products/bicycle_final/111085122871_0.JPG
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from common.data.retrieval.dataset import Count, ImageFiles, OnDamage, Row, damaged, lines, listed, whole
from common.data.retrieval.images import Transform
from common.data.source import DataFile, DataSource, require
from common.errors import unknown

SOURCE = DataSource(
    "Stanford_Online_Products",
    "Oh Song, Xiang, Jegelka and Savarese, Deep Metric Learning via Lifted Structured Feature Embedding, 2016, "
    "https://cvgl.stanford.edu/projects/lifted_struct/",
    "none stated; for research, the images' rights are their owners' (eBay's sellers)",
    3_080_000_000,
    {"Ebay_train.txt": DataFile(), "Ebay_test.txt": DataFile()},
    "download Stanford_Online_Products.zip from the page above and extract it in the folder above",
)
Split = Literal["train", "test"]
COMPLETE: Mapping[str, Count] = {"train": Count(59_551, 11_318), "test": Count(60_502, 11_316)}
_HEADER = ["image_id", "class_id", "super_class_id", "path"]


def load(
    split: Split,
    transform: Transform | None = None,
    on_damage: OnDamage = "error",
    complete: Mapping[str, Count] = COMPLETE,
) -> ImageFiles:
    """A split of Stanford Online Products; class i is the i-th item of the split.

    Args:
        split: "train" or "test"; validation classes are taken from train by whoever trains.
        transform: of each image, see ``ImageFiles``.
        on_damage: what a damaged image does, see ``ImageFiles``; "skip" decodes 60,000 images first.
        complete: what a complete copy holds.

    Raises:
        BadInputError: an unknown split, the two lists share a class, or the data set is absent, incomplete or not
            what it says.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    folder = require(SOURCE)
    lists = {name: _rows(folder / f"Ebay_{name}.txt") for name in get_args(Split)}
    shared = {row.number for row in lists["train"]} & {row.number for row in lists["test"]}
    if shared:
        raise damaged(SOURCE, folder / "Ebay_test.txt", f"class {min(shared)} is in Ebay_train.txt, too")
    rows = listed(SOURCE, split, folder, lists[split], complete[split])
    names = {row.number: f"{row.path.partition('/')[0].removesuffix('_final')} {row.number}" for row in rows}
    return ImageFiles(folder, rows, names, transform, on_damage)


def _rows(path: Path) -> list[Row]:
    table = lines(SOURCE, path, 4)
    if table[:1] != [_HEADER]:
        raise damaged(SOURCE, path, f"its first line is not {' '.join(_HEADER)!r}")
    return [Row(name, whole(SOURCE, path, number)) for _, number, _, name in table[1:]]
