from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import BadInputError, StoppedError
from common.training import checkpoint


def save(folder: Path, step: int, **more: object) -> Path:
    path = checkpoint.step_path(folder, step)
    checkpoint.CheckpointFiles().save_checkpoint({"step": step, **more}, path)
    return path


def test_plain_state_comes_back(tmp_path: Path) -> None:
    state = {
        "tensor": torch.arange(3),
        "array": np.arange(4.0).reshape(2, 2),
        "scalars": [np.float32(2.5), np.int64(3), 1.5, None, True, "x", (1, 2)],
        "python": random.getstate(),
        "numpy": np.random.default_rng(1).bit_generator.state,
        "legacy": np.random.RandomState(1).get_state(legacy=False),
    }
    path = save(tmp_path, 1, **state)
    back = checkpoint.read(path)
    assert torch.equal(back["tensor"], state["tensor"])
    np.testing.assert_array_equal(back["array"], state["array"])
    assert back["scalars"] == state["scalars"]
    assert back["numpy"] == state["numpy"]
    np.testing.assert_array_equal(back["legacy"]["state"]["key"], state["legacy"]["state"]["key"])
    random.setstate(back["python"])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_the_sidecar_is_what_sha256sum_reads(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    subprocess.run(
        ["sha256sum", "--check", "--strict", f"{path.name}.sha256"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )


def test_the_last_two_are_kept_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 999, 1000):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{checkpoint.step_path(tmp_path, step).name}{suffix}"
        for step in (999, 1000)
        for suffix in ("", ".sha256")
    )
    found = checkpoint.newest(tmp_path, lambda state: None)
    assert found is not None
    assert found[1] == {"step": 1000}


def test_an_unusable_one_is_warned_about_once_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    newer = save(tmp_path, 2)
    found = checkpoint.newest(tmp_path, lambda state: "it is from Mars" if state["step"] == 2 else None)
    assert found is not None
    assert found[1]["step"] == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"checkpoint {newer} cannot be used and is removed: it is from Mars; trying the one before it"
    ]
    assert not newer.exists()
    assert checkpoint.newest(tmp_path / "nothing", lambda state: None) is None


def test_what_a_killed_write_left_is_swept(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / ".step-000000000002.ckpt.ab12.tmp").write_bytes(b"half")
    (tmp_path / "step-000000000002.ckpt.sha256").write_text("00")
    checkpoint.prepare(tmp_path)
    assert sorted(tmp_path.iterdir()) == [path, path.with_name(path.name + ".sha256")]


def test_an_absent_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="step-000000000007"):
        checkpoint.read(checkpoint.step_path(tmp_path, 7))


def test_too_little_room_is_known_before_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 1, x=torch.zeros(1000))
    size = path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * size - 1))
    with pytest.raises(StoppedError, match=r"MB free in .*free space and run the same command"):
        save(tmp_path, 2)
    assert checkpoint.damaged(path) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * size))
    save(tmp_path, 2)


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match=r"cannot write checkpoints in .*file/checkpoints"):
        checkpoint.prepare(tmp_path / "file" / "checkpoints")
