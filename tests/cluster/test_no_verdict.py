"""What says nothing about a study, as its front door meets it: a refusal, a Snakemake that dies, a qdel that fails."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pbs_stub
import psutil
import pytest
from batches import STEPS, Batch, end, held, in_front
from house import make_house, wait_for
from processes import kill

from common.cluster.schedulers import cancel, living
from common.cluster.sites import site

pytestmark = pytest.mark.timeout(240)
PBS = site("pbs")
WORDS = "qsub: would exceed the group's points"


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    commands = pbs_stub.install(tmp_path / "pbs")
    monkeypatch.setenv("PATH", commands["PATH"])
    batch = Batch(make_house(tmp_path / "house"), "pbs", commands)
    yield batch
    batch.stop()
    cancel(PBS, sorted(living(PBS)))


def kill_engines(process: subprocess.Popen[str]) -> set[int]:
    """SIGKILL to every Snakemake of a front door; their process numbers."""
    found: set[int] = set()
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            if "snakemake" in child.cmdline():
                kill(child)
                found.add(child.pid)
    return found


def test_a_refusal_ends_the_study_once_and_cancels_and_judges_nothing(batch: Batch, tmp_path: Path) -> None:
    attempts, gate = tmp_path / "attempts", tmp_path / "open"
    third = f'echo >>{attempts}; [ $(wc -l <{attempts}) -ge 3 ] && {{ echo "{WORDS}" >&2; exit 38; }}\n$REAL'
    path = in_front(tmp_path, "qsub", third, batch.environment["PATH"])
    output = end(batch.start(STEPS, *held(gate), PATH=path), 2)
    assert len(attempts.read_text().splitlines()) == 3, "the refused job was submitted again"
    assert output.count(WORDS) == 1 and "not done" not in output
    assert "`make launch-check LAUNCH=pbs PROJECT=toy SCALE=smoke ARGS='launch.poll=1 toy.steps=30 " in output
    assert not (batch.house.root / "results" / "toy").exists()
    assert living(PBS) == {"1", "2"}
    logs = batch.house.run("logs", "--project", "toy", "--scale", "smoke", STEPS)
    assert WORDS in logs and "make launch-check" in logs and "no job of toy has failed" not in logs
    gate.touch()
    assert "report: results/toy/" in batch.run(STEPS)
    assert len(batch.counts()) == 4, "a job that was taken did not go on"
    assert "no job of toy has failed" in batch.house.run(
        "logs", "--project", "toy", "--scale", "smoke", STEPS
    )


def test_a_snakemake_that_dies_is_started_again_and_nothing_is_judged_while_jobs_run(
    batch: Batch, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    process = batch.start(STEPS, *held(gate))
    wait_for(lambda: len(batch.submissions()) == 4, 120)
    killed: set[int] = set()
    while process.poll() is None:
        killed |= kill_engines(process)
    output = end(process, 75)
    assert (
        len(killed) == 5 and "in the queue or running: 4; not submitted: 0. Nothing was cancelled" in output
    )
    assert "not done" not in output and not (batch.house.root / "results" / "toy").exists()
    assert len(living(PBS)) == 4
    (engine,) = batch.house.runs().glob(".engine/*")
    (engine / "verdicts").unlink(missing_ok=True)
    process = batch.start(STEPS, *held(gate))
    wait_for((engine / "verdicts").is_file, 120)
    assert len(kill_engines(process)) == 1
    gate.touch()
    assert "report: results/toy/" in end(process)
    assert len(batch.counts()) == 4, "a job was started twice"


def test_a_queue_of_which_nothing_is_known_is_told_once_and_so_is_its_return(
    batch: Batch, tmp_path: Path
) -> None:
    batch.house.edit("common/study/engine.py", "SILENCE = 60.0", "SILENCE = 2.0")
    gate, down = tmp_path / "open", tmp_path / "down"
    failing = f'[ -e {down} ] && {{ echo "Connection refused" >&2; exit 111; }}\n$REAL'
    path = in_front(tmp_path, "qstat", failing, batch.environment["PATH"])
    process = batch.start(STEPS, *held(gate), PATH=path)
    wait_for(lambda: len(batch.submissions()) == 4, 120)
    down.touch()
    (engine,) = batch.house.runs().glob(".engine/*")
    wait_for((engine / "silent.json").is_file, 60)
    time.sleep(5)
    down.unlink()
    wait_for(lambda: not (engine / "silent.json").exists(), 60)
    gate.touch()
    output = end(process)
    assert output.count("nothing is known of the queue since") == 1 and "Connection refused" in output
    assert output.count("the scheduler answers again") == 1 and "report: results/toy/" in output


@pytest.mark.slow
def test_a_submission_that_never_succeeds_leaves_no_verdict_either(batch: Batch, tmp_path: Path) -> None:
    batch.house.edit("common/study/engine.py", "STARTS = 5", "STARTS = 2")
    batch.house.edit(
        "common/study/batch.py",
        "    _require_open(engine)\n    with",
        '    raise OSError(122, "quota")\n    with',
    )
    output = batch.run(STEPS, "launch.pack=4", "launch.retries=1", code=75)
    assert "in the queue or running: 0; not submitted: 1." in output and "started again, 2 of 2" in output
    assert not (batch.house.root / "results" / "toy").exists()


@pytest.mark.slow
def test_jobs_that_ctrl_c_cannot_cancel_are_named(batch: Batch, tmp_path: Path) -> None:
    batch.house.edit("common/cluster/schedulers.py", "GOING = (0, 0.5, 1, 2, 4, 8, 15)", "GOING = (0, 0.5)")
    path = in_front(
        tmp_path, "qdel", 'echo "qdel: Unauthorized Request" >&2; exit 159', batch.environment["PATH"]
    )
    process = batch.start(STEPS, *held(tmp_path / "open"), PATH=path)
    wait_for(lambda: len(batch.counts()) == 4, 120)
    process.send_signal(signal.SIGINT)
    output = end(process, 130)
    assert (
        "not all jobs could be cancelled: qstat still lists 1, 2, 3, 4. qdel: Unauthorized Request" in output
    )
    assert "cancelled 4 jobs" not in output and "submitted.jsonl" in output
