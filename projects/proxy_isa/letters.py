"""Letters whose classes are drawn from the seed: the embedded data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.data.glyphs.dataset import floats
from common.data.glyphs.instances import STANDARD
from common.data.retrieval.glyph_retrieval import VARIED, GlyphRetrieval, Variant
from common.errors import unknown
from projects.proxy_isa.images import InMemory
from projects.proxy_isa.task import Task

LOOKS = {"standard": STANDARD, "varied": VARIED}


def task(seed: int, options: Mapping[str, Any]) -> Task:
    """Draw the classes and render the images of a seed.

    Args:
        seed: of everything.
        options: `train` and `test` classes, `images` fewest and most a class, `look`, `size`.

    Raises:
        BadInputError: an unknown look.
    """
    low, high = (int(count) for count in options["images"])
    unused = 1  # validation class: folds of the training classes are held out instead
    look = str(options["look"])
    if look not in LOOKS:
        raise unknown("data.look", look, LOOKS)
    variant = Variant(int(options["train"]), unused, int(options["test"]), (low, high), LOOKS[look])

    def part(split: Any) -> InMemory:
        drawn = GlyphRetrieval(seed, split, variant, int(options["size"]))
        return InMemory(floats(drawn.images), drawn.labels, drawn.classes)

    return Task(seed, part("train"), part("test"))
