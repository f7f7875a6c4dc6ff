from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.retrieval import inshop
from common.data.retrieval.dataset import Count
from common.errors import BadInputError

SMALL = {"train": Count(4, 2), "query": Count(2, 2), "gallery": Count(3, 3)}
HEADER = "image_name item_id evaluation_status"
LIST = [
    ("id_00000002", "01_1_front", "train"),
    ("id_00000002", "01_2_side", "train"),
    ("id_00000007", "01_1_front", "train"),
    ("id_00000007", "02_1_front", "train"),
    ("id_00000001", "01_1_front", "query"),
    ("id_00000001", "01_3_back", "gallery"),
    ("id_00000003", "01_1_front", "gallery"),
    ("id_00000009", "01_1_front", "query"),
    ("id_00000009", "01_2_side", "gallery"),
]


def rows() -> list[str]:
    return [f"img/WOMEN/Dresses/{item}/{view}.jpg     {item} {split}" for item, view, split in LIST]


def write(folder: Path, table: list[str], count: int | None = None, header: str = HEADER) -> None:
    text = "\n".join([str(len(table) if count is None else count), header, *table])
    (folder / "Eval").mkdir(parents=True, exist_ok=True)
    (folder / "Eval/list_eval_partition.txt").write_text(f"{text}\n")


@pytest.fixture
def folder(root: Path, picture: Callable[..., None]) -> Path:
    """The published layout with nine images."""
    folder = root / "Inshop_Clothes"
    for number, row in enumerate(rows()):
        picture(folder / "Img" / row.split()[0], (20 * number, 0, 0))
    (folder / "Img/img/WOMEN/Dresses/id_00000002/._01_1_front.jpg").write_bytes(b"Mac OS X")
    write(folder, rows())
    return folder


def test_splits(folder: Path) -> None:
    train, query, gallery = (inshop.load(split, complete=SMALL) for split in ("train", "query", "gallery"))  # pyright: ignore[reportArgumentType]
    assert (train.labels.tolist(), train.names) == ([0, 0, 1, 1], ["id_00000002", "id_00000007"])
    assert query.names == gallery.names == ["id_00000001", "id_00000003", "id_00000009"]
    assert (query.labels.tolist(), gallery.labels.tolist()) == ([0, 2], [0, 1, 2])
    assert not set(query.files) & set(gallery.files)
    assert set(query.labels.tolist()) <= set(gallery.labels.tolist())
    assert not set(train.names) & set(query.names)
    assert Path(query.files[1]) == folder / "Img/img/WOMEN/Dresses/id_00000009/01_1_front.jpg"
    assert abs(255 * float(query[1][0][0].mean()) - 140) < 3


def test_the_published_counts() -> None:
    assert sum(count.images for count in inshop.COMPLETE.values()) == 52_712
    assert inshop.COMPLETE["train"].classes + inshop.COMPLETE["query"].classes == 7982


def test_absent(root: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        inshop.load("query")
    for part in (
        str(root / "Inshop_Clothes"),
        "500.0 MB",
        "non-commercial",
        "img.zip",
        "SCALE=laptop",
        "not there",
    ):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Valid: gallery, query, train"):
        inshop.load("test")  # pyright: ignore[reportArgumentType]


def test_incomplete(folder: Path) -> None:
    with pytest.raises(BadInputError, match="query has 2 images of 2 classes instead of 14,218 of 3,985"):
        inshop.load("query")
    (folder / "Img/img/WOMEN/Dresses/id_00000009/01_2_side.jpg").unlink()
    with pytest.raises(BadInputError, match=r"id_00000009/01_2_side.jpg is missing"):
        inshop.load("gallery", complete=SMALL)
    assert len(inshop.load("query", complete=SMALL)) == 2
    (folder / "Eval/list_eval_partition.txt").unlink()
    with pytest.raises(BadInputError, match=r"Eval/list_eval_partition.txt is missing"):
        inshop.load("train", complete=SMALL)


DAMAGED = {
    "a line too few": (rows()[1:], 9, "does not begin with its number of lines"),
    "no count": (rows(), None, "no number"),
    "another split": ([*rows()[1:], rows()[0].replace("train", "val")], 9, "is of the split 'val'"),
    "twice": ([*rows()[:-1], rows()[4].replace("query", "gallery")], 9, "an image is listed twice"),
    "an item in both": (
        [*rows()[:-1], "img/WOMEN/x.jpg id_00000002 gallery"],
        9,
        "item id_00000002 is in train and in the test",
    ),
    "an item without a number": ([*rows()[:-1], "img/WOMEN/x.jpg id_ gallery"], 9, "'' is no number"),
    "a field too few": ([*rows()[:-1], "img/WOMEN/x.jpg gallery"], 9, "3 fields"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_lists(folder: Path, name: str) -> None:
    table, count, message = DAMAGED[name]
    write(folder, table, count)
    if name == "no count":
        path = folder / "Eval/list_eval_partition.txt"
        path.write_text(path.read_text().replace("9", "nine", 1))
    with pytest.raises(BadInputError, match=rf"list_eval_partition.txt is damaged .*{message}"):
        inshop.load("train", complete=SMALL)
