"""Data sets on disk: what is expected where, and one clear error when it is not there.

Never another data set instead, never a download behind the user's back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import BadInputError
from common.files import digest, read_json, sha256, write_json

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "results" / ".runs" / "data-digests.json"
_NAMED = 5
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class DataFile:
    """What is known of a file: its size in bytes and its SHA-256, None where the publisher gives none."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class DataSource:
    """A published data set.

    Attributes:
        name: its folder under `root`.
        source: who publishes it, and where.
        licence: its licence, or what its terms allow.
        size: of the whole in bytes, before the user starts to get it.
        files: path relative to the folder -> what is known of it.
        how_to_get: the steps, in a sentence or a command.
        scale_that_needs_none: the scale of the study that runs without it.
    """

    name: str
    source: str
    licence: str
    size: int
    files: Mapping[str, DataFile]
    how_to_get: str
    scale_that_needs_none: str = "laptop"


def root() -> Path:
    """The folder of all data sets: RETHESIS_DATA, or ``data/`` in the repository."""
    given = os.environ.get("RETHESIS_DATA", "")
    return Path(given).expanduser() if given else REPOSITORY / "data"


def require(source: DataSource, cache: Path = CACHE) -> Path:
    """The folder of a data set whose files are all there, of the right size and the right bytes.

    Raises:
        BadInputError: it is absent, incomplete or damaged; the message says what is wrong, the path, the
            size, the licence, how to get it, and the scale that needs none.
    """
    _verified(source, cache)
    return root() / source.name


def manifest_digest(source: DataSource, cache: Path = CACHE) -> str:
    """Digest of names, sizes and SHA-256 of a data set's files: its part of a fingerprint.

    A file is read once; `cache` keeps its SHA-256 by path, size and modification time (nanoseconds).

    Raises:
        BadInputError: as `require`.
    """
    return digest(_verified(source, cache))


def _verified(source: DataSource, cache: Path) -> list[tuple[str, int, str]]:
    """(path, size, sha256) of each file, sorted by path."""
    folder = root() / source.name
    if not folder.is_dir():
        raise absent(source, ["the folder is not there"])
    sizes = {name: _size(folder / name) for name in sorted(source.files)}
    wrong = [_wrong_size(name, size, source.files[name]) for name, size in sizes.items()]
    if any(wrong):
        raise absent(source, [text for text in wrong if text])
    sums = _cached_sums([folder / name for name in sizes], cache)
    found = [(name, size or 0, total) for (name, size), total in zip(sizes.items(), sums, strict=True)]
    wrong = [_wrong_sum(name, total, source.files[name]) for name, _, total in found]
    if any(wrong):
        raise absent(source, [text for text in wrong if text])
    return found


def _cached_sums(paths: list[Path], cache: Path) -> list[str]:
    known = _read_cache(cache)
    sums = {path: _key(path) for path in paths}
    new: dict[str, str] = {}
    for path, key in sums.items():
        sums[path] = known.get(key) or sha256(path)
        # A file that changed just now may change again within the same tick of the clock.
        if key not in known and time.time_ns() - path.stat().st_mtime_ns > _SETTLED_NS and _key(path) == key:
            new[key] = sums[path]
    if new:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, _read_cache(cache) | new)
    return [sums[path] for path in paths]


def _read_cache(cache: Path) -> dict[str, str]:
    try:
        return read_json(cache)
    except (OSError, ValueError):
        return {}


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _wrong_size(name: str, size: int | None, expected: DataFile) -> str:
    if size is None:
        return f"{name} is missing"
    if expected.size is not None and size != expected.size:
        return f"{name} has {size:,} bytes instead of {expected.size:,}"
    return ""


def _wrong_sum(name: str, found: str, expected: DataFile) -> str:
    if expected.sha256 is None or found == expected.sha256.lower():
        return ""
    return f"{name} has SHA-256 {found[:12]}... instead of {expected.sha256[:12]}..."


def absent(source: DataSource, wrong: list[str]) -> BadInputError:
    """The one error for a data set that is not there as it should be; `wrong` says what is, a phrase each."""
    shown = "; ".join(wrong[:_NAMED])
    more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return BadInputError(
        f"data set {source.name!r} in {root() / source.name} (RETHESIS_DATA chooses the folder above it): "
        f"{shown}{more}.\n"
        f"  source   {source.source}\n"
        f"  size     {human_size(source.size)}\n"
        f"  licence  {source.licence}\n"
        f"  get it   {source.how_to_get}\n"
        f"  without  SCALE={source.scale_that_needs_none} needs no data set"
    )


def human_size(size: float) -> str:
    """Bytes for a person, decimal units: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
