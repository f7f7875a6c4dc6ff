"""The launch layer on a real Slurm of two virtual nodes: nothing is lost, nothing runs twice, the bits are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import STUDY, Batch, ctrl_c, end, quiet_bits
from fitting import SMALL, fitting, ranks, score
from house import make_house, wait_for
from processes import kill_tree
from slurm import Slurm, missing

from common.cluster import schedulers
from common.cluster.sites import site

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
STEPS = "toy.steps=40"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def batch(tmp_path: Path, slurm: Slurm) -> Iterator[Batch]:
    batch = Batch(make_house(tmp_path / "house"), "slurm", slurm.environment)
    yield batch
    batch.stop()
    slurm.run("scancel", "--user=root", "--quiet")
    slurm.wait(lambda: not slurm.jobs())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return quiet_bits(make_house(tmp_path_factory.mktemp("quiet") / "house"), STEPS)


def release(slurm: Slurm) -> None:
    """Let requeued jobs start at once; Slurm holds them back for two minutes."""
    for job, state in slurm.jobs().items():
        if state == "PENDING":
            slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)


def test_many_jobs_with_the_bits_of_one_machine_and_one_question_for_all(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "squeue").write_text(f'#!/bin/sh\necho >>{asked}\nexec /usr/bin/squeue "$@"\n')
    (tools / "squeue").chmod(0o755)
    path = {"PATH": f"{tools}:{slurm.environment['PATH']}"}
    output = batch.run(STEPS, **path)
    assert "report: results/toy/" in output and batch.house.bits() == quiet
    assert len(batch.submissions()) == 8 == len({entry["id"] for entry in batch.submissions()})
    assert len(asked.read_text().splitlines()) < 40  # 8 jobs and some 15 s: without the cache several hundred
    assert "nothing to do" in batch.run(STEPS)


def test_an_array_of_a_user_is_known_by_its_id_while_it_runs_and_is_cancelled_whole(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our commands submit no arrays; one beside a study, or a directive that makes one, must not confuse them."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "array.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --array=0-3\n#SBATCH --mem=50M\n#SBATCH --output=/dev/null\n"
        f"touch {tmp_path}/began-$SLURM_ARRAY_TASK_ID\nexec sleep 200\n"
    )
    job = schedulers.submit(site("slurm"), script, "")
    slurm.wait(lambda: bool(list(tmp_path.glob("began-*"))))
    assert job in schedulers.living(site("slurm"))
    schedulers.cancel(site("slurm"), [job])
    slurm.wait(lambda: not slurm.jobs())
    assert job not in schedulers.living(site("slurm"))


def test_a_job_on_hold_is_told_by_its_reason(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "held.sh"
    script.write_text("#!/bin/bash\n#SBATCH --hold\n#SBATCH --mem=50M\n#SBATCH --output=/dev/null\ntrue\n")
    job = schedulers.submit(site("slurm"), script, "")
    slurm.wait(lambda: schedulers.queue(site("slurm")).get(job) == "JobHeldUser")
    schedulers.cancel(site("slurm"), [job])
    assert job not in schedulers.queue(site("slurm"))


def test_packs_share_a_job(batch: Batch, slurm: Slurm, quiet: dict[str, bytes]) -> None:
    batch.run(STEPS, "launch.pack=2")
    assert batch.house.bits() == quiet and len(batch.submissions()) == 4


def test_a_time_limit_met_again_and_again_is_continued_to_the_same_bits(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    """A limit of one minute, and a margin that leaves six seconds of it: 40 steps of 0.3 s need two to three jobs."""
    limit = ('launch.walltime="00:01:00"', "launch.margin=54")
    batch.run(STEPS, *limit, TOY_SLEEP="0.3")
    assert batch.house.bits() == quiet
    starts = batch.counts()
    assert len(starts) >= 2 * 4 and len(batch.submissions()) >= 8 + 4
    # and a chain that is too short ends with 75, to be continued by the same command
    other = Batch(make_house(batch.house.root.parent / "other"), "slurm", slurm.environment)
    output = other.run("toy.steps=60", *limit, "launch.retries=0", code=75, TOY_SLEEP="0.3")
    assert "the time limit (RETHESIS_DEADLINE) is near" in output and "The same command continues." in output


def test_killed_jobs_are_retried_and_failed_ones_are_not(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = batch.start(STEPS, TOY_SLEEP="0.1")
    wait_for(lambda: len(batch.counts()) >= 2, 120)
    assert batch.kill_workers() >= 2
    end(process)
    assert batch.house.bits() == quiet and len(batch.counts()) >= 5
    crashing = Batch(make_house(batch.house.root.parent / "crashing"), "slurm", slurm.environment)
    output = crashing.run("toy.crash_at=2", "launch.retries=3", code=1)
    assert "not done" in output and len(crashing.counts()) == 4
    logs = crashing.house.run("logs", "--project", "toy", "--scale", "smoke", "toy.crash_at=2")
    assert "planted crash" in logs


def test_requeue_cancel_and_a_preemption_signal_cost_no_step(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = batch.start(STEPS, TOY_SLEEP="0.2")
    wait_for(lambda: len(batch.counts()) == 4, 120)
    first, second, third, _ = sorted(slurm.jobs(), key=int)
    slurm.run("scontrol", "requeue", first)
    slurm.run("scancel", second)
    slurm.run("scancel", "--batch", "--signal=USR1", third)
    slurm.wait(lambda: slurm.jobs().get(first) == "PENDING")
    release(slurm)
    end(process)
    assert batch.house.bits() == quiet and len(batch.counts()) == 7
    ids = [entry["id"] for entry in batch.submissions()]
    assert ids.count(first) == 1  # the requeued job kept its id, and nothing was submitted for it


def test_a_node_goes_down_and_the_controller_is_restarted(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = batch.start(STEPS, TOY_SLEEP="0.2")
    wait_for(lambda: len(batch.counts()) == 4, 120)
    slurm.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    slurm.end("slurmctld")
    slurm.controller()
    slurm.wait(lambda: slurm.jobs() != {})
    slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # it may be back already
    release(slurm)
    end(process)
    assert batch.house.bits() == quiet


def test_ctrl_c_leaves_no_orphan_and_the_same_command_continues(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    ctrl_c(batch, quiet, tmp_path, slurm.jobs, STEPS)


def test_a_front_door_that_was_killed_picks_up_the_jobs_that_run(
    batch: Batch, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = batch.start(STEPS, TOY_SLEEP="0.4")
    wait_for(lambda: len(batch.counts()) == 4, 120)
    kill_tree(process.pid)
    process.communicate()
    before = set(slurm.jobs())
    assert len(before) == 4
    batch.run(STEPS)
    assert batch.house.bits() == quiet
    assert len(batch.counts()) == 4, "a job was started twice"
    assert {entry["id"] for entry in batch.submissions()} > before


def test_a_lightning_training_on_two_nodes_equals_one_process(tmp_path: Path, slurm: Slurm) -> None:
    one, two = fitting(tmp_path / "one"), fitting(tmp_path / "two")
    one.run(*STUDY, *SMALL)
    Batch(two, "slurm", slurm.environment).run("parallel.nodes=2", *SMALL)
    assert ranks(two) == ["0 2 0 Slurm", "1 2 1 Slurm"]
    gap = abs(score(one) - score(two))
    print(
        f"measured: 20 steps on two Slurm nodes and in one process (float64): sums of weights differ by {gap:.1e}"
    )
    assert gap < 1e-12
    (folder,) = two.runs().glob("count/*")
    assert not list(folder.glob("rank*")) and (folder / "submitted.json").is_file()
