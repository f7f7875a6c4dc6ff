"""Memory for a network's values: two that never live at the same time share it.

A value with a border shares with values of its own layout alone, since the border's zeros are written only once; one
without a border is overwritten as a whole, padded channels included, and shares with any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.packing import aligned

Step = tuple[Sequence[str], str]
"""What a step reads, and what it writes."""


def allocate(
    layouts: Mapping[str, Layout], steps: Sequence[Step], same: Mapping[str, str], kept: Sequence[str]
) -> dict[str, Buffer]:
    """A buffer for every value.

    Args:
        same: values that are another value's memory.
        kept: values that live from the first step to the last: the images and the logits.
    """

    def root(value: str) -> str:
        while value in same:
            value = same[value]
        return value

    last = {root(value): index for index, (reads, writes) in enumerate(steps) for value in (*reads, writes)}
    last |= {root(value): len(steps) for value in kept}
    free: dict[Layout | None, list[NDArray[np.uint8]]] = {}
    held: dict[str, NDArray[np.uint8]] = {}
    order = [*kept, *(writes for _, writes in steps)]
    ends: dict[int, list[str]] = {}
    for value, index in last.items():
        ends.setdefault(index, []).append(value)
    for index, value in enumerate(order, -len(kept)):
        if root(value) not in held:
            held[root(value)] = _take(free, layouts[root(value)])
        for dead in ends.get(index, []):
            free.setdefault(_class(layouts[dead]), []).append(held[dead])
    return {
        value: Buffer(layout, held[root(value)]) for value, layout in layouts.items() if root(value) in held
    }


def images(buffer: Buffer, first: int, count: int) -> Buffer:
    """The same memory as a buffer of `count` images from `first` on; one that holds only as many is returned as is."""
    layout = buffer.layout
    if layout.batch == count:
        return buffer
    start = first * layout.strides[0]
    return Buffer(replace(layout, batch=count), piece(buffer)[start : start + count * layout.strides[0]])


def piece(buffer: Buffer) -> NDArray[np.uint8]:
    """The memory behind a buffer, in bytes."""
    return buffer.array.reshape(-1).view(np.uint8)


def _class(layout: Layout) -> Layout | None:
    """What a piece of memory may be used for again: any layout without a border, or this one."""
    return layout if any(layout.border) else None


def _take(free: dict[Layout | None, list[NDArray[np.uint8]]], layout: Layout) -> NDArray[np.uint8]:
    """The piece freed last that is large enough, for it is the warmest; else a new one."""
    pieces = free.get(_class(layout), [])
    for index in reversed(range(len(pieces))):
        if pieces[index].nbytes >= layout.nbytes:
            return pieces.pop(index)
    return aligned((layout.nbytes,), np.uint8)  # type: ignore[return-value]
