"""Extraction of tar and zip archives that trusts nothing in them, and leaves a whole folder or none.

Only regular files and directories are ever created. A link inside a tar becomes a copy of the member that it
names, so that no write can pass through it.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from common.errors import BadInputError
from common.files import CHUNK, sync_folder

_COMPRESSED: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)
_LONGEST_READ = 64 << 20  # tarfile reads a header in one piece, however long it says that it is
_RATIO_FROM = 64 << 20  # small files of one repeated byte are no bomb


@dataclass(frozen=True)
class Limits:
    """Most entries, most bytes in total, most bytes per byte of the archive."""

    entries: int = 3_000_000
    size: int = 500 << 30
    ratio: float = 200.0


class _BadMember(Exception):
    """Why an archive is refused."""


def extract(archive: Path, folder: Path, limits: Limits = Limits()) -> Path:
    """Extract a tar (plain, gz, bz2, xz) or zip archive to `folder` and return it.

    A folder that is there already is complete, and returned as it is. Two processes wait for each other.

    Raises:
        BadInputError: the archive is damaged or unsafe: an absolute path or ``..``, a link that leaves the
            archive, a device, two names that differ only in case, too many entries or bytes. Nothing is
            left on disk.
        OSError: the disk is full or not writable; nothing is left either.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.extracting")
    with _locked(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            return folder
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            _unpack(archive, _Writer(partial, limits, archive.stat().st_size))
            os.sync()
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    sync_folder(folder.parent)
    return folder


def _unpack(archive: Path, writer: _Writer) -> None:
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, writer)
        else:
            _untar(archive, writer)
    except _BadMember as error:
        raise BadInputError(
            f"{archive} is not safe to extract: {error}. Get it again from its source."
        ) from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise BadInputError(f"{archive} is damaged or no archive ({error}). Get it again.") from error
    except (RuntimeError, NotImplementedError, ValueError, KeyError) as error:
        raise BadInputError(
            f"{archive} cannot be read ({error}): encrypted, or of an unknown kind."
        ) from error


@dataclass
class _Writer:
    """Creates checked files and directories under `folder`, and counts them."""

    folder: Path
    limits: Limits
    compressed: int
    entries: int = 0
    size: int = 0
    files: set[str] = field(default_factory=set[str])
    folders: dict[str, str] = field(default_factory=dict[str, str])

    def directory(self, name: str) -> None:
        """Create a directory and its parents."""
        parts = self._parts(name)
        self._enter(parts)
        self.folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes]) -> None:
        """Create a file; the bytes that come are counted, not those that a header promises."""
        parts = self._parts(name)
        if not parts:
            raise _BadMember(f"a file without a name, {name!r}")
        self._enter(parts[:-1])
        key = _fold(parts)
        if key in self.files or key in self.folders:
            raise _BadMember(f"{name!r} stands there twice, or differs from another only in case")
        self.files.add(key)
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while chunk := content.read(CHUNK):
                self._count(len(chunk))
                file.write(chunk)

    def _enter(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            key, exact = _fold(parts[:depth]), "/".join(parts[:depth])
            if key in self.files or self.folders.setdefault(key, exact) != exact:
                raise _BadMember(f"{exact!r} clashes with another name that differs only in case or kind")

    def _parts(self, name: str) -> tuple[str, ...]:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise _BadMember(f"more than {self.limits.entries:,} entries")
        path = PurePosixPath(name)
        drive = len(name) > 1 and name[1] == ":"
        if path.is_absolute() or drive or ".." in path.parts or "\\" in name or not name.isprintable():
            raise _BadMember(f"the name {name[:80]!r}")
        return path.parts

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self.limits.size:
            raise _BadMember(f"more than {self.limits.size:,} bytes")
        if self.size > max(_RATIO_FROM, self.limits.ratio * self.compressed):
            raise _BadMember(f"more than {self.limits.ratio:.0f} bytes per byte of the archive: a bomb")


def _untar(archive: Path, writer: _Writer) -> None:
    with archive.open("rb") as file:
        magic = file.read(6)
    opener = next((opener for mark, opener in _COMPRESSED if magic.startswith(mark)), open)
    with opener(archive, "rb") as stream, tarfile.open(fileobj=cast(Any, _Careful(stream)), mode="r:") as tar:
        for member in tar:
            if member.isdir():
                writer.directory(member.name)
            elif member.isreg() or member.islnk() or member.issym():
                writer.file(member.name, _content(tar, member))
            else:
                raise _BadMember(f"{member.name!r} is a device or of an unknown kind")
        # tarfile takes a cut or unreadable header for the end; the real end is a block of zeros.
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.TarError("it ends too early")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = tar.extractfile(member)
    except (KeyError, RecursionError):
        content = None
    if content is None:
        raise _BadMember(f"{member.name!r} links to {member.linkname!r}, which is no file of the archive")
    return content


def _unzip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                writer.directory(member.filename)
            elif kind in (0, stat.S_IFREG):
                with zipped.open(member) as content:
                    writer.file(member.orig_filename, content)
            else:
                raise _BadMember(f"{member.filename!r} is a link or a device")


class _Careful:
    """A stream that refuses to be read in one huge piece: a header may claim any length."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise _BadMember("a header of many megabytes")
        return self._read(size)


def _fold(parts: tuple[str, ...]) -> str:
    """The same for names that one file system or another would take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", "/".join(parts)).casefold())


@contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
