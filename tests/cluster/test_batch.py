"""Submitting and judging, one decision at a time, with a scheduler that is a few shell lines."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from launches import ROOT
from slurm_stub import TASK, SlurmStub, engine_of, job_folder

from common.errors import RethesisError
from common.files import read_json, write_json
from common.study import batch, polling

STATUS = ROOT / "common" / "study" / "status.sh"


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStub:
    return SlurmStub(tmp_path / "bin", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return job_folder(tmp_path)


def submit(folder: Path) -> str:
    return batch.submit(engine_of(folder), TASK, [[folder]])


def verdict(folder: Path, job: str) -> str:
    time.sleep(0.12)
    return polling.poll(engine_of(folder))[job]


def test_a_job_that_the_scheduler_knows_is_not_submitted_again(scheduler: SlurmStub, folder: Path) -> None:
    assert submit(folder) == submit(folder) == "1"
    assert read_json(folder / "submitted.json")["id"] == "1"
    scheduler.ends()
    time.sleep(0.12)
    assert submit(folder) == "2" and scheduler.asked() == 2


def test_a_done_job_is_not_submitted_and_is_a_success(scheduler: SlurmStub, folder: Path) -> None:
    (folder / "DONE").touch()
    job = submit(folder)
    assert verdict(folder, job) == "success" and scheduler.asked() == 0
    assert (engine_of(folder) / "count" / f"{TASK}.done").is_file()


def test_files_decide_and_not_the_queue_alone(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    assert verdict(folder, job) == "running"
    (folder / "STOPPED").write_text("the time limit is near\n")
    assert verdict(folder, job) == "running"  # the scheduler still has it
    scheduler.ends()
    assert verdict(folder, job) == "failed"  # and so it is submitted again
    second = submit(folder)
    (folder / "DONE").touch()
    assert verdict(folder, second) == "success"


def test_a_job_that_vanished_without_a_word_gets_time_to_show_its_files(
    scheduler: SlurmStub, folder: Path
) -> None:
    job = submit(folder)
    scheduler.ends()
    assert verdict(folder, job) == "running"
    time.sleep(0.1 * polling.SETTLE)
    assert verdict(folder, job) == "failed"


def test_no_answer_is_no_verdict(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    scheduler.ends()
    scheduler.down.touch()
    time.sleep(0.1 * polling.SETTLE)
    assert verdict(folder, job) == "running"
    (folder / "DONE").touch()
    assert verdict(folder, job) == "success"


def test_a_failure_of_this_run_is_final_and_one_of_an_earlier_run_is_not(
    scheduler: SlurmStub, folder: Path
) -> None:
    write_json(folder / "FAILED", {"exit_code": 1})
    long_ago = time.time() - 3600
    os.utime(folder / "FAILED", (long_ago, long_ago))
    assert submit(folder) == "1"
    scheduler.ends()
    os.utime(folder / "FAILED")
    time.sleep(0.12)
    with pytest.raises(RethesisError, match="count-0 failed in this run"):
        submit(folder)


def test_a_halted_engine_submits_nothing(scheduler: SlurmStub, folder: Path) -> None:
    batch.halt(engine_of(folder))
    with pytest.raises(RethesisError, match="the front door was stopped"):
        submit(folder)
    assert scheduler.asked() == 0


def test_a_submission_waits_for_a_scheduler_that_is_away(
    scheduler: SlurmStub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.study.batch.BACKOFF", (0.1,) * 200)
    scheduler.down.touch()
    back = threading.Timer(0.5, scheduler.down.unlink)
    back.start()
    assert int(submit(folder)) == scheduler.asked() > 1 and not scheduler.down.exists()
    back.join()
    monkeypatch.setattr("common.study.batch.BACKOFF", (0.1,))
    scheduler.ends()
    scheduler.down.touch()
    time.sleep(0.12)
    with pytest.raises(RethesisError, match="does not say whether"):
        submit(folder)


def test_the_status_command_polls_once_and_then_reads(scheduler: SlurmStub, folder: Path) -> None:
    engine, job = engine_of(folder), submit(folder)

    def status(job: str, seconds: str) -> str:
        command = ["sh", str(STATUS), str(engine), seconds, sys.executable, job]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert status(job, "60") == "running"
    (folder / "DONE").touch()
    assert status(job, "60") == "running"  # younger than a minute: only read
    assert status(job, "0") == "success"
    assert status("77", "60") == "failed"  # nothing is known about it: submitting again finds it, or not
