from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from common.data.imagenet import Counts, ImageNet, decode
from common.errors import BadInputError
from common.training.data import Keyed, StepSampler, loader

WNIDS = ["n01440764", "n01443537", "n15075141"]
IDS = [3, 1, 2]  # of the wnids, in the devkit's own order
COUNTS = Counts(3, 6, 4)
TRUTH = [2, 3, 3, 1]
KIT = Path("ILSVRC2012_devkit_t12", "data")


def picture(
    path: Path, colour: tuple[int, int, int], mode: str = "RGB", size: tuple[int, int] = (12, 8)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, "JPEG", quality=95)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published layout, with three classes and the validation images unsorted."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    folder = tmp_path / "imagenet"
    for number, wnid in enumerate(WNIDS):
        for image in (10, 9):
            picture(folder / "train" / wnid / f"{wnid}_{image}.JPEG", (80 * number, image, 0))
    for number in range(1, 5):
        picture(folder / "val" / f"ILSVRC2012_val_{number:08}.JPEG", (0, 0, 50 * number))
    kit = folder / KIT
    kit.mkdir(parents=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{label}\n" for label in TRUTH))
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(float(i), w, "a fish", 0.0) for i, w in zip(IDS, WNIDS, strict=True)] + [
        (1001.0, "n00001740", "all", 3.0)
    ]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    return folder


def test_train(folder: Path) -> None:
    data = ImageNet("train", counts=COUNTS)
    assert (len(data), data.wnids, data.labels) == (6, WNIDS, [0, 0, 1, 1, 2, 2])
    assert [Path(path).name for path in data.files[:2]] == ["n01440764_10.JPEG", "n01440764_9.JPEG"]
    image, label = data[4]
    assert (image.shape, image.dtype, label) == ((3, 8, 12), torch.uint8, 2)
    assert abs(int(image[0, 4, 4]) - 160) < 4


@pytest.mark.parametrize("layout", ["published", "sorted"])
def test_both_validation_layouts_say_the_same(folder: Path, layout: str) -> None:
    expected = [WNIDS[IDS.index(label)] for label in TRUTH]
    if layout == "sorted":
        for path, wnid in zip(sorted((folder / "val").iterdir()), expected, strict=True):
            (folder / "val" / wnid).mkdir(exist_ok=True)
            path.rename(folder / "val" / wnid / path.name)
        (folder / KIT / "meta.mat").unlink()
    data = ImageNet("validation", counts=COUNTS)
    blue = {Path(path).name: round(int(data[i][0][2, 4, 4]) / 50) for i, path in enumerate(data.files)}
    assert blue == {f"ILSVRC2012_val_{number:08}.JPEG": number for number in range(1, 5)}
    found = {Path(path).name: data.wnids[label] for path, label in zip(data.files, data.labels, strict=True)}
    assert [found[name] for name in sorted(found)] == expected


def test_it_works_with_the_step_sampler_and_a_transform(folder: Path) -> None:
    data = ImageNet("train", transform=lambda image: image[:, :4, :4].float(), counts=COUNTS)
    batches = list(loader(Keyed(data, 0), StepSampler(6, 3, 4, seed=0)))
    assert [tuple(images.shape) for images, _ in batches] == [(3, 3, 4, 4)] * 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "PNG"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.JPEG"
    if mode == "PNG":
        Image.new("RGBA", (5, 7), (9, 9, 9, 9)).save(path, "PNG")
    else:
        picture(path, (9, 9, 9), mode, (5, 7))
    assert decode(path).shape == (3, 7, 5)


def test_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    with pytest.raises(BadInputError) as raised:
        ImageNet("train")
    for part in (str(tmp_path / "imagenet"), "157.3 GB", "register at", "non-commercial", "SCALE=laptop"):
        assert part in str(raised.value)
    with pytest.raises(BadInputError, match="Did you mean 'validation'"):
        ImageNet("val")  # pyright: ignore[reportArgumentType]


LACKS = {
    "train": ("train", "train/ is missing"),
    "a class": ("train/n01443537", "train has 2 class folders instead of 3"),
    "an image": ("train/n01443537/n01443537_9.JPEG", "the train split has 5 images instead of 6"),
    "val": ("val", "val/ is missing"),
    "a validation image": (
        "val/ILSVRC2012_val_00000002.JPEG",
        "the validation split has 3 images instead of 4",
    ),
    "the truth": (f"{KIT}/ILSVRC2012_validation_ground_truth.txt", "ground_truth.txt is missing"),
    "the names": (f"{KIT}/meta.mat", "meta.mat is missing"),
}


@pytest.mark.parametrize("name", LACKS)
def test_incomplete(folder: Path, name: str) -> None:
    path, message = LACKS[name]
    (folder / path).rename(folder / "elsewhere")
    with pytest.raises(BadInputError, match=message) as raised:
        ImageNet("train" if "train" in path else "validation", counts=COUNTS)
    assert "register at image-net.org" in str(raised.value)


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        (f"{KIT}/meta.mat", b"", "meta.mat is damaged"),
        (f"{KIT}/meta.mat", b"MATLAB 5.0 MAT-file" * 30, "meta.mat is damaged"),
        (f"{KIT}/ILSVRC2012_validation_ground_truth.txt", b"1\n2\nx\n", "ground_truth.txt is damaged"),
        (f"{KIT}/ILSVRC2012_validation_ground_truth.txt", b"1\n2\n\xff\n", "ground_truth.txt is damaged"),
        (
            f"{KIT}/ILSVRC2012_validation_ground_truth.txt",
            b"1\n2\n3\n",
            "no class for val/ILSVRC2012_val_00000004",
        ),
        (
            f"{KIT}/ILSVRC2012_validation_ground_truth.txt",
            b"1\n2\n3\n9\n",
            "no class for val/ILSVRC2012_val_0000",
        ),
        ("val/other.JPEG", b"", "no class for val/other.JPEG"),
        ("val/n00000001/other.JPEG", b"", "val/ has 1 class folders, and train/ others"),
    ],
)
def test_a_damaged_devkit(folder: Path, path: str, data: bytes, message: str) -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(data)
    with pytest.raises(BadInputError, match=message):
        ImageNet("validation", counts=COUNTS)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "gif"])
def test_damaged_images(folder: Path, how: str) -> None:
    data = ImageNet("train", counts=COUNTS)
    path = Path(data.files[1])
    whole = path.read_bytes()
    Image.new("RGB", (4, 4)).save(folder / "x.gif")
    gif = (folder / "x.gif").read_bytes()
    path.write_bytes({"cut": whole[:-60], "empty": b"", "text": b"<html>no</html>", "gif": gif}[how])
    with pytest.raises(BadInputError, match=r"n01440764_9.JPEG is damaged or no image"):
        data[1]


def test_a_gigantic_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "x.JPEG", (0, 0, 0), size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadInputError, match="damaged or no image"):
        decode(tmp_path / "x.JPEG")
