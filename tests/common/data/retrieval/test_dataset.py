from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.data.balanced import BalancedSampler
from common.data.retrieval.dataset import Count, ImageFiles, Retrieval, Row, lines, listed, whole
from common.data.retrieval.images import eval_crop, train_augment
from common.data.source import DataFile, DataSource
from common.errors import BadInputError
from common.training.data import Keyed, loader

SOURCE = DataSource("set", "somebody", "free", 1000, {"list.txt": DataFile()}, "ask")
NAMES = {7: "seven", 3: "three", 40: "forty"}
ROWS = [Row("a/0.jpg", 7), Row("a/1.jpg", 3), Row("b/2.jpg", 40), Row("b/3.jpg", 3)]


@pytest.fixture
def folder(root: Path, picture: Callable[..., None]) -> Path:
    for number, row in enumerate(ROWS):
        picture(root / "set" / row.path, (60 * number, 0, 0), size=(300 + number, 260))
    return root / "set"


def test_shape(folder: Path) -> None:
    data: Retrieval = ImageFiles(folder, ROWS, NAMES)
    assert (len(data), data.classes, data.names) == (4, 3, ["three", "seven", "forty"])
    assert (data.labels.tolist(), data.labels.dtype) == ([1, 0, 2, 0], torch.int64)
    image, label = data[2]
    assert (image.shape, image.dtype, label) == ((3, 260, 302), torch.float32, 2)
    assert abs(float(image[0].mean()) - 120 / 255) < 0.02
    assert ImageFiles(folder, ROWS, NAMES, eval_crop)[0][0].shape == (3, 224, 224)


def test_a_training_loader(folder: Path) -> None:
    data = ImageFiles(folder, ROWS, NAMES)
    keyed = Keyed(data, 5, train_augment)
    epochs = [list(loader(keyed, BalancedSampler(data.labels, 2, 2, 6, 1, start))) for start in (0, 4)]  # pyright: ignore[reportArgumentType]
    assert [tuple(images.shape) for images, _ in epochs[0]] == [(4, 3, 224, 224)] * 6
    for (images, labels), (again, same) in zip(epochs[0][4:], epochs[1], strict=True):
        assert torch.equal(images, again)
        assert labels.tolist() == same.tolist()


def test_damaged_images(folder: Path) -> None:
    path = folder / ROWS[1].path
    path.write_bytes(path.read_bytes()[:-200])
    data = ImageFiles(folder, ROWS, NAMES)
    assert (len(data), data.skipped) == (4, [])
    with pytest.raises(BadInputError, match=r"a/1.jpg is damaged"):
        data[1]
    data = ImageFiles(folder, ROWS, NAMES, on_damage="skip")
    assert [Path(file).name for file in data.files] == ["0.jpg", "2.jpg", "3.jpg"]
    assert (data.labels.tolist(), data.classes, len(data.names)) == ([1, 2, 0], 3, 3)
    assert [(skip.path, bool(skip.why)) for skip in data.skipped] == [(str(path), True)]
    assert [data[i][1] for i in range(3)] == [1, 2, 0]


def test_a_class_that_lost_its_images_keeps_its_number(folder: Path) -> None:
    (folder / ROWS[0].path).write_bytes(b"")
    data = ImageFiles(folder, ROWS, NAMES, on_damage="skip")
    assert (data.labels.tolist(), data.classes, data.names[1]) == ([0, 2, 0], 3, "seven")


def test_nothing_is_left(folder: Path) -> None:
    for row in ROWS:
        (folder / row.path).write_bytes(b"")
    with pytest.raises(BadInputError, match=r"no image is left of 4 .* 4 are damaged"):
        ImageFiles(folder, ROWS, NAMES, on_damage="skip")
    with pytest.raises(BadInputError, match="Did you mean 'skip'"):
        ImageFiles(folder, ROWS, NAMES, on_damage="skp")  # pyright: ignore[reportArgumentType]


def test_listed(folder: Path) -> None:
    complete = Count(4, 3)
    fork = Row("a/._0.jpg", 7)
    assert listed(SOURCE, "train", folder, [fork, *ROWS], complete) == ROWS
    with pytest.raises(BadInputError, match="train has 3 images of 2 classes instead of 4 of 3"):
        listed(SOURCE, "train", folder, [*ROWS[:2], ROWS[3]], complete)
    for path in ("../a.jpg", "/a.jpg"):
        with pytest.raises(BadInputError, match="names a file outside"):
            listed(SOURCE, "train", folder, [Row(path, 7), *ROWS[1:]], complete)
    for row in ROWS:
        (folder / row.path).unlink()
    with pytest.raises(BadInputError, match=r"a/0.jpg is missing; .*b/3.jpg is missing"):
        listed(SOURCE, "train", folder, ROWS, complete)


def test_lists_that_cannot_be_read(root: Path) -> None:
    path = root / "list.txt"
    path.write_text("header\n1 2\n\n3  4\r\n")
    assert lines(SOURCE, path, 2, start=1) == [["1", "2"], ["3", "4"]]
    with pytest.raises(BadInputError, match=r"list.txt is damaged .*: 2 fields .* 'header'.*somebody"):
        lines(SOURCE, path, 2)
    path.write_bytes(b"1 \xff")
    with pytest.raises(BadInputError, match=r"list.txt is damaged"):
        lines(SOURCE, path, 2)
    assert whole(SOURCE, path, "17") == 17
    with pytest.raises(BadInputError, match="'x7' is no number"):
        whole(SOURCE, path, "x7")
