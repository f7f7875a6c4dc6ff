"""In-shop Clothes Retrieval (DeepFashion) as it is published: queries look for their item in another set, the gallery.

    Inshop_Clothes/Eval/list_eval_partition.txt     52712
                                                    image_name item_id evaluation_status
                                                    img/WOMEN/Dresses/id_00000002/02_1_front.jpg id_00000002 train
    Inshop_Clothes/Img/img/WOMEN/Dresses/id_00000002/02_1_front.jpg

Query and gallery number their classes alike, so that their labels can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from common.data.retrieval.dataset import Count, ImageFiles, OnDamage, Row, damaged, lines, listed, whole
from common.data.retrieval.images import Transform
from common.data.source import DataFile, DataSource, require
from common.errors import unknown

_LIST = "Eval/list_eval_partition.txt"
SOURCE = DataSource(
    "Inshop_Clothes",
    "Liu, Luo, Qiu, Wang and Tang, DeepFashion, 2016, In-shop Clothes Retrieval Benchmark, "
    "http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    "for non-commercial research and education; the images' rights are their owners'",
    500_000_000,  # an estimate: 52,712 JPEGs of 256 x 256
    {_LIST: DataFile()},
    "follow the page above to the In-shop Clothes Retrieval Benchmark, download Eval/list_eval_partition.txt and "
    "Img/img.zip (256 x 256, not img_highres.zip), put them in Inshop_Clothes/, and extract img.zip in "
    "Inshop_Clothes/Img/",
)
Split = Literal["train", "query", "gallery"]
COMPLETE: Mapping[str, Count] = {
    "train": Count(25_882, 3997),
    "query": Count(14_218, 3985),
    "gallery": Count(12_612, 3985),
}
_HEADER = ["image_name", "item_id", "evaluation_status"]


def load(
    split: Split,
    transform: Transform | None = None,
    on_damage: OnDamage = "error",
    complete: Mapping[str, Count] = COMPLETE,
) -> ImageFiles:
    """A split of In-shop; class i is the i-th item of train, or the i-th of query and gallery together.

    Args:
        split: "train", "query" or "gallery"; validation classes are taken from train by whoever trains. Some of
            its items have one image.
        transform: of each image, see ``ImageFiles``.
        on_damage: what a damaged image does, see ``ImageFiles``; a query whose gallery is left out has no match.
        complete: what a complete copy holds.

    Raises:
        BadInputError: an unknown split, an item is in train and in the test, an image is listed twice, or the data
            set is absent, incomplete or not what it says.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    folder = require(SOURCE)
    lists = _partition(folder / _LIST)
    rows = listed(SOURCE, split, folder, lists[split], complete[split])
    shown = lists["train"] if split == "train" else lists["query"] + lists["gallery"]
    names = {row.number: f"id_{row.number:08}" for row in shown}
    return ImageFiles(folder, rows, names, transform, on_damage)


def _partition(path: Path) -> dict[str, list[Row]]:
    """Split -> its rows; classes of train and test are disjoint, and no image is in two places."""
    table = lines(SOURCE, path, 3, start=1)
    first = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    if table[:1] != [_HEADER] or whole(SOURCE, path, first) != len(table) - 1:
        raise damaged(SOURCE, path, f"it does not begin with its number of lines and {' '.join(_HEADER)!r}")
    lists: dict[str, list[Row]] = {split: [] for split in get_args(Split)}
    for image, item, split in table[1:]:
        if split not in lists:
            raise damaged(SOURCE, path, f"{image} is of the split {split!r}")
        lists[split].append(Row(f"Img/{image}", whole(SOURCE, path, item.rpartition("_")[2])))
    images = [row.path for rows in lists.values() for row in rows]
    if len(set(images)) < len(images):
        raise damaged(SOURCE, path, "an image is listed twice: query and gallery would not be apart")
    test = {row.number for row in lists["query"] + lists["gallery"]}
    shared = test & {row.number for row in lists["train"]}
    if shared:
        raise damaged(SOURCE, path, f"item id_{min(shared):08} is in train and in the test")
    return lists
