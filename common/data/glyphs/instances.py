"""Instances of letters: image = a pure function of (seed, split, letter, index, size, look), the same to the byte.

An instance is a face's master, turned by θ, scaled by s and shifted by d pixels, in a contrast of its own, with
noise. Pixel p (from the image's centre) looks at the master's point q (from its centre), MASTER pixels to one:

    q = MASTER / s · R(−θ)(p − d),      image = ground + (ink − ground) · master(q) + σ ε

master(q) is bilinear; ε is the sum of four uniform bytes, nearly normal. Each instance owns a fixed number of words
of a random stream per (seed, split, letter). Arithmetic is in integers after a few float64 operations that
IEEE 754 rounds exactly (R from t = tan θ/2), so no vector unit and no thread count can change a byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, UInt8, UInt64
from numpy.typing import NDArray

from common.data.glyphs.draws import bits, uniform
from common.data.glyphs.faces import FACES, masters
from common.errors import BadInputError

MASTER = 2  # master pixels per image pixel
_PARAMETERS = 8  # words of an instance before its noise
_CHUNK = 1 << 17  # pixels at a time: what fits the cache
_ONE = 1 << 12  # fixed point of coordinates
_SD_OF_FOUR_BYTES = math.sqrt(4 * (256**2 - 1) / 12)


@dataclass(frozen=True)
class Look:
    """How much instances vary. Every draw is uniform.

    Attributes:
        rotation: largest angle to either side, in degrees.
        shift: largest shift in either direction, as a share of the image's side.
        scale: smallest and largest scale.
        ground: darkest and brightest background, 0 to 255.
        ink: darkest and brightest letter, 0 to 255.
        noise: smallest and largest standard deviation of a pixel's noise, in grey values.
    """

    rotation: float = 12.0
    shift: float = 0.05
    scale: tuple[float, float] = (0.85, 1.1)
    ground: tuple[float, float] = (0.0, 60.0)
    ink: tuple[float, float] = (150.0, 255.0)
    noise: tuple[float, float] = (5.0, 20.0)

    def __post_init__(self) -> None:
        ranges = (self.scale, self.ground, self.ink, self.noise)
        numbers = (self.rotation, self.shift, *(number for pair in ranges for number in pair))
        if not all(math.isfinite(number) and number >= 0 for number in numbers) or self.rotation > 90:
            raise BadInputError(f"a glyph's look must be finite, not negative and turn by at most 90: {self}")
        if any(low > high for low, high in ranges) or max(self.ground[1], self.ink[1]) > 255:
            raise BadInputError(f"a glyph's look has an empty range, or a grey value above 255: {self}")
        if not 0.1 <= self.scale[0] <= self.scale[1] <= 10 or self.shift > 1 or self.noise[1] > 100:
            raise BadInputError(
                f"a glyph's look must have scale from 0.1 to 10, shift <= 1, noise <= 100: {self}"
            )


STANDARD = Look()


def render(
    seed: int, split: str, letters: Sequence[int], count: int, size: int, look: Look = STANDARD
) -> UInt8[NDArray[np.uint8], "letters count size size"]:
    """The first `count` instances of each letter.

    Args:
        seed: of the data set.
        split: its name is part of each instance's key: other splits hold other instances.
        letters: code points.
        count: instances a letter; a larger count begins with the smaller one's images.
        size: the image's side in pixels, even.
        look: how much instances vary.
    """
    if size < 8 or size > 256 or size % 2:
        raise BadInputError(f"a glyph image's side must be even, from 8 to 256 pixels, not {size}")
    images = np.empty((len(letters), count, size, size), np.uint8)
    words = _PARAMETERS + size * size // 2
    step = max(1, _CHUNK // (size * size))
    for row, letter in enumerate(letters):
        source = masters([letter], MASTER * size)[0]
        drawn = bits(count * words, seed, "glyph", split, letter).reshape(count, words)
        for start in range(0, count, step):
            part = slice(start, start + step)
            images[row, part] = _instances(source, drawn[part], size, look)
    return images


def _instances(
    source: UInt8[NDArray[np.uint8], "faces side side"],
    words: UInt64[NDArray[np.uint64], "n words"],
    size: int,
    look: Look,
) -> UInt8[NDArray[np.uint8], "n size size"]:
    u = uniform(words[:, :_PARAMETERS]).T
    face = (u[0] * len(FACES)).astype(np.int32)
    mask = _warped(source, face, _inverse(u[1:5], size, look), size)
    ground, ink = (_fixed(_between(u[at], *pair), 256) for at, pair in ((5, look.ground), (6, look.ink)))
    sigma = _fixed(_between(u[7], *look.noise) / _SD_OF_FOUR_BYTES, 1 << 16)
    noise = words[:, _PARAMETERS:].view(np.uint8).reshape(-1, size * size, 4)
    # In units of 2^-16 grey values: ground and ink have 8 bits below the point, and the mask is 0 to 256.
    clean = ground[:, None] * 256 + (ink - ground)[:, None] * mask
    noisy = clean + sigma[:, None] * (noise.astype(np.int32).sum(axis=2, dtype=np.int32) - 510)
    return np.clip((noisy + (1 << 15)) >> 16, 0, 255).astype(np.uint8).reshape(-1, size, size)


def _inverse(
    u: Float64[NDArray[np.float64], "4 n"], size: int, look: Look
) -> Int32[NDArray[np.int32], "4 n"]:
    """Fixed-point (a, b, dx, dy): q = (a x + b y, a y − b x) with (x, y) = p − d in half pixels."""
    t = (2 * u[0] - 1) * math.tan(math.radians(look.rotation) / 2)
    zoom = MASTER / 2 / (_between(u[1], *look.scale) * (1 + t * t))
    dx, dy = (_fixed((2 * part - 1) * look.shift * 2 * size, 16) for part in u[2:])
    return np.stack([_fixed((1 - t * t) * zoom, _ONE), _fixed(2 * t * zoom, _ONE), dx, dy])


def _warped(
    source: UInt8[NDArray[np.uint8], "faces side side"],
    face: Int32[NDArray[np.int32], " n"],
    inverse: Int32[NDArray[np.int32], "4 n"],
    size: int,
) -> Int32[NDArray[np.int32], "n pixels"]:
    """The masters at each image's points, 0 to 256."""
    side = source.shape[-1]
    a, b, dx, dy = inverse
    half = 16 * np.arange(
        1 - size, size, 2, dtype=np.int32
    )  # pixel centres from the middle, in half pixels · 16
    x, y = half - dx[:, None], half - dy[:, None]
    shape = (len(face), size * size)
    middle = (side - 1) * _ONE // 2
    a, b = a[:, None, None], b[:, None, None]
    limit = (side - 1) * _ONE - 1
    qx = np.clip(((a * x[:, None, :] + b * y[:, :, None]) >> 4) + middle, 0, limit).reshape(shape)
    qy = np.clip(((a * y[:, :, None] - b * x[:, None, :]) >> 4) + middle, 0, limit).reshape(shape)
    column, row = qx // _ONE, qy // _ONE
    right, down = (qx % _ONE) >> 4, (qy % _ONE) >> 4  # 0 to 255
    at = (face[:, None] * side + row) * side + column
    flat = source.reshape(-1).astype(np.int32)
    above = flat[at] * (256 - right) + flat[at + 1] * right
    below = flat[at + side] * (256 - right) + flat[at + side + 1] * right
    grey = (above * (256 - down) + below * down + (1 << 15)) >> 16
    return grey + (grey >> 7)  # 255 becomes 256


def _between(u: Float64[NDArray[np.float64], " n"], low: float, high: float) -> NDArray[np.float64]:
    return low + u * (high - low)


def _fixed(values: Float64[NDArray[np.float64], " n"], one: int) -> Int32[NDArray[np.int32], " n"]:
    return np.rint(values * one).astype(np.int32)
