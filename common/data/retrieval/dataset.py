"""The shape of every retrieval data set, and the one of image files that lists, checks and opens them.

A published set is made of its lists: rows of (path, class), all of which must be there. Class i is the i-th class of
the split in ascending order of the published number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from common.data.retrieval.images import Transform, damage, floats, is_resource_fork, read_rgb
from common.data.source import DataSource, absent
from common.errors import BadInputError, unknown

OnDamage = Literal["error", "skip"]


class Retrieval(Protocol):
    """What a retrieval data set offers.

    Attributes:
        labels: int64 [n], the class of each item, 0 to classes - 1.
        classes: number of classes.
        names: name of each class, for people.
    """

    labels: Int64[Tensor, " n"]
    classes: int
    names: list[str]

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "channels height width"], int]:
        """The image and its class."""
        ...


class Row(NamedTuple):
    """A line of a published list: the file's path in the data set's folder, its class by the published number."""

    path: str
    number: int


class Skipped(NamedTuple):
    """A file that was left out, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Count:
    """Images and classes that a split of a complete copy has."""

    images: int
    classes: int


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """A split in image files; item i is (float32 RGB [3, height, width] in [0, 1], class).

    Attributes:
        files: path of each image.
        labels: int64 [n], class of each image.
        classes: number of classes; leaving out damaged files does not renumber them.
        names: name of each class.
        skipped: the damaged files that were left out; always empty with on_damage="error".

    Args:
        folder: of the data set.
        rows: the split's files, all of which exist.
        names: published number -> name, of every class of the split (for a query, the gallery's classes, too).
        transform: of each image, such as ``images.eval_crop``; None leaves it in the file's own size. A random one
            belongs to ``common.training.data.Keyed``: ``images.train_augment``.
        on_damage: "error": an item of a damaged file raises; "skip": every file is decoded now, and the damaged
            ones are left out, so that an index stays the same image for as long as the data set lives.

    Raises:
        BadInputError: an unknown on_damage, or no image is left; from an item: the file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Row],
        names: dict[int, str],
        transform: Transform | None = None,
        on_damage: OnDamage = "error",
    ) -> None:
        if on_damage not in get_args(OnDamage):
            raise unknown("on_damage", on_damage, get_args(OnDamage))
        found = [(str(folder / path), number) for path, number in rows]
        self.skipped: list[Skipped] = []
        if on_damage == "skip":
            wrong = {path: why for path, _ in found if (why := damage(Path(path)))}
            self.skipped = [Skipped(path, why) for path, why in wrong.items()]
            found = [(path, number) for path, number in found if path not in wrong]
        if not found:
            raise BadInputError(
                f"no image is left of {len(rows):,} in {folder}: {len(self.skipped):,} are damaged"
            )
        label = {number: at for at, number in enumerate(sorted(names))}
        self.files = [path for path, _ in found]
        self.labels: Int64[Tensor, " n"] = torch.tensor([label[number] for _, number in found])
        self.classes = len(names)
        self.names = [names[number] for number in sorted(names)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "3 height width"], int]:
        image = floats(read_rgb(Path(self.files[index])))
        return self.transform(image) if self.transform else image, int(self.labels[index])


def listed(source: DataSource, split: str, folder: Path, rows: Sequence[Row], expected: Count) -> list[Row]:
    """The rows of a split, less resource forks, when there are as many as in a complete copy and every file exists.

    Raises:
        BadInputError: a count differs, a path leaves the folder, or a file is missing.
    """
    kept = [row for row in rows if not is_resource_fork(row.path)]
    classes = len({row.number for row in kept})
    if (len(kept), classes) != (expected.images, expected.classes):
        wrong = (
            f"the list of {split} has {len(kept):,} images of {classes:,} classes instead of "
            f"{expected.images:,} of {expected.classes:,}"
        )
        raise absent(source, [wrong])
    outside = [row.path for row in kept if Path(row.path).is_absolute() or ".." in Path(row.path).parts]
    if outside:
        raise absent(source, [f"the list of {split} names a file outside: {path}" for path in outside])
    missing = [f"{row.path} is missing" for row in kept if not (folder / row.path).is_file()]
    if missing:
        raise absent(source, missing)
    return kept


def lines(source: DataSource, path: Path, columns: int, start: int = 0) -> list[list[str]]:
    """The fields of each line of a published text file that is not empty, from line `start` on.

    Raises:
        BadInputError: it is not text, or a line has another number of fields than `columns`.
    """
    try:
        text = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise damaged(source, path, str(error)) from error
    fields = [line.split() for line in text[start:] if line.strip()]
    wrong = next((row for row in fields if len(row) != columns), None)
    if wrong is not None:
        raise damaged(source, path, f"{columns} fields were expected in the line {' '.join(wrong)!r}")
    return fields


def whole(source: DataSource, path: Path, text: str) -> int:
    """A field that must be a whole number; else the error names its file."""
    try:
        return int(text)
    except ValueError as error:
        raise damaged(source, path, f"{text!r} is no number") from error


def damaged(source: DataSource, path: Path, why: str) -> BadInputError:
    """The error for a published list that cannot be read."""
    return BadInputError(
        f"{path} is damaged or not what its name says: {why}. Get it again: {source.source}."
    )
