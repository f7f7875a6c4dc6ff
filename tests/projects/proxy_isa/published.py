"""The four published data sets in exactly their formats: a few images of noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from common.data.retrieval import cars, cub, inshop, sop
from common.data.retrieval.dataset import Count

Counts = Mapping[str, Count]
PER_CLASS = 3


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(number)
    noise = torch.randint(256, (40, 30, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(path, quality=95)


def classes_of(train: int, first_test: int) -> list[int]:
    """The numbers of `train` classes from 1 on and of two test classes, one for each image."""
    return [number for number in (*range(1, train + 1), first_test, first_test + 1) for _ in range(PER_CLASS)]


def halves(train: int) -> Counts:
    return {"train": Count(PER_CLASS * train, train), "test": Count(PER_CLASS * 2, 2)}


def birds(root: Path, train: int) -> Counts:
    """CUB-200-2011: lists of images and of their classes; 101 and 102 are the test."""
    folder = root / "CUB_200_2011"
    listed = [
        (bird, f"{bird:03}.Bird/Bird_{i % PER_CLASS}_{bird}.jpg")
        for i, bird in enumerate(classes_of(train, 101))
    ]
    for number, (_, path) in enumerate(listed, 1):
        picture(folder / "images" / path, number)
    (folder / "images.txt").write_text("".join(f"{i} {path}\n" for i, (_, path) in enumerate(listed, 1)))
    labels = "".join(f"{i} {bird}\n" for i, (bird, _) in enumerate(listed, 1))
    (folder / "image_class_labels.txt").write_text(labels)
    for name in ("bounding_boxes.txt", "train_test_split.txt"):
        (folder / name).write_text("")
    return halves(train)


def models(root: Path, train: int) -> Counts:
    """Cars-196: one MATLAB file of annotations; 99 and 100 are the test."""
    folder = root / "cars196"
    rows = [
        (f"car_ims/{i:06}.jpg", 1, 2, 9, 8, number, i % 2)
        for i, number in enumerate(classes_of(train, 99), 1)
    ]
    for number, row in enumerate(rows):
        picture(folder / row[0], number)
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    table = np.array(rows, dtype=[(field, "O") for field in fields])[None]
    names = np.array([f"Model {number}" for number in range(1, 197)], dtype=object)[None]
    savemat(folder / "cars_annos.mat", {"annotations": table, "class_names": names})
    return halves(train)


def products(root: Path, train: int) -> Counts:
    """Stanford Online Products: one list of each split, with a header."""
    folder, numbers = root / "Stanford_Online_Products", classes_of(train, 11_319)
    rows = [f"{i} {number} 1 bicycle_final/{number}_{i}.JPG\n" for i, number in enumerate(numbers, 1)]
    for number, row in enumerate(rows):
        picture(folder / row.split()[-1], number)
    for name, part in (("train", rows[: PER_CLASS * train]), ("test", rows[PER_CLASS * train :])):
        (folder / f"Ebay_{name}.txt").write_text("image_id class_id super_class_id path\n" + "".join(part))
    return halves(train)


def clothes(root: Path, train: int) -> Counts:
    """In-shop: one list; of two test items, queries to look up in a gallery."""
    folder = root / "Inshop_Clothes"
    parts = dict.fromkeys((train + 1, train + 2), ("query", "gallery", "gallery"))
    rows: list[str] = []
    for i, item in enumerate(classes_of(train, train + 1)):
        name = f"img/WOMEN/Dresses/id_{item:08}/{i % PER_CLASS + 1:02}_{i}_front.jpg"
        picture(folder / "Img" / name, i)
        rows.append(f"{name} id_{item:08} {parts.get(item, ('train',) * PER_CLASS)[i % PER_CLASS]}")
    (folder / "Eval").mkdir()
    lines = [str(len(rows)), "image_name item_id evaluation_status", *rows]
    (folder / "Eval/list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return {"train": Count(PER_CLASS * train, train), "query": Count(2, 2), "gallery": Count(4, 2)}


SETS: Mapping[str, tuple[Callable[[Path, int], Counts], ModuleType]] = {
    "cub": (birds, cub),
    "cars": (models, cars),
    "sop": (products, sop),
    "inshop": (clothes, inshop),
}
