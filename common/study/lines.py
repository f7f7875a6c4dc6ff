"""Files of one JSON object a line, to which several processes append and which outlive a full disk and a power cut."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry, as a whole line or not at all.

    Raises:
        OSError: the disk is full, for example; the file is what it was.
    """
    line = json.dumps(entry).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # no other process's line between two parts of this one
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # a torn line would swallow this one
        try:
            _write(descriptor, line)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """The entries, oldest first; a torn line is skipped, and without a file there are none."""
    found: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(cast(dict[str, Any], entry))
    return found


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest.nbytes:  # only a nearly full disk or a quota writes less than asked
        rest = rest[os.write(descriptor, rest) :]
