"""What goes wrong between us and a scheduler: a refusal, a poll that fails, a full disk, a job that does not go."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest
from launches import ROOT, launch_of
from slurm_stub import TASK, SlurmStub, engine_of, job_folder

from common.cluster.schedulers import RefusedError, SchedulerError
from common.errors import RethesisError
from common.files import read_json, write_json
from common.study import batch, polling
from common.study.engine import _tell_held
from common.study.registry import REGISTRY, append, entries
from common.study.store import failure
from common.study.unborn import last_words

STATUS = ROOT / "common" / "study" / "status.sh"
WORDS = "sbatch: error: Invalid account or account/partition combination specified"


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStub:
    monkeypatch.setattr("common.study.batch.BACKOFF", (0.1, 0.1))
    monkeypatch.setattr("common.cluster.schedulers.GOING", (0, 0.1))
    return SlurmStub(tmp_path / "bin", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return job_folder(tmp_path)


def submit(folder: Path) -> str:
    return batch.submit(engine_of(folder), TASK, [[folder]])


def status(folder: Path, job: str, python: str) -> str:
    """What status.sh prints when every poll is `python`."""
    command = ["sh", str(STATUS), str(engine_of(folder)), "0", python, job]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_refusal_is_noted_and_nothing_is_asked_for_again(scheduler: SlurmStub, folder: Path) -> None:
    scheduler.refuses.write_text(WORDS)
    with pytest.raises(RefusedError, match="Invalid account"):
        submit(folder)
    assert batch.refusal(engine_of(folder)) == f"any Slurm cluster refused {TASK}.sh: {WORDS}"
    scheduler.refuses.unlink()  # it would be taken now: but the person is told first
    with pytest.raises(RethesisError, match="nothing is submitted any more"):
        submit(folder)
    assert scheduler.asked() == 1


def test_no_answer_is_no_refusal_and_neither_is_a_command_that_found_no_scheduler(
    scheduler: SlurmStub, folder: Path
) -> None:
    scheduler.down.touch()
    with pytest.raises(SchedulerError, match="Unable to contact"):
        submit(folder)
    assert scheduler.asked() == 3 and batch.refusal(engine_of(folder)) == ""
    scheduler.down.unlink()
    scheduler.refuses.write_text("sbatch: error: Socket timed out on send/recv operation")
    with pytest.raises(SchedulerError, match="Socket timed out"):
        submit(folder)
    # questions were answered all the while: in the end that is a refusal
    assert scheduler.asked() == 6 and "Socket timed out" in batch.refusal(engine_of(folder))


def test_a_poll_that_fails_changes_no_verdict(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    assert status(folder, job, "/bin/false") == "running"
    (engine_of(folder) / polling.VERDICTS).write_text(f"{job} success\n9 failed\n")
    assert status(folder, job, "/bin/false") == "success"
    assert status(folder, "9", "/bin/false") == "failed"


def test_failing_polls_come_no_more_often_than_others(scheduler: SlurmStub, folder: Path) -> None:
    job, asked = submit(folder), folder / "asked"
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho >>{asked}; exit 1\n")
    python.chmod(0o755)
    for _ in range(3):
        command = ["sh", str(STATUS), str(engine_of(folder)), "60", str(python), job]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "running\n"
    assert len(asked.read_text().splitlines()) == 1


def test_how_long_no_poll_has_told_anything_is_known(scheduler: SlurmStub, folder: Path) -> None:
    submit(folder)
    engine = engine_of(folder)
    scheduler.down.touch()
    before = time.time()
    polling.poll(engine)
    since, why = polling.silence(engine) or (0.0, "")
    assert since >= before and "Unable to contact" in why
    launch = (engine / polling.LAUNCH).read_text()
    (engine / polling.LAUNCH).unlink()
    batch.main(["poll", str(engine)])
    assert (polling.silence(engine) or (0.0, ""))[0] == since, "the first of them counts"
    assert "No such file" in (polling.silence(engine) or (0.0, ""))[1], "and the last one's words"
    (engine / polling.LAUNCH).write_text(launch)
    scheduler.down.unlink()
    polling.poll(engine)
    assert polling.silence(engine) is None


def test_the_poll_command_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (engine_of(folder) / polling.LAUNCH).unlink()
    assert batch.main(["poll", str(engine_of(folder))]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_damaged_answer_is_asked_for_again(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    (engine_of(folder) / polling.LIVING).write_text("{")
    (engine_of(folder) / polling.VERDICTS).write_text(f"{job}\n")
    assert polling.poll(engine_of(folder)) == {job: "running"}


def test_a_torn_line_hides_no_other_job(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    with (engine_of(folder) / REGISTRY).open("a") as file:
        file.write('{"id": "2", "time": 1')
    assert polling.poll(engine_of(folder)) == {job: "running"}
    assert status(folder, "2", "/bin/false") == "failed"  # submitting it again finds it by its folder
    assert batch.cancel(engine_of(folder), launch_of("slurm")) == 1
    assert scheduler.alive.read_text() == ""


def test_a_job_whose_id_cannot_be_written_down_is_cancelled(
    scheduler: SlurmStub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("common.study.batch.append", full)
    with pytest.raises(OSError, match="No space left"):
        submit(folder)
    assert scheduler.asked() == 1 and scheduler.alive.read_text() == ""


def test_jobs_that_do_not_go_are_named(scheduler: SlurmStub, folder: Path) -> None:
    job = submit(folder)
    scheduler.keeps.write_text("scancel: error: Kill job error")
    with pytest.raises(SchedulerError, match=rf"squeue still lists {job}\. scancel: error: Kill job error"):
        batch.cancel(engine_of(folder), launch_of("slurm"))


class TestUndecided:
    """(tasks in the queue, tasks that were never submitted) of a plan of one task, or of two."""

    def test_what_was_never_submitted(self, scheduler: SlurmStub, folder: Path) -> None:
        plan = read_json(engine_of(folder) / polling.PLAN)
        after = {"stage": "total", "needs": [TASK], "programs": [["results/total/g"]]}
        write_json(engine_of(folder) / polling.PLAN, {"tasks": {**plan["tasks"], "total-1": after}})
        assert polling.undecided(engine_of(folder)) == (0, 1)  # the second waits for the first
        (folder / "DONE").touch()
        assert polling.undecided(engine_of(folder)) == (0, 1)
        append(
            engine_of(folder),
            {"id": "0", "time": 0.0, "task": "total-1", "stage": "total", "folders": ["/g"]},
        )
        scheduler.down.touch()
        assert polling.undecided(engine_of(folder)) == (1, 0)  # of an earlier run, and perhaps it runs still

    def test_what_is_in_the_queue(self, scheduler: SlurmStub, folder: Path) -> None:
        submit(folder)
        time.sleep(0.12)
        assert polling.undecided(engine_of(folder)) == (1, 0)
        scheduler.ends()
        (folder / "STOPPED").touch()
        assert polling.undecided(engine_of(folder)) == (0, 0)

    def test_what_no_poll_can_tell(self, scheduler: SlurmStub, folder: Path) -> None:
        submit(folder)
        scheduler.ends()
        (folder / "FAILED").touch()
        (engine_of(folder) / polling.VERDICTS).mkdir()
        assert polling.undecided(engine_of(folder)) == (1, 0)

    def test_what_failed_in_this_run_before_it_was_submitted_again(
        self, scheduler: SlurmStub, folder: Path
    ) -> None:
        write_json(folder / "FAILED", {"exit_code": 1})
        assert entries(engine_of(folder)) == [] and polling.undecided(engine_of(folder)) == (0, 0)


def test_a_program_that_never_starts_is_given_up_and_the_end_of_its_log_is_told(
    scheduler: SlurmStub, folder: Path
) -> None:
    engine = engine_of(folder)
    (engine / "logs" / f"{TASK}.0.log").write_text("one\n/arm/python: cannot execute binary file\n")
    for _ in range(3):
        submit(folder)
        scheduler.ends()
    with pytest.raises(RethesisError, match="3 jobs of any Slurm cluster ended before the program started"):
        submit(folder)
    failed = failure(folder)
    assert "cannot execute binary file" in failed["traceback"] and scheduler.asked() == 3
    assert last_words(engine).startswith(f"{TASK}.0.log:\none\n")
    with pytest.raises(RethesisError, match="failed in this run"):
        submit(folder)


def test_a_program_that_started_once_is_no_such_case(scheduler: SlurmStub, folder: Path) -> None:
    for _ in range(3):
        submit(folder)
        scheduler.ends()
    write_json(folder / "provenance.json", {})
    submit(folder)
    assert scheduler.asked() == 4 and not failure(folder)


def test_a_job_that_is_adopted_again_and_again_counts_once(scheduler: SlurmStub, folder: Path) -> None:
    first = submit(folder)
    assert [submit(folder) for _ in range(4)] == [first] * 4
    scheduler.ends()
    time.sleep(0.2)  # launch.poll: an answer may be so old
    assert submit(folder) != first


def test_jobs_that_will_not_start_are_told_once_for_each_reason(
    scheduler: SlurmStub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, engine = submit(folder), engine_of(folder)
    scheduler.alive.write_text(f"{job} PENDING PartitionTimeLimit\n77 PENDING JobHeldUser\n")
    assert polling.poll(engine) == {job: "running"}
    assert polling.held(engine) == {"PartitionTimeLimit": [job]}, "what is not ours is not told"
    told = _tell_held(engine, set())
    assert "1 jobs wait that will not start by themselves (PartitionTimeLimit): 1." in capsys.readouterr().out
    assert _tell_held(engine, told) == told
    assert capsys.readouterr().out == ""
