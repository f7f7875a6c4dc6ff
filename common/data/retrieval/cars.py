"""Cars-196 as it is published in one piece; classes 1 to 98 are for training, 99 to 196 for the test.

    cars196/cars_annos.mat          annotations (relative_im_path, bbox_x1 ... bbox_y2, class, test), class_names
    cars196/car_ims/000001.jpg

The field "test" has both its values in every class: it is for classification, and retrieval does not read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from common.data.retrieval.dataset import Count, ImageFiles, OnDamage, Row, damaged, listed
from common.data.retrieval.images import Transform
from common.data.source import DataFile, DataSource, require
from common.errors import unknown

SOURCE = DataSource(
    "cars196",
    "Krause, Stark, Deng and Fei-Fei, 3D Object Representations for Fine-Grained Categorization, 2013, "
    "http://imagenet.stanford.edu/internal/car196/ (no longer online)",
    "none stated; for non-commercial research, the images' rights are their owners'",
    1_960_000_000,
    {"cars_annos.mat": DataFile()},
    "the publisher's page is gone: from a mirror or a colleague, get car_ims.tgz and cars_annos.mat, and extract "
    "both to cars196/ (mirrors that hold cars_train/ and cars_test/ number the images otherwise)",
)
Split = Literal["train", "test"]
COMPLETE: Mapping[str, Count] = {"train": Count(8054, 98), "test": Count(8131, 98)}
_CLASSES: Mapping[str, range] = {"train": range(1, 99), "test": range(99, 197)}


def load(
    split: Split,
    transform: Transform | None = None,
    on_damage: OnDamage = "error",
    complete: Mapping[str, Count] = COMPLETE,
) -> ImageFiles:
    """A split of Cars-196; class i is the i-th model of the split.

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
    rows, models = _annotations(folder / "cars_annos.mat")
    rows = [row for row in rows if row.number in _CLASSES[split]]
    rows = listed(SOURCE, split, folder, rows, complete[split])
    return ImageFiles(
        folder, rows, {row.number: models[row.number - 1] for row in rows}, transform, on_damage
    )


def _annotations(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of all classes, and the name of class i + 1 at i."""
    import scipy.io

    try:
        found: Any = cast(Any, scipy.io).loadmat(
            path, squeeze_me=True, variable_names=["annotations", "class_names"]
        )
        table = np.atleast_1d(found["annotations"])
        rows = [
            Row(str(image), int(number))
            for image, number in zip(table["relative_im_path"], table["class"], strict=True)
        ]
        models = [str(name) for name in np.atleast_1d(found["class_names"])]
    except Exception as error:  # a damaged MATLAB file can fail in any way
        raise damaged(SOURCE, path, f"{type(error).__name__}: {error}") from error
    wrong = next((row for row in rows if not 1 <= row.number <= len(models)), None)
    if wrong:
        raise damaged(SOURCE, path, f"{wrong.path} is of class {wrong.number}, which has no name")
    return rows, models
