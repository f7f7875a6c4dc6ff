"""What was submitted to a scheduler: one line a submission in the engine's folder. It outlives the front door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.study import lines

REGISTRY = "submitted.jsonl"


def append(engine: Path, entry: Mapping[str, Any]) -> None:
    """Add a submission, whole or not at all; "id" is its first key, where status.sh looks for it.

    Raises:
        OSError: the disk is full, for example; the file is what it was.
    """
    lines.append(engine / REGISTRY, entry)


def entries(engine: Path) -> list[dict[str, Any]]:
    """The submissions, oldest first; a torn line is skipped."""
    return lines.read(engine / REGISTRY)
