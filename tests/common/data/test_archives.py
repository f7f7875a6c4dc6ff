from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from common.data.archives import Limits, extract
from common.errors import BadInputError


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"x"
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def tar_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


def zip_of(path: Path, *names: str, attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.external_attr = attributes << 16
            zipped.writestr(info, b"../../outside")
    return path


def refuses(archive: Path, limits: Limits | None = None) -> str:
    """Extract into tmp/a/b/out; nothing may remain, inside or outside. Return the message."""
    base = archive.parent / "a"
    before = set(archive.parent.rglob("*"))
    with pytest.raises(BadInputError) as raised:
        extract(archive, base / "b" / "out", limits or Limits())
    left = set(archive.parent.rglob("*")) - before
    assert left == {base, base / "b", base / "b" / ".out.lock"}
    return str(raised.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_tar(tmp_path: Path, mode: str) -> None:
    archive = tar_of(
        tmp_path / "good",
        entry("d/", tarfile.DIRTYPE),
        entry("d/one", data=b"1" * 100_000),
        entry("./two", data=b"2"),
        entry("deep/er/three", data=b""),
        entry("hard", tarfile.LNKTYPE, "d/one"),
        entry("d/soft", tarfile.SYMTYPE, "../two"),
        mode=mode,
    )
    folder = extract(archive, tmp_path / "out")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "d/one": b"1" * 100_000, "two": b"2", "deep/er/three": b"", "hard": b"1" * 100_000, "d/soft": b"2",
    }  # fmt: skip
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert (folder / "hard").stat().st_nlink == 1


def test_a_good_zip_and_a_second_time(tmp_path: Path) -> None:
    archive = tmp_path / "good.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("d/", b"")
        zipped.writestr("d/ünï.txt", b"1" * 1000)
    folder = extract(archive, tmp_path / "out")
    assert (folder / "d" / "ünï.txt").read_bytes() == b"1" * 1000
    (folder / "mark").touch()
    assert extract(archive, tmp_path / "out") == folder
    assert (folder / "mark").exists()


NAMES = [
    "../evil",
    "/tmp/evil",
    "a/../../evil",
    "..",
    "a/..",
    "C:/evil",
    "..\\evil",
    "a\\b",
    "nul\x01",
    "two\nlines",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_escape(tmp_path: Path, name: str) -> None:
    assert "not safe" in refuses(tar_of(tmp_path / "x.tar", entry(name)))
    if name != "..":
        assert "not safe" in refuses_zip(tmp_path, name)


def refuses_zip(tmp_path: Path, name: str) -> str:
    other = tmp_path / "zip"
    other.mkdir()
    return refuses(zip_of(other / "x.zip", name))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "..", "absent", "self", "d"])
def test_links_that_leave_the_archive(tmp_path: Path, kind: bytes, target: str) -> None:
    archive = tar_of(tmp_path / "x.tar", entry("d", tarfile.DIRTYPE), entry("self", kind, target))
    assert "links to" in refuses(archive)


def test_writing_through_a_link(tmp_path: Path) -> None:
    inside = entry("real/x"), entry("dir", tarfile.SYMTYPE, "real/x"), entry("dir/y")
    assert "clashes" in refuses(tar_of(tmp_path / "x.tar", *inside))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices(tmp_path: Path, kind: bytes) -> None:
    info, _ = entry("dev", kind)
    assert "device" in refuses(tar_of(tmp_path / "x.tar", (info, b"")))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip(tmp_path: Path, kind: int) -> None:
    assert "link or a device" in refuses(zip_of(tmp_path / "x.zip", "evil", attributes=kind | 0o777))


@pytest.mark.parametrize(
    "pair", [("a", "A"), ("a/x", "A/y"), ("a", "a"), ("a", "a/b"), ("ß", "SS"), ("é", "e\u0301")]
)
def test_names_that_clash(tmp_path: Path, pair: tuple[str, str]) -> None:
    refuses(tar_of(tmp_path / "x.tar", *(entry(name) for name in pair)))


def test_caps(tmp_path: Path) -> None:
    many = tar_of(tmp_path / "x.tar", *(entry(f"f{i}") for i in range(20)))
    assert "more than 19 entries" in refuses(many, Limits(entries=19))


@pytest.mark.parametrize("pack", ["tar", "zip"])
def test_bombs_stop_at_the_cap(tmp_path: Path, pack: str) -> None:
    zeros = bytes(80 << 20)
    if pack == "tar":
        archive = tar_of(tmp_path / "x", entry("zeros", data=zeros), mode="w:gz")
    else:
        archive = tmp_path / "x"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("zeros", zeros)
    assert archive.stat().st_size < 1 << 20
    assert "a bomb" in refuses(archive)
    for path in (tmp_path / "a" / "b", tmp_path / "a"):
        for file in path.glob(".*"):
            file.unlink()
        path.rmdir()
    assert "more than 1,000 bytes" in refuses(archive, Limits(size=1000))


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(10240))
    assert "header" in refuses(tmp_path / "x.tar")


CUTS = {"half": 10_000, "boundary": 6656, "header": 6800, "empty": 0}


@pytest.mark.parametrize("how", [*CUTS, "text"])
@pytest.mark.parametrize("kind", ["tar", "gz", "zip"])
def test_damaged_archives(tmp_path: Path, kind: str, how: str) -> None:
    archive = tmp_path / "x"
    content = {name: os.urandom(6000) for name in "ab"}
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for name, data in content.items():
                zipped.writestr(name, data)
    else:
        entries = [entry(name, data=data) for name, data in content.items()]
        tar_of(archive, *entries, mode="w" if kind == "tar" else "w:gz")
    archive.write_bytes(archive.read_bytes()[: CUTS[how]] if how in CUTS else b"no archive" * 2000)
    refuses(archive)


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", "a")
    archive.write_bytes(archive.read_bytes().replace(b"../../outside", b"../../outsidE"))
    assert "damaged" in refuses(archive)


def test_killed_in_the_middle_leaves_no_folder_and_the_next_one_is_whole(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", *(entry(f"f{i}", data=b"y" * 1000) for i in range(20_000)))
    code = "import sys; from pathlib import Path as P; from common.data.archives import extract\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code + "extract(P(sys.argv[1]), P(sys.argv[2]))", archive, tmp_path / "out"]
    )
    partial = tmp_path / ".out.extracting"
    while not (partial / "f50").exists():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert partial.exists()
    small = tar_of(tmp_path / "small.tar", entry("only"))
    assert [path.name for path in extract(small, tmp_path / "out").iterdir()] == ["only"]
    assert not partial.exists()
