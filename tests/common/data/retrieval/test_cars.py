from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from common.data.retrieval import cars
from common.data.retrieval.dataset import Count
from common.errors import BadInputError

SMALL = {"train": Count(4, 2), "test": Count(3, 2)}
CLASSES = [98, 1, 99, 196, 1, 99, 98]  # of the images in order
FIELDS = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]


def annotate(folder: Path, classes: list[int], names: int = 196) -> None:
    rows = [(f"car_ims/{i:06}.jpg", 1, 2, 9, 8, number, i % 2) for i, number in enumerate(classes, 1)]
    table = np.array(rows, dtype=[(field, "O") for field in FIELDS])[None]
    models = np.array([f"Model {number}" for number in range(1, names + 1)], dtype=object)[None]
    savemat(folder / "cars_annos.mat", {"annotations": table, "class_names": models})


@pytest.fixture
def folder(root: Path, picture: Callable[..., None]) -> Path:
    """The published layout with seven images."""
    folder = root / "cars196"
    for image in range(1, len(CLASSES) + 1):
        picture(folder / f"car_ims/{image:06}.jpg", (30 * image, 0, 0), "CMYK" if image == 2 else "RGB")
    annotate(folder, CLASSES)
    return folder


def test_splits(folder: Path) -> None:
    train, test = cars.load("train", complete=SMALL), cars.load("test", complete=SMALL)
    assert (train.labels.tolist(), train.names) == ([1, 0, 0, 1], ["Model 1", "Model 98"])
    assert (test.labels.tolist(), test.names) == ([0, 1, 0], ["Model 99", "Model 196"])
    assert [Path(path).name for path in test.files] == ["000003.jpg", "000004.jpg", "000006.jpg"]
    assert Path(train.files[0]) == folder / "car_ims/000001.jpg"
    image, label = train[1]
    assert (image.shape, label) == ((3, 8, 12), 0)
    assert abs(255 * float(image[0].mean()) - 60) < 4


def test_the_published_counts() -> None:
    assert sum(count.images for count in cars.COMPLETE.values()) == 16_185
    assert sum(count.classes for count in cars.COMPLETE.values()) == 196


def test_absent(root: Path) -> None:
    with pytest.raises(BadInputError) as raised:
        cars.load("test")
    for part in (str(root / "cars196"), "2.0 GB", "licence", "car_ims.tgz", "SCALE=laptop", "not there"):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Did you mean 'train'"):
        cars.load("training")  # pyright: ignore[reportArgumentType]


def test_incomplete(folder: Path) -> None:
    with pytest.raises(BadInputError, match="has 3 images of 2 classes instead of 8,131 of 98"):
        cars.load("test")
    (folder / "car_ims/000004.jpg").unlink()
    with pytest.raises(BadInputError, match=r"car_ims/000004.jpg is missing"):
        cars.load("test", complete=SMALL)
    (folder / "cars_annos.mat").unlink()
    with pytest.raises(BadInputError, match=r"cars_annos.mat is missing"):
        cars.load("train", complete=SMALL)


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file" * 30, b"<html>"])
def test_damaged_annotations(folder: Path, data: bytes) -> None:
    (folder / "cars_annos.mat").write_bytes(data)
    with pytest.raises(BadInputError, match=r"cars_annos.mat is damaged or not what its name says"):
        cars.load("train", complete=SMALL)


def test_annotations_of_another_set(folder: Path) -> None:
    annotate(folder, CLASSES, names=150)
    with pytest.raises(BadInputError, match=r"000004.jpg is of class 196, which has no name"):
        cars.load("train", complete=SMALL)
    savemat(folder / "cars_annos.mat", {"annotations": np.zeros(3)})
    with pytest.raises(BadInputError, match=r"cars_annos.mat is damaged"):
        cars.load("train", complete=SMALL)
