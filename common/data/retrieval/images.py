"""Photographs as tensors: any image file as RGB, the field's training and evaluation crops, and damaged files.

Values are RGB in [0, 1]. What a backbone wants beyond that (BN-Inception: BGR, [0, 255], less the mean) is its own
matter. Orientation tags are not applied: the published figures were made without them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from common.errors import BadInputError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
RESIZED, SIDE = 256, 224
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error),
    Image.DecompressionBombError,
)

Transform = Callable[[Float32[Tensor, "3 height width"]], Float32[Tensor, "3 side side"]]

_TRAIN = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()])
_EVAL = v2.Compose([v2.Resize(RESIZED, antialias=True), v2.CenterCrop(SIDE)])


def read_rgb(path: Path) -> UInt8[Tensor, "3 height width"]:
    """The image in a file as RGB, uint8.

    Grey, palette and CMYK images are converted, 16-bit grey ones divided by 256, transparent pixels laid on white;
    of an animation it is the first frame.

    Raises:
        BadInputError: it is missing, truncated, damaged, gigantic or no image; the message names it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.array(_as_rgb(image))
    except _DAMAGE as error:
        raise BadInputError(
            f"{path} is damaged or no image ({error}). Get it again, or leave such files out with on_damage='skip'."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def damage(path: Path) -> str:
    """What is wrong with an image file, "" if it can be decoded to its end.

    It decodes the whole file, since the header of a truncated JPEG is sound; JPEGs at an eighth of their size,
    which reads every byte and skips most of the arithmetic.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (1, 1))
            _as_rgb(image)
    except _DAMAGE as error:
        return str(error) or type(error).__name__
    return ""


def is_resource_fork(path: str) -> bool:
    """Whether a file is what macOS leaves beside a file when it packs an archive: ``._name``, never an image."""
    return path.replace("\\", "/").rpartition("/")[2].startswith("._")


def floats(image: UInt8[Tensor, "3 height width"]) -> Float32[Tensor, "3 height width"]:
    """Grey values 0 to 255 as float32 in [0, 1]."""
    return image.float() / 255


def train_crop(
    image: Float32[Tensor, "3 height width"], generator: torch.Generator
) -> Float32[Tensor, "3 224 224"]:
    """torchvision's RandomResizedCrop(224) and RandomHorizontalFlip, a pure function of the generator's state.

    Args:
        image: RGB of any size.
        generator: on the CPU; one number is drawn from it. The global generator is left as it was.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators, too
        return _TRAIN(image)


def train_augment(
    sample: tuple[Float32[Tensor, "3 height width"], int], generator: torch.Generator
) -> tuple[Float32[Tensor, "3 224 224"], int]:
    """``train_crop`` of an (image, label), as ``common.training.data.Keyed`` wants it."""
    image, label = sample
    return train_crop(image, generator), label


def eval_crop(image: Float32[Tensor, "3 height width"]) -> Float32[Tensor, "3 224 224"]:
    """The middle 224 × 224 of the image whose shorter side was brought to 256."""
    return _EVAL(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(deep.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")
