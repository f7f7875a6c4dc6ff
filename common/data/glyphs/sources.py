"""Which face each instance of a letter was drawn from: the sources of glyph images, for resampling by source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from common.data.glyphs.draws import bits, uniform
from common.data.glyphs.faces import FACES
from common.data.glyphs.instances import _PARAMETERS  # pyright: ignore[reportPrivateUsage]


def faces(
    seed: int, split: str, letters: Sequence[int], count: int, size: int
) -> Int64[NDArray[np.int64], "letters count"]:
    """The face, an index into FACES, of each instance that `render` draws with the same arguments."""
    words = _PARAMETERS + size * size // 2
    found = np.empty((len(letters), count), np.int64)
    for row, letter in enumerate(letters):
        first = bits(count * words, seed, "glyph", split, letter)[::words]
        found[row] = uniform(first) * len(FACES)
    return found
