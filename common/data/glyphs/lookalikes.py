"""Which letters look alike, measured on their masters in all faces: ``python -m common.data.glyphs.lookalikes``.

Candidates are the code points of category L (letters) that every face draws. The distance of two letters is that
of Jaccard on grey values, over the pixels p of the masters in all faces:

    d(a, b) = sum_p |a_p - b_p| / sum_p max(a_p, b_p)        0: the same; 1: no ink in common

Letters are taken in the order of their code points (so Latin goes before Greek and Cyrillic), and one is kept
when its distance from every letter kept before is at least THRESHOLD. All sums are of integers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from common.data.glyphs.faces import FACES, face_path, masters

SIDE = 16  # the usual size: letters that differ at it are classes there and above, but may look alike at 8
THRESHOLD = 0.35


def candidates() -> list[int]:
    """Code points of the letters that every face has, ascending."""
    from matplotlib.ft2font import FT2Font

    charmaps = [cast(dict[int, int], FT2Font(str(face_path(face))).get_charmap()) for face in FACES]
    shared = [point for point in charmaps[0] if all(point in charmap for charmap in charmaps)]
    return sorted(point for point in shared if unicodedata.category(chr(point))[0] == "L")


def distances(
    ink: Int[NDArray[np.int16], " pixels"], others: Int[NDArray[np.int16], "letters pixels"]
) -> NDArray[np.float64]:
    """The distance of one letter from each of some others, float64 [letters]."""
    apart = np.abs(others - ink).sum(axis=1)
    return 2 * apart / (ink.sum() + others.sum(axis=1) + apart)  # max(a, b) = (a + b + |a - b|) / 2


def distinct(letters: Sequence[int], threshold: float = THRESHOLD) -> list[int]:
    """Those of `letters` that no letter before them looks like."""
    inks = masters(letters, SIDE).reshape(len(letters), -1).astype(np.int16)
    kept: list[int] = []
    for number in range(len(letters)):
        if not kept or distances(inks[number], inks[kept]).min() >= threshold:
            kept.append(number)
    return [letters[number] for number in kept]


def spans(letters: Sequence[int]) -> str:
    """Ascending code points as hexadecimal spans: ``41-5a 61 63``."""
    parts: list[list[int]] = []
    for letter in letters:
        if parts and parts[-1][1] == letter - 1:
            parts[-1][1] = letter
        else:
            parts.append([letter, letter])
    return " ".join(f"{first:x}" if first == last else f"{first:x}-{last:x}" for first, last in parts)


if __name__ == "__main__":
    print(spans(distinct(candidates())))
