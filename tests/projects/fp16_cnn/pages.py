"""Work whose page faults are known, so that what the system counts can be checked."""

from __future__ import annotations

import mmap

PAGES = 64
SLACK = 8
"""Faults of the interpreter's own that may fall into a measurement."""


def touch() -> None:
    """Write to `PAGES` fresh pages: each is one page fault."""
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
