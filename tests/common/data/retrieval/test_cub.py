from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.retrieval import cub
from common.data.retrieval.dataset import Count
from common.errors import BadInputError

SMALL = {"train": Count(5, 2), "test": Count(4, 2)}
BIRDS = {
    1: ("Black_footed_Albatross", 3),
    100: ("Brown_Pelican", 2),
    101: ("White_Pelican", 2),
    200: ("Yellowthroat", 2),
}


@pytest.fixture
def folder(root: Path, picture: Callable[..., None]) -> Path:
    """The published layout with four birds; the labels are listed backwards, as only the image's id counts."""
    folder = root / "CUB_200_2011"
    images = [
        (number, f"{number:03}.{bird}/{bird}_{image:04}_{number}.jpg")
        for number, (bird, count) in BIRDS.items()
        for image in range(count)
    ]
    for number, path in images:
        picture(folder / "images" / path, (number, 0, 0), "L" if number == 100 else "RGB")
    numbered = list(enumerate(images, 1))
    (folder / "images.txt").write_text("".join(f"{i} {path}\n" for i, (_, path) in numbered))
    labels = "".join(f"{i} {number}\n" for i, (number, _) in reversed(numbered))
    (folder / "image_class_labels.txt").write_text(labels)
    (folder / "bounding_boxes.txt").write_text("".join(f"{i} 1.0 1.0 5.0 5.0\n" for i, _ in numbered))
    (folder / "train_test_split.txt").write_text("".join(f"{i} {i % 2}\n" for i, _ in numbered))
    (folder / "images/001.Black_footed_Albatross/._Black_footed_Albatross_0000_1.jpg").write_bytes(
        b"Mac OS X"
    )
    return folder


def test_splits(folder: Path) -> None:
    train, test = cub.load("train", complete=SMALL), cub.load("test", complete=SMALL)
    assert (train.labels.tolist(), train.names) == (
        [0, 0, 0, 1, 1],
        ["Black footed Albatross", "Brown Pelican"],
    )
    assert (test.labels.tolist(), test.names) == ([0, 0, 1, 1], ["White Pelican", "Yellowthroat"])
    assert not set(train.names) & set(test.names)
    assert Path(train.files[3]) == folder / "images/100.Brown_Pelican/Brown_Pelican_0000_100.jpg"
    assert train[3][0].shape == (3, 8, 12)


def test_the_published_counts() -> None:
    assert sum(count.images for count in cub.COMPLETE.values()) == 11_788
    assert sum(count.classes for count in cub.COMPLETE.values()) == 200


def test_skipping(folder: Path) -> None:
    path = folder / "images/200.Yellowthroat/Yellowthroat_0001_200.jpg"
    path.write_bytes(path.read_bytes()[:200])
    test = cub.load("test", on_damage="skip", complete=SMALL)
    assert (len(test), [skip.path for skip in test.skipped]) == (3, [str(path)])


def test_absent(root: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        cub.load("train")
    for part in (
        str(root / "CUB_200_2011"),
        "1.1 GB",
        "licence",
        "CUB_200_2011.tgz",
        "SCALE=laptop",
        "not there",
    ):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Did you mean 'test'"):
        cub.load("tets")  # pyright: ignore[reportArgumentType]


def test_incomplete(folder: Path) -> None:
    with pytest.raises(BadInputError, match="has 5 images of 2 classes instead of 5,864 of 100"):
        cub.load("train")
    (folder / "images/100.Brown_Pelican/Brown_Pelican_0001_100.jpg").unlink()
    with pytest.raises(BadInputError, match=r"Brown_Pelican_0001_100.jpg is missing"):
        cub.load("train", complete=SMALL)
    assert len(cub.load("test", complete=SMALL)) == 4
    labels = folder / "image_class_labels.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(BadInputError, match=r"labels.txt is damaged .* no class for 200.Yellowthroat"):
        cub.load("train", complete=SMALL)
    labels.unlink()
    with pytest.raises(BadInputError, match=r"image_class_labels.txt is missing"):
        cub.load("train", complete=SMALL)
