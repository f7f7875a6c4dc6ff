from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.retrieval import sop
from common.data.retrieval.dataset import Count
from common.errors import BadInputError

SMALL = {"train": Count(5, 2), "test": Count(4, 2)}
HEADER = "image_id class_id super_class_id path\n"
LISTS = {
    "train": [(1, 1, "bicycle", 3), (2, 1, "bicycle", 2)],
    "test": [(11319, 2, "cabinet", 2), (11320, 12, "toaster", 2)],
}


@pytest.fixture
def folder(root: Path, picture: Callable[..., None]) -> Path:
    """The published layout with two items of two to three images a split."""
    folder = root / "Stanford_Online_Products"
    for split, items in LISTS.items():
        text, image = HEADER, 0
        for number, kind, name, count in items:
            for view in range(count):
                image += 1
                path = f"{name}_final/1110851{number}_{view}.JPG"
                text += f"{image} {number} {kind} {path}\n"
                picture(
                    folder / path,
                    (10 * view, 0, 0),
                    "RGBA" if view == 1 else "RGB",
                    kind="PNG" if view == 1 else "JPEG",
                )
        (folder / f"Ebay_{split}.txt").write_text(text)
    return folder


def test_splits(folder: Path) -> None:
    train, test = sop.load("train", complete=SMALL), sop.load("test", complete=SMALL)
    assert (train.labels.tolist(), train.names) == ([0, 0, 0, 1, 1], ["bicycle 1", "bicycle 2"])
    assert (test.labels.tolist(), test.names) == ([0, 0, 1, 1], ["cabinet 11319", "toaster 11320"])
    assert Path(test.files[0]) == folder / "cabinet_final/111085111319_0.JPG"
    assert all(train[i][0].shape == (3, 8, 12) for i in range(5))


def test_the_published_counts() -> None:
    assert sum(count.images for count in sop.COMPLETE.values()) == 120_053
    assert sum(count.classes for count in sop.COMPLETE.values()) == 22_634


def test_absent(root: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        sop.load("test")
    for part in (
        str(root / "Stanford_Online"),
        "3.1 GB",
        "licence",
        "Products.zip",
        "SCALE=laptop",
        "not there",
    ):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Did you mean 'test'"):
        sop.load("validation-test")  # pyright: ignore[reportArgumentType]


def test_incomplete(folder: Path) -> None:
    with pytest.raises(BadInputError, match="has 5 images of 2 classes instead of 59,551 of 11,318"):
        sop.load("train")
    (folder / "toaster_final/111085111320_1.JPG").unlink()
    with pytest.raises(BadInputError, match=r"toaster_final/111085111320_1.JPG is missing"):
        sop.load("test", complete=SMALL)
    (folder / "Ebay_test.txt").unlink()
    with pytest.raises(BadInputError, match=r"Ebay_test.txt is missing"):
        sop.load("train", complete=SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is not"),
        ("1 11319 2 cabinet_final/1_0.JPG\n", "its first line is not"),
        (f"{HEADER}1 x 2 cabinet_final/1_0.JPG\n", "'x' is no number"),
        (f"{HEADER}1 11319 cabinet_final/1_0.JPG\n", "4 fields"),
        (f"{HEADER}1 2 2 cabinet_final/1_0.JPG\n", "class 2 is in Ebay_train.txt, too"),
    ],
)
def test_damaged_lists(folder: Path, text: str, message: str) -> None:
    (folder / "Ebay_test.txt").write_text(text)
    with pytest.raises(BadInputError, match=rf"Ebay_test.txt is damaged .*{message}"):
        sop.load("train", complete=SMALL)
