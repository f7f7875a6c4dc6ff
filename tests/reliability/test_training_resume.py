"""A training that is killed, stopped or starved and started again ends with the bits of one that was not."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch

from common.training import checkpoint
from common.training.keeper import BEFORE_NON_FINITE
from tests.common.training.runs import log_of, server

STEPS = 40
KINDS = ["automatic0", "automatic2", "manual", "chunked"]
MOMENTS = ["before", "middle", "written", "sidecar", "renamed", "pruned"]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Digests of the uninterrupted run, which writes no checkpoint before its end."""
    folder = tmp_path_factory.mktemp("reference")

    @functools.cache
    def run(kind: str) -> dict[str, str]:
        final = server().final(folder / kind, kind, every_steps=0)
        assert log_of(folder / kind).read_text() == ""  # no advert, tip or warning of Lightning
        return final

    return run


def killed_at_steps(out: Path, kind: str, kills: int, seed: int) -> int:
    """Kill at random steps, as often as asked for; a training that ended before is begun anew."""
    draw, killed = random.Random(f"{kind} {seed}"), 0
    while killed < kills:
        code = server().run(out, kind, kill_at=draw.randrange(STEPS))
        # A step before the last checkpoint is not reached again: that run ends.
        assert code in (-signal.SIGKILL, 0), log_of(out).read_text()
        killed += code != 0
        if code == 0 and killed < kills:
            shutil.rmtree(out)
    return killed


@pytest.mark.parametrize("kind", KINDS)
def test_five_kills_at_random_steps_change_no_bit(tmp_path: Path, kind: str, reference: Callable) -> None:
    killed = killed_at_steps(tmp_path / "run", kind, kills=5, seed=0)
    assert server().final(tmp_path / "run", kind) == reference(kind)
    print(f"measured: training ({kind}) killed at {killed} random steps, continued: the same bits")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_at_random_steps_change_no_bit(tmp_path: Path, kind: str, reference: Callable) -> None:
    killed = killed_at_steps(tmp_path / "run", kind, kills=20, seed=1)
    assert server().final(tmp_path / "run", kind) == reference(kind)
    print(f"measured: training ({kind}) killed at {killed} random steps, continued: the same bits")


@pytest.mark.parametrize("kind", ["automatic0", "manual"])
def test_a_kill_at_every_moment_of_a_save_changes_no_bit(
    tmp_path: Path, kind: str, reference: Callable
) -> None:
    out = tmp_path / "run"
    for moment in MOMENTS:
        # Every run makes a step of progress or more, so the second save comes in each.
        code = server().run(out, kind, kill_in_save=(2, moment), env={"TMPDIR": "/dev/shm"})
        assert code == -signal.SIGKILL, f"{moment}: {log_of(out).read_text()}"
    assert server().final(out, kind) == reference(kind)
    assert "cannot be used" not in log_of(out).read_text()
    assert not list((out / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_times_change_no_bit(tmp_path: Path, kind: str, reference: Callable) -> None:
    out, draw = tmp_path / "run", random.Random(kind)
    kills = 0
    while kills < 20:
        with server().running(out, kind, every_steps=0, every_seconds=0.02, pause=0.01) as pid:
            time.sleep(draw.uniform(0.05, 0.8))
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
            if server().wait() == 0:
                break
        kills += 1
    assert kills >= 1
    print(f"measured: training ({kind}) killed at {kills} random times, continued: the same bits")
    assert server().final(out, kind) == reference(kind)


def wait_for_rows(out: Path, pid: int, rows: int) -> None:
    history = out / "history.jsonl"
    while not history.exists() or history.read_bytes().count(b"\n") < rows:
        assert psutil.pid_exists(pid), log_of(out).read_text()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("automatic0", signal.SIGTERM),
        ("automatic2", signal.SIGTERM),
        ("manual", signal.SIGINT),
        ("chunked", signal.SIGUSR1),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_the_same_bits_follow(
    tmp_path: Path, kind: str, number: signal.Signals, reference: Callable
) -> None:
    out = tmp_path / "run"
    with server().running(out, kind, every_steps=0, pause=0.05) as pid:
        wait_for_rows(out, pid, 2)
        sent = time.monotonic()
        for process in [
            *psutil.Process(pid).children(),
            psutil.Process(pid),
        ]:  # a group gets it with its workers
            process.send_signal(number)
        code = server().wait()
    assert code == 75, log_of(out).read_text()
    assert time.monotonic() - sent < 5
    assert f"received {number.name}" in log_of(out).read_text()
    assert len(list((out / "checkpoints").glob("*.ckpt"))) == 1
    assert not (out / "final.json").exists()
    assert server().final(out, kind) == reference(kind)


def test_a_deadline_stops_before_it_and_the_same_bits_follow(tmp_path: Path, reference: Callable) -> None:
    out = tmp_path / "run"
    deadline = time.time() + 31.5
    code = server().run(
        out,
        "manual",
        every_steps=0,
        pause=0.1,
        env={"RETHESIS_DEADLINE": str(deadline), "RETHESIS_MARGIN": "30"},
    )
    assert code == 75, log_of(out).read_text()
    assert deadline - 30.1 < time.time() < deadline - 25
    assert server().final(out, "manual") == reference("manual")


@pytest.mark.parametrize("kind", ["automatic0", "manual"])
def test_a_loss_that_is_not_finite_ends_with_70_and_keeps_the_weights_before(
    tmp_path: Path, kind: str
) -> None:
    out, before = tmp_path / "run", tmp_path / "before"
    assert server().run(out, kind, nan=17) == 70
    assert "became nan at step 17" in log_of(out).read_text()
    server().final(before, kind, steps=17)
    kept = checkpoint.read(out / "checkpoints" / BEFORE_NON_FINITE)
    expected = checkpoint.read(checkpoint.step_path(before / "checkpoints", 17))
    for name, tensor in expected["state_dict"].items():
        if "1.running" in name or "num_batches" in name:
            continue  # BatchNorm's forward pass has seen the batch already
        assert torch.equal(kept["state_dict"][name], tensor), name
    assert server().run(out, kind, nan=17) == 70  # it fails the same way again, from a checkpoint before
    for path in (out / "checkpoints").glob("*.ckpt"):
        weights = checkpoint.read(path)["state_dict"].values()
        assert all(torch.isfinite(tensor).all() for tensor in weights)


def test_a_training_that_ended_is_not_done_again(tmp_path: Path) -> None:
    first = server().final(tmp_path / "run", "automatic0")
    history = tmp_path / "run" / "history.jsonl"
    with history.open("a") as file:
        file.write('{"step":40,"after":1}\n')  # an evaluation after the training, which is made again
    assert server().final(tmp_path / "run", "automatic0", kill_at=0, nan=0) == first
