"""Damaged, starved and malicious checkpoints: found, never half used, and the one before takes over."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from house import wait_for

from common.errors import BadInputError
from common.training import checkpoint
from tests.common.training.runs import log_of, server

STEPS = 40


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A run killed at step 20, with checkpoints of steps 15 and 18, and the digests of an unkilled one."""
    folder = tmp_path_factory.mktemp("damage")
    assert server().run(folder / "run", "manual", kill_at=20) == -signal.SIGKILL
    return folder / "run", server().final(folder / "reference", "manual")


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step-*.ckpt"))


def test_a_flipped_bit_anywhere_is_found(stopped: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    path = shutil.copytree(stopped[0], tmp_path / "run") / "checkpoints" / checkpoints(stopped[0])[-1].name
    whole, draw = path.read_bytes(), random.Random(0)
    assert checkpoint.damaged(path) is None
    for at in draw.sample(range(len(whole)), 64):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert checkpoint.damaged(path), f"a flip in byte {at} was not found"
        with pytest.raises(BadInputError, match=path.name):
            checkpoint.read(path)


def test_a_truncation_anywhere_is_found(stopped: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    path = shutil.copytree(stopped[0], tmp_path / "run") / "checkpoints" / checkpoints(stopped[0])[-1].name
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        assert checkpoint.damaged(path)


def spoil_flip(out: Path) -> None:
    path = checkpoints(out)[-1]
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def spoil_cut(out: Path) -> None:
    os.truncate(checkpoints(out)[-1], 1000)


def spoil_sidecar(out: Path) -> None:
    checkpoints(out)[-1].with_suffix(".ckpt.sha256").unlink()


def spoil_replay(out: Path) -> None:
    os.truncate(out / "replay.bin", 16 * 20)  # 16 records of 20 bytes: enough for step 15, not for 18


def spoil_history(out: Path) -> None:
    rows = (out / "history.jsonl").read_bytes().splitlines(keepends=True)
    (out / "history.jsonl").write_bytes(b"".join(rows[:3]))  # steps 0, 5, 10; that of 15 is missing


@pytest.mark.parametrize("spoil", [spoil_flip, spoil_cut, spoil_sidecar, spoil_replay, spoil_history])
def test_the_checkpoint_before_takes_over_with_the_same_bits(
    stopped: tuple[Path, dict[str, str]], tmp_path: Path, spoil
) -> None:
    out = shutil.copytree(stopped[0], tmp_path / "run")
    older, newer = checkpoints(out)
    assert (older.stem, newer.stem) == ("step-000000000015", "step-000000000018")
    spoil(out)
    assert server().final(out, "manual") == stopped[1]
    log = log_of(out).read_text()
    assert log.count("cannot be used") == 1
    assert newer.name in log
    assert older.name not in log


def test_with_no_good_checkpoint_it_starts_afresh_with_the_same_bits(
    stopped: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    out = shutil.copytree(stopped[0], tmp_path / "run")
    for path in checkpoints(out):
        path.write_bytes(b"")
    assert server().final(out, "manual") == stopped[1]
    assert log_of(out).read_text().count("cannot be used") == 2


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_malicious_checkpoint_with_a_correct_digest_runs_no_code(
    stopped: tuple[Path, dict[str, str]], tmp_path: Path, form: str
) -> None:
    out, proof = shutil.copytree(stopped[0], tmp_path / "run"), tmp_path / "executed"
    path = checkpoints(out)[-1]
    state = {"state_dict": {}, "rethesis": {"lengths": Evil(proof)}}
    if form == "zip":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".ckpt.sha256").write_text(f"{digest}  {path.name}\n")
    assert server().run(out, "manual") == 2
    assert not proof.exists()
    log = log_of(out).read_text()
    assert "was refused" in log
    assert path.name in log
    assert path.exists()  # kept as evidence
    pickle.loads(path.read_bytes()) if form == "pickle" else torch.load(path, weights_only=False)
    assert proof.exists()  # it would have run


def saver_loop(folder: Path, kills: int, temporary: str) -> None:
    """Kill a process that does nothing but save, at random times after its first save."""
    draw, step = random.Random(temporary), 0

    def acknowledged() -> list[str]:
        return log_of(folder).read_text().split() if log_of(folder).exists() else []

    for _ in range(kills):
        before = len(acknowledged())
        with server().running(folder, "saver", numbers=200_000, env={"TMPDIR": temporary}) as pid:
            wait_for(lambda before=before: len(acknowledged()) > before)
            time.sleep(draw.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
            assert server().wait() == -signal.SIGKILL
        for path in folder.glob("step-*.ckpt"):
            assert checkpoint.damaged(path) is None
        # What was acknowledged is never lost; one save more may have ended unheard.
        least = int(acknowledged()[-1])
        found = checkpoint.newest(folder, lambda state: None)
        step = found[1]["step"] if found else 0
        assert step in (least, least + 1)
        assert found is None or torch.equal(found[1]["x"], torch.full((200_000,), step))
    checkpoint.prepare(folder)
    checkpoint.prune(folder)  # as the next save would: a kill between renaming and pruning leaves a third
    assert step >= kills
    print(
        f"measured: {kills} kills of a process that saves, TMPDIR={temporary}: {step} checkpoints, none spoiled"
    )
    assert len(list(folder.iterdir())) == 4  # two checkpoints and their digests; no temporary file


@pytest.mark.parametrize("temporary", ["/tmp", "/dev/shm"])
def test_fifteen_kills_during_saves_spoil_none(tmp_path: Path, temporary: str) -> None:
    saver_loop(tmp_path / "saves", 15, temporary)


@pytest.mark.slow
@pytest.mark.parametrize("temporary", ["/tmp", "/dev/shm"])
def test_two_hundred_kills_during_saves_spoil_none(tmp_path: Path, temporary: str) -> None:
    saver_loop(tmp_path / "saves", 200, temporary)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the file-size limit stands in for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_clearly_and_continues_once_there_is_room(
    stopped: tuple[Path, dict[str, str]], small_disk: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(stopped[0], small_disk / "run")
    log = {"log": str(tmp_path / "run.log")}
    free = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    size = checkpoints(out)[-1].stat().st_size
    for room in (size // 2, 2 * size - 8192):  # no room for the file; room for it, but less than is asked for
        filler.write_bytes(bytes(free - room))
        assert server().run(out, "manual", **log) == 75
        assert [path.stem for path in checkpoints(out)] == ["step-000000000015", "step-000000000018"]
        assert all(checkpoint.damaged(path) is None for path in checkpoints(out))
    text = (tmp_path / "run.log").read_text()
    assert "free space and run the same command" in text
    assert str(out / "checkpoints") in text
    filler.unlink()
    assert server().final(out, "manual", **log) == stopped[1]


def test_a_file_size_limit_stops_clearly_and_continues_once_it_is_lifted(
    stopped: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    out = shutil.copytree(stopped[0], tmp_path / "run")
    assert server().run(out, "manual", limit=checkpoints(out)[-1].stat().st_size // 2) == 75
    assert "File too large" in log_of(out).read_text()
    assert [path.stem for path in checkpoints(out)] == ["step-000000000015", "step-000000000018"]
    assert server().final(out, "manual") == stopped[1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_read_only_folder_is_known_within_a_second(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = out / "checkpoints"
    folder.mkdir(parents=True)
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 1:  # the other user has to come this far
            path.chmod(0o755)
    out.chmod(0o777)
    folder.chmod(0o555)
    server().run(tmp_path / "warm", "manual")
    started = time.monotonic()
    assert server().run(out, "manual", uid=65534) == 2
    assert time.monotonic() - started < 1
    assert f"cannot write checkpoints in {folder}" in log_of(out).read_text()
    assert (out / "history.jsonl").read_bytes() == b""
