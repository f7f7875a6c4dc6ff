"""The schedulers' commands: what a refusal is, and what it takes to have cancelled a job."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from slurm_stub import SlurmStub

from common.cluster.schedulers import (
    RefusedError,
    SchedulerError,
    cancel,
    living,
    queue,
    remove_stuck,
    submit,
)
from common.cluster.sites import site

SLURM = site("slurm")


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStub:
    monkeypatch.setattr("common.cluster.schedulers.GOING", (0, 0.1, 0.2, 0.4))
    return SlurmStub(tmp_path / "bin", monkeypatch)


def submitted(number: int) -> list[str]:
    return [submit(SLURM, Path("job.sh"), "") for _ in range(number)]


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", True),
        ("qsub: would exceed queue's per-user limit", True),
        ("Unable to run job: Job is rejected. h_rt must be specified. Contact the help desk.", True),
        ("sbatch: error: Socket timed out on send/recv operation", False),
        ("Unable to contact slurm controller (connect failure)", False),
        ("qsub: cannot connect to server pbs1 (errno=15010)", False),
        ("error: commlib error: got select error (Connection refused)", False),
    ],
)
def test_a_command_that_found_no_scheduler_was_not_refused(
    scheduler: SlurmStub, words: str, refused: bool
) -> None:
    scheduler.refuses.write_text(words)
    with pytest.raises(SchedulerError) as caught:
        submitted(1)
    assert isinstance(caught.value, RefusedError) == refused
    assert words in str(caught.value)


def test_cancelled_jobs_are_gone_and_others_stay(scheduler: SlurmStub) -> None:
    first, second, third = submitted(3)
    cancel(SLURM, [first, third, "77"])  # 77 ended long ago
    assert living(SLURM) == {second}
    cancel(SLURM, [])
    assert living(SLURM) == {second}


def test_a_job_may_take_its_time_to_go(scheduler: SlurmStub) -> None:
    jobs = submitted(1)
    scheduler.keeps.touch()
    ends = threading.Timer(0.3, scheduler.ends)
    ends.start()
    cancel(SLURM, jobs)
    assert living(SLURM) == set()
    ends.join()


def test_what_survives_is_named_with_the_words_of_the_scheduler(scheduler: SlurmStub) -> None:
    jobs = submitted(2)
    scheduler.keeps.write_text("scancel: error: Kill job error on job id 1: Access denied")
    with pytest.raises(SchedulerError, match=r"squeue still lists 1, 2\. .*Access denied"):
        cancel(SLURM, jobs)


def test_no_answer_is_no_success(scheduler: SlurmStub) -> None:
    jobs = submitted(1)
    scheduler.down.touch()
    with pytest.raises(SchedulerError, match=r"does not say what became of 1\. Unable to contact"):
        cancel(SLURM, jobs)


def test_jobs_in_an_error_state_for_good_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no living jobs, and stay listed until somebody cancels them."""
    rows = (
        f" {job} 0.5 a-{job} me {state} 11/30/2026 \n" for job, state in ((7, "Eqw"), (8, "r"), (9, "Eqw"))
    )
    listed = "job-ID prior name user state\n" + "".join(rows)
    for name, text in (("qstat", f"cat <<'X'\n{listed}X"), ("qdel", f'echo "$@" >>{tmp_path}/removed')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert living(site("sge")) == {"8"}
    assert remove_stuck(site("sge"), {"7", "8"}) == ["7"]
    assert (tmp_path / "removed").read_text() == "7\n"
    assert remove_stuck(SLURM, {"7"}) == []  # nothing is asked: there is no such state


def test_a_job_that_will_not_start_by_itself_lives_and_the_reason_is_known(scheduler: SlurmStub) -> None:
    scheduler.alive.write_text(
        "1 PENDING PartitionTimeLimit\n2 PENDING Priority\n3 RUNNING None\n4 COMPLETING None\n"
    )
    assert queue(SLURM) == {"1": "PartitionTimeLimit", "2": "", "3": ""}
    assert living(SLURM) == {"1", "2", "3"}
