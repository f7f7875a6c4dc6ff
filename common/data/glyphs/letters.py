"""The letters that are classes, and their draw from a seed.

LETTERS is what ``python -m common.data.glyphs.lookalikes`` prints, kept here so that no job measures it again and
so that the classes are part of the code that a fingerprint covers; a test measures it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.data.glyphs.draws import bits
from common.errors import BadInputError

LETTERS = """
41-45 48-4d 50-5a 61-62 64-67 69-6b 6d-6e 72 74-75 79 aa b5 c0 c6-c8 cc d1-d2 d8-d9 dd-e0 e5-e6 e8 ed ef-f1
f9 fd-fe 104-107 10f 118-119 11d 122 124-125 12e 132-137 139-13c 13e 140-141 145-146 149-14a 152 154-157
15a-15b 15e 163-165 16f 172-175 179-17a 181 184 186-188 18a-18b 18f-192 194-196 19b-19d 1a0-1a4 1a6-1a7
1a9-1aa 1ae-1b1 1b3-1b4 1b7-1b8 1ba-1bb 1be 1c0-1c2 1d7 1e0 1e2-1e3 1e8-1e9 1eb-1ee 1f6 1ff 211 219 21c 221
224 22a-22b 234-23b 23e 240-241 255-256 25a 25c-25d 25f-260 262 264 267 26a 26c-274 277-27b 27e-27f 281
285-287 289 28c-28e 290-291 294-295 297 29b 29d-29e 2a3-2a4 2a6-2af 2b1 2b7 2b9 2bd-2bf 2c6-2c7 2c9 2d0-2d1
2e0 2e3 2ee 37a 388-38a 38c 38e 390 39e 3a6 3a8-3a9 3ac 3af-3b0 3b2 3b6 3b8 3bd 3c0-3c2 3c4 3c6-3c7 3c9-3cb
3ce 3d2-3d4 3d6-3d7 3db 3de-3e1 3f0 3fb 402-403 409 40b 40e-40f 414 416 41b 427 429 42b 42e-42f 433-434
43a-43c 444 446 449-44c 452 459-45c 462-463 490-492 495-496 498 49a 4a2 4a4-4a5 4ad 4b2 4ba 4c1-4c3 4c7 4cb
4db 4de-4df 4e3 4f4-4f6 4f8-4f9 533 535-53b 53d-540 542-543 546-547 549-54a 54c 54e 552 554 556 562 565-567
569 56c-56d 571 573-574 576-577 579 584 587 10d0-10d4 10d6-10da 10dc 10df-10e5 10e9-10ed 10ef-10f6 10f8-10fa
1d09 1d16-1d17 1d1d-1d1f 1d3b 1d44-1d45 1d4a-1d4b 1d51 1d53 1d5b 1d85 1d9b 1da1 1da5 1dab 1db3 1db7 1db9
1dbb 1e03-1e04 1e08-1e09 1e0c-1e0d 1e1c-1e1d 1e1f-1e20 1e28-1e29 1e2d 1e38-1e39 1e3b 1e3e-1e3f 1e42 1e54
1e5c-1e5d 1e5f 1e68-1e69 1e6b 1e73 1e7c-1e7e 1e88 1e8a-1e8b 1e93 1eac-1ead 1ecb 1eda 1edd 1ee2-1ee3
1ee8-1ee9 1ef0-1ef1 1ef4 1f06 1f08 1f0a 1f0c 1f0f-1f10 1f15 1f1a 1f1c 1f20 1f26 1f2a 1f2e 1f30 1f34 1f36
1f39-1f3a 1f3c 1f3e 1f4a 1f4c 1f59 1f5b 1f5f 1f66 1f68 1f6e 1f80 1f86 1f88 1f8a 1f8c 1f8f 1f98 1f9a 1f9e
1fa0 1fa6 1fa8 1faa 1fac 1fae 1fd2 1fe4 1fec 1ff3 1ffa 1ffc 2c6d 2c75 a71b-a71c a78b a790 a7aa a7f9 fb01
"""


def letters() -> list[int]:
    """Code points of all letters that may be a class, ascending."""
    found: list[int] = []
    for span in LETTERS.split():
        first, _, last = span.partition("-")
        found += range(int(first, 16), int(last or first, 16) + 1)
    return found


def draw_classes(seed: int, *counts: int) -> list[list[int]]:
    """Disjoint groups of code points, of `counts` letters each, drawn from all letters by the seed.

    One group is a classification's classes; three are the class-disjoint splits of a retrieval. A group of the
    first n letters is part of a group of the first n + 1.

    Raises:
        BadInputError: a count is not positive, or there are not enough letters.
    """
    pool = letters()
    if not counts or min(counts) <= 0:
        raise BadInputError(f"the number of glyph classes must be positive, not {counts}")
    if sum(counts) > len(pool):
        raise BadInputError(f"{sum(counts)} glyph classes were asked for; there are {len(pool)}")
    order = shuffled(pool, seed)
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return [order[end - count : end] for end, count in zip(ends, counts, strict=True)]


def shuffled(pool: Sequence[int], seed: int) -> list[int]:
    """The pool in the order of one random number a letter."""
    keys = {letter: int(bits(1, seed, "class", letter)[0]) for letter in pool}
    return sorted(pool, key=lambda letter: (keys[letter], letter))
