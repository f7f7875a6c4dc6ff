from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from common.data import source as module
from common.data.source import DataFile, DataSource, human_size, manifest_digest, require, root
from common.errors import BadInputError

CONTENT = {"train.bin": b"train" * 100, "sub/test.bin": b"test"}
OLD = 1_600_000_000


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSource:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path / "data"))
    files = {name: DataFile(len(data), sha(data)) for name, data in CONTENT.items()}
    return DataSource(
        "toy", "A. Author, example.org/toy", "CC BY 4.0", 1_234_567_890, files, "ask the author"
    )


def put(source: DataSource, content: dict[str, bytes] = CONTENT) -> Path:
    folder = root() / source.name
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (OLD, OLD))
    return folder


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETHESIS_DATA", raising=False)
    assert root() == module.REPOSITORY / "data"
    assert (module.REPOSITORY / "pyproject.toml").exists()


def test_a_complete_set_is_its_folder(source: DataSource, tmp_path: Path) -> None:
    folder = put(source)
    assert require(source, tmp_path / "cache.json") == folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.bin": None}, "train.bin is missing"),
        ({"train.bin": b"train"}, "train.bin has 5 bytes instead of 500"),
        ({"sub/test.bin": b"tesT"}, f"sub/test.bin has SHA-256 {sha(b'tesT')[:12]}... instead of"),
        (None, "the folder is not there"),
    ],
)
def test_the_one_error_says_everything(
    source: DataSource, tmp_path: Path, change: dict[str, bytes | None] | None, message: str
) -> None:
    if change is not None:
        folder = put(source)
        for name, data in change.items():
            (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    for check in (require, manifest_digest):
        with pytest.raises(BadInputError) as raised:
            check(source, tmp_path / "cache.json")
        text = str(raised.value)
        needed = (message, str(root() / "toy"), "1.2 GB", "CC BY 4.0", "ask the author", "example.org/toy")
        for part in (*needed, "SCALE=laptop", "RETHESIS_DATA"):
            assert part in text


def test_many_missing_files_are_counted(source: DataSource, tmp_path: Path) -> None:
    files = {f"{number}.bin": DataFile() for number in range(50)}
    many = DataSource("many", "s", "l", 1, files, "h")
    (root() / "many").mkdir(parents=True)
    with pytest.raises(BadInputError, match="and 45 more"):
        require(many, tmp_path / "cache.json")


def test_the_digest_follows_content_names_and_sizes(source: DataSource, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    folder = put(source)
    unknown = DataSource("toy", "s", "l", 1, {name: DataFile() for name in CONTENT}, "h")
    rows = [[name, len(CONTENT[name]), sha(CONTENT[name])] for name in sorted(CONTENT)]
    expected = sha(json.dumps(rows, separators=(",", ":")).encode())
    assert manifest_digest(source, cache) == manifest_digest(unknown, cache) == expected
    (folder / "sub/test.bin").write_bytes(b"tesT")
    assert manifest_digest(unknown, cache) != expected


def test_a_file_is_read_once(source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(source)
    cache, read = tmp_path / "runs" / "cache.json", []

    def counting(path: Path) -> str:
        read.append(path.name)
        return sha(path.read_bytes())

    monkeypatch.setattr(module, "sha256", counting)
    first = manifest_digest(source, cache)
    assert (manifest_digest(source, cache), sorted(read)) == (first, ["test.bin", "train.bin"])
    cache.write_text("{ torn")
    assert manifest_digest(source, cache) == first
    assert len(read) == 4


def test_a_file_that_just_changed_is_not_cached(source: DataSource, tmp_path: Path) -> None:
    folder = put(source)
    (folder / "sub/test.bin").write_bytes(b"test")
    manifest_digest(source, tmp_path / "cache.json")
    keys = json.loads((tmp_path / "cache.json").read_text())
    assert [key.split(":")[0].rsplit("/", 1)[1] for key in keys] == ["train.bin"]


def test_sizes_for_people() -> None:
    given = [0, 999, 1000, 1_500_000, 6_400_000_000, 2.5e12]
    assert [human_size(size) for size in given] == ["0 B", "999 B", "1.0 kB", "1.5 MB", "6.4 GB", "2.5 TB"]
