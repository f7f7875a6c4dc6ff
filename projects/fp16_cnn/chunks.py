"""Where a batch should be worked through image by image, and from where on together.

The values of a whole batch leave the caches before they are read again, those of one image may not. Weights are read
once for each image then, which costs nothing where the multiplications take longer than the reading, as in
convolutions, and much in the last, fully connected layers. So the first nodes run for one image after the other, the
rest for all at once; the border between them is where the time estimated below is least.
"""

from __future__ import annotations

import bisect
import itertools
from functools import cache
from pathlib import Path

from projects.fp16_cnn.packing import padded
from projects.fp16_cnn.precision import BYTES
from projects.fp16_cnn.program import Flatten, Layer, Plan, Program, precisions, storages

RATES = (200e9, 60e9, 20e9)
"""Bytes a second of one core from the second cache, the last cache and memory, about: only their ratios matter."""
PEAK = 100e9
"""Operations a second of one core in fp32, about."""
LEVELS = (1 << 20, 16 << 20)  # bytes of the two caches, where the operating system does not say
SHARE = 0.5  # of a cache that a value may take to be found there again


@cache
def caches() -> tuple[int, int]:
    """Bytes of the second and of the largest cache."""
    sizes: dict[str, int] = {}
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index[23]"):
        text = (path / "size").read_text(encoding="ascii").strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes[path.name] = int(text[:-1]) << 10
    return sizes.get("index2", LEVELS[0]), max(sizes.get("index3", LEVELS[1]), sizes.get("index2", LEVELS[0]))


def together_from(program: Program, plan: Plan | None, batch: int) -> int:
    """The index of the first node that runs for all images at once; the nodes before it run image by image."""
    if batch == 1:
        return 0
    chosen, stored = precisions(program, plan), storages(program, plan)
    levels = [SHARE * size for size in caches()]

    def size(value: str) -> int:
        channels, height, width = program.extent(value)
        return padded(channels) * height * width * BYTES[stored[value]]

    def seconds(amount: float) -> float:
        return amount / RATES[bisect.bisect(levels, amount)]

    sizes = {layer.name: layer.weight.numel() * BYTES[chosen[layer.name].weights] for layer in program.layers}
    alone, together = [0.0], [0.0]
    for node in program.nodes:
        values = sum(map(size, (*node.inputs, node.name)))
        weights = sizes.get(node.name, 0) / RATES[-1]  # all others have been read since
        work = node.shape.flops / node.shape.batch / PEAK if isinstance(node, Layer) else 0.0
        alone.append(batch * (max(0.0, weights - work) + seconds(values)))
        together.append(max(0.0, weights - batch * work) + seconds(batch * values))
    before = itertools.accumulate(alone)
    after = list(itertools.accumulate(reversed(together[1:]), initial=0.0))[::-1]
    costs = [early + late for early, late in zip(before, after, strict=True)]
    return min(borders(program), key=costs.__getitem__)


def borders(program: Program) -> list[int]:
    """Where a program may be cut: not behind a vector that is an image's memory, which its reader must know."""
    nodes = program.nodes
    return [index for index in range(len(nodes)) if not index or not isinstance(nodes[index - 1], Flatten)]
