from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.retrieval.images import (
    damage,
    eval_crop,
    floats,
    is_resource_fork,
    read_rgb,
    train_augment,
    train_crop,
)
from common.errors import BadInputError
from common.training.seeds import generator

COLOUR = (204, 102, 51)  # one of the web's palette
GREY = round(0.299 * 204 + 0.587 * 102 + 0.114 * 51)
CASES = {
    "jpeg": ("RGB", "JPEG", COLOUR),
    "grey jpeg": ("L", "JPEG", (GREY,) * 3),
    "CMYK jpeg": ("CMYK", "JPEG", COLOUR),
    "RGBA png": ("RGBA", "PNG", COLOUR),
    "grey and alpha png": ("LA", "PNG", (GREY,) * 3),
    "palette png": ("P", "PNG", COLOUR),
    "palette gif": ("P", "GIF", COLOUR),
    "bmp": ("RGB", "BMP", COLOUR),
    "webp": ("RGB", "WEBP", COLOUR),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mode_becomes_rgb(tmp_path: Path, picture: Callable[..., None], case: str) -> None:
    mode, kind, expected = CASES[case]
    picture(tmp_path / "x.jpg", COLOUR, mode, kind=kind)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.mode == mode
    pixels = read_rgb(tmp_path / "x.jpg")
    assert (pixels.shape, pixels.dtype) == ((3, 8, 12), torch.uint8)
    assert (pixels.int() - torch.tensor(expected)[:, None, None]).abs().max() <= 4
    assert damage(tmp_path / "x.jpg") == ""


def test_black_and_white_and_deep_grey(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "1.png")
    assert torch.equal(read_rgb(tmp_path / "1.png")[2], 255 * torch.eye(8, dtype=torch.uint8))
    deep = np.array([[0, 255], [256, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "16.png")
    assert read_rgb(tmp_path / "16.png")[1].tolist() == [[0, 0], [1, 255]]


def test_what_is_transparent_becomes_white(tmp_path: Path, picture: Callable[..., None]) -> None:
    for alpha, red in ((0, 255), (255, 204), (51, 245)):
        picture(tmp_path / "x.png", (*COLOUR, alpha), "RGBA", kind="PNG")
        assert abs(int(read_rgb(tmp_path / "x.png")[0, 0, 0]) - red) <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=bytes([255, 0]))
    assert read_rgb(tmp_path / "p.png").unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damage_is_found_wherever_a_file_is_cut(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(path, kind)
    whole = path.read_bytes()
    bad = 0
    for cut in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:cut])
        if damage(path):
            bad += 1
            with pytest.raises(BadInputError, match=r"x.jpg is damaged or no image"):
                read_rgb(path)
        else:
            assert read_rgb(path).shape == (3, 24, 24)
    assert bad > len(whole) / 7 - 5


def test_what_is_no_image(
    tmp_path: Path, picture: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.jpg").write_bytes(b"<html>Not found</html>")
    picture(tmp_path / "large.jpg", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name in ("text.jpg", "large.jpg", "absent.jpg"):
        assert damage(tmp_path / name)
        with pytest.raises(BadInputError, match=rf"{name} is damaged or no image .*on_damage='skip'"):
            read_rgb(tmp_path / name)


def test_resource_forks() -> None:
    assert is_resource_fork("images/001.A/._a.jpg")
    assert not is_resource_fork("._001/a.jpg")
    assert not is_resource_fork("a._b.jpg")


def test_the_training_crop_is_a_function_of_the_generator() -> None:
    image = torch.rand(3, 300, 400, generator=generator(0))
    before = torch.get_rng_state()
    crops = [train_crop(image, generator(1, "augment", step, 5)) for step in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])
    assert all(crop.shape == (3, 224, 224) and crop.min() >= 0 and crop.max() <= 1 for crop in crops)
    again, label = train_augment((image, 7), generator(1, "augment", 3, 5))
    assert (torch.equal(again, crops[0]), label) == (True, 7)


def test_the_training_crop_covers_and_flips() -> None:
    ramp = torch.linspace(0, 1, 320).expand(3, 240, 320)
    crops = [train_crop(ramp, generator(number)) for number in range(40)]
    ends = torch.tensor([[float(crop[0, 0, 0]), float(crop[0, 0, -1])] for crop in crops])
    flipped = (ends[:, 0] > ends[:, 1]).float().mean()
    width = (ends[:, 0] - ends[:, 1]).abs()
    assert 0.25 < flipped < 0.75
    assert width.min() < 0.45 and width.max() > 0.8  # 0.08 to all of the area


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (60, 90)])
def test_the_evaluation_crop_is_pillows(size: tuple[int, int]) -> None:
    width, height = size
    noise = np.random.default_rng(1).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    scale = 256 / min(size)
    small = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in small.size)
    expected = np.asarray(small.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    found = eval_crop(floats(torch.from_numpy(np.array(image)).permute(2, 0, 1)))
    assert (found.shape, found.dtype) == ((3, 224, 224), torch.float32)
    assert np.abs(255 * found.numpy() - expected).max() < 2
