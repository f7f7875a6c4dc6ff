"""Several programs in one process or one job: on its command line, and in the log that they share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

BETWEEN = "--"  # between the folders of two programs
HEADER = "== "  # begins the line of a log that names the program which speaks below


def programs_of(words: Sequence[str]) -> list[list[Path]]:
    """The folders of each program, from the words of a command line."""
    found: list[list[Path]] = [[]]
    for word in words:
        if word == BETWEEN:
            found.append([])
        else:
            found[-1].append(Path(word).resolve())
    return found


def header(folders: Sequence[Path]) -> str:
    """The line below which a program speaks in a log that it shares with others."""
    return HEADER + " ".join(folder.name for folder in folders)


def spoken(folder: Path, log: str) -> str:
    """The part of a log that the program of a job wrote; all of it if no other program did."""
    parts = re.split(f"^{HEADER}(.*)\n", log, flags=re.MULTILINE)
    return next(
        (text for names, text in zip(parts[1::2], parts[2::2], strict=True) if folder.name in names.split()),
        log,
    )
