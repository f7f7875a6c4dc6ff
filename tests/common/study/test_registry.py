"""The list of submissions: whole lines or none, whatever the disk does."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from common.study.registry import REGISTRY, append, entries

FIRST, SECOND = {"id": "1", "folders": ["/a"]}, {"id": "2", "folders": ["/b"]}


def test_a_write_that_takes_a_part_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:5]))
    append(tmp_path, FIRST)
    append(tmp_path, SECOND)
    assert entries(tmp_path) == [FIRST, SECOND]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, FIRST)
    before, write = (tmp_path / REGISTRY).read_bytes(), os.write

    def full(descriptor: int, data: bytes) -> int:
        if (tmp_path / REGISTRY).stat().st_size >= len(before) + 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, bytes(data)[:5])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        append(tmp_path, SECOND)
    assert (tmp_path / REGISTRY).read_bytes() == before


@pytest.mark.parametrize("torn", [b'{"id": "3", "fol', b"\0\0\0", b"\xff\xfe", b"3"])
def test_a_torn_line_is_skipped_and_swallows_no_other(tmp_path: Path, torn: bytes) -> None:
    append(tmp_path, FIRST)
    with (tmp_path / REGISTRY).open("ab") as file:
        file.write(torn)
    assert entries(tmp_path) == [FIRST]
    append(tmp_path, SECOND)
    assert entries(tmp_path) == [FIRST, SECOND]


def test_lines_written_at_once_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    threads = [threading.Thread(target=append, args=(tmp_path, {"id": str(n)})) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(entry["id"]) for entry in entries(tmp_path)) == list(range(16))


def test_nothing_was_submitted(tmp_path: Path) -> None:
    assert entries(tmp_path) == []
