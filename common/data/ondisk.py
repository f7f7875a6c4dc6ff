"""Which real files a job reads, for its fingerprint: with other files it is another job."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from common.data.source import root
from common.files import digest, sha256


def on_disk(patterns: Iterable[str]) -> str:
    """Digest of names and bytes of the files that match, for the function that ``Stage.data`` names.

    It loads no library, as plans are made without. Of large sets let it see the lists and not the images.

    Args:
        patterns: of paths below ``root()``, as ``Path.glob`` takes them.

    Returns:
        "" where no file matches: a plan needs no data, and the job itself says what is missing and how to get it.
    """
    folder = root()
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    sums = [(path.relative_to(folder).as_posix(), _sum(path, path.stat().st_mtime_ns)) for path in found]
    return digest(sums) if sums else ""


@cache
def _sum(path: Path, modified: int) -> str:
    return sha256(path)
