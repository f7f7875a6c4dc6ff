"""Masters: each letter in each face, centred in a square and brought to one size, drawn by Pillow's FreeType.

Letters that differ only in size or height (c and C) become alike on purpose: an instance's scale and shift are
random, so size could not tell them apart anyway. `lookalikes` drops one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
)
FILL = 0.66  # longest side of a letter, as a share of its master: room for rotation, scale and shift
_EM = 160  # pixels; hinting moves an outline by less than half a pixel of these


def face_path(face: str) -> Path:
    """The font file of a face, in the installed matplotlib."""
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


@lru_cache(maxsize=20_000)
def master(face: str, letter: int, side: int) -> UInt8[NDArray[np.uint8], "side side"]:
    """The ink (0 to 255) of a code point in a face, its box centred, its longest side FILL of the master's.

    Raises:
        ValueError: the face draws nothing for it.
    """
    font, text = _font(face), chr(letter)
    left, top, right, bottom = font.getbbox(text)  # holds the ink, and often more: the advance
    drawn = Image.new("L", (max(1, math.ceil(right - left)), max(1, math.ceil(bottom - top))))
    ImageDraw.Draw(drawn).text((-left, -top), text, fill=255, font=font)
    box = drawn.getbbox()
    if box is None:
        raise ValueError(f"{face} draws nothing for U+{letter:04X}")
    ink = drawn.crop(box)
    canvas = round(max(ink.size) / FILL)
    image = Image.new("L", (canvas, canvas))
    image.paste(ink, ((canvas - ink.width) // 2, (canvas - ink.height) // 2))
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    small.setflags(write=False)
    return small


def masters(letters: Sequence[int], side: int) -> UInt8[NDArray[np.uint8], "letters faces side side"]:
    """The masters of some code points in every face, in the order of FACES."""
    return np.stack([np.stack([master(face, letter, side) for face in FACES]) for letter in letters])


@lru_cache(maxsize=len(FACES))
def _font(face: str) -> ImageFont.FreeTypeFont:
    # The basic layout: one code point, one glyph; the other one is a shared library of the host.
    return ImageFont.truetype(face_path(face), _EM, layout_engine=ImageFont.Layout.BASIC)
