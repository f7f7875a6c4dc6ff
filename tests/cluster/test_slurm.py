"""The launch layer on a real Slurm of two virtual nodes: nothing is lost, nothing runs twice, the bits are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from house import House, make_house, wait_for
from slurm import Slurm, missing

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
STUDY = ("reproduce", "--project", "toy", "--track", "off", "--scale", "smoke")
SLURM = ("--launch", "slurm", "launch.poll=1")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def house(tmp_path: Path, slurm: Slurm) -> Iterator[House]:
    yield make_house(tmp_path / "house")
    slurm.run("scancel", "--user=root", "--quiet")
    slurm.wait(lambda: not slurm.jobs())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run on this machine alone gives, with 40 steps."""
    house = make_house(tmp_path_factory.mktemp("quiet") / "house")
    house.run(*STUDY, "toy.steps=40")
    return house.bits()


def run(house: House, slurm: Slurm, *overrides: str, code: int = 0, **extra: str) -> str:
    return house.run(*STUDY, *SLURM, *overrides, code=code, **slurm.environment, **extra)


def start(house: House, slurm: Slurm, *overrides: str, **extra: str) -> subprocess.Popen[str]:
    return house.start(*STUDY, *SLURM, *overrides, **slurm.environment, **extra)


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


def submissions(house: House) -> list[dict[str, str]]:
    (path,) = house.runs().glob(".engine/*/submitted.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def counts(house: House) -> list[str]:
    """The counters' starts, one line each."""
    return [line for line in house.calls() if line.startswith("count")]


def test_many_jobs_with_the_bits_of_one_machine_and_one_question_for_all(
    house: House, slurm: Slurm, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "squeue").write_text(f'#!/bin/sh\necho >>{asked}\nexec /usr/bin/squeue "$@"\n')
    (tools / "squeue").chmod(0o755)
    path = {"PATH": f"{tools}:{slurm.environment['PATH']}"}
    output = house.run(*STUDY, *SLURM, "toy.steps=40", **{**slurm.environment, **path})
    assert "report: results/toy/" in output and house.bits() == quiet
    assert len(submissions(house)) == 8 == len({entry["id"] for entry in submissions(house)})
    assert len(asked.read_text().splitlines()) < 40  # 8 jobs and some 15 s: without the cache several hundred
    assert "nothing to do" in run(house, slurm, "toy.steps=40")


def test_packs_share_a_job(house: House, slurm: Slurm, quiet: dict[str, bytes]) -> None:
    run(house, slurm, "toy.steps=40", "launch.pack=2")
    assert house.bits() == quiet and len(submissions(house)) == 4


def test_a_time_limit_met_again_and_again_is_continued_to_the_same_bits(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    """A limit of one minute, and a margin that leaves six seconds of it: 40 steps of 0.3 s need two to three jobs."""
    limit = ('launch.walltime="00:01:00"', "launch.margin=54")
    run(house, slurm, "toy.steps=40", *limit, TOY_SLEEP="0.3")
    assert house.bits() == quiet
    starts = counts(house)
    assert len(starts) >= 2 * 4 and len(submissions(house)) >= 8 + 4
    # and a chain that is too short ends with 75, to be continued by the same command
    other = make_house(house.root.parent / "other")
    output = other.run(
        *STUDY,
        *SLURM,
        "toy.steps=60",
        *limit,
        "launch.retries=0",
        code=75,
        TOY_SLEEP="0.3",
        **slurm.environment,
    )
    assert "the time limit (RETHESIS_DEADLINE) is near" in output and "The same command continues." in output


def test_killed_jobs_are_retried_and_failed_ones_are_not(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = start(house, slurm, "toy.steps=40", TOY_SLEEP="0.1")
    wait_for(lambda: len(counts(house)) >= 2)
    for worker in psutil.process_iter(["cmdline", "cwd"]):
        if "common.study.job" in (worker.info["cmdline"] or []) and worker.info["cwd"] == str(house.root):
            worker.kill()
    end(process)
    assert house.bits() == quiet and len(counts(house)) >= 5
    crashing = make_house(house.root.parent / "crashing")
    output = crashing.run(*STUDY, *SLURM, "toy.crash_at=2", code=1, **slurm.environment)
    assert "not done" in output and len(counts(crashing)) == 4
    assert "planted crash" in crashing.run("logs", "--project", "toy", "--scale", "smoke", "toy.crash_at=2")


def test_requeue_cancel_and_a_preemption_signal_cost_no_step(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = start(house, slurm, "toy.steps=40", TOY_SLEEP="0.2")
    wait_for(lambda: len(counts(house)) == 4)
    first, second, third, _ = sorted(slurm.jobs(), key=int)
    slurm.run("scontrol", "requeue", first)
    slurm.run("scancel", second)
    slurm.run("scancel", "--batch", "--signal=USR1", third)
    slurm.wait(lambda: slurm.jobs().get(first) == "PENDING")
    slurm.run("scontrol", "update", f"JobId={first}", "StartTime=now")
    end(process)
    assert house.bits() == quiet and len(counts(house)) == 7
    ids = [entry["id"] for entry in submissions(house)]
    assert ids.count(first) == 1  # the requeued job kept its id, and nothing was submitted for it


def test_a_node_goes_down_and_the_controller_is_restarted(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = start(house, slurm, "toy.steps=40", TOY_SLEEP="0.2")
    wait_for(lambda: len(counts(house)) == 4)
    slurm.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    slurm.end("slurmctld")
    slurm.controller()
    slurm.wait(lambda: slurm.jobs() != {})
    slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    for job, state in slurm.jobs().items():
        if state == "PENDING":
            slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    end(process)
    assert house.bits() == quiet


def test_ctrl_c_leaves_no_orphan_and_the_same_command_continues(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = start(house, slurm, "toy.steps=40", TOY_SLEEP="0.2")
    wait_for(lambda: len(counts(house)) >= 2)
    process.send_signal(signal.SIGINT)
    output = end(process, 130)
    assert "cancelled" in output and "stopped; the same command continues" in output
    slurm.wait(lambda: not slurm.jobs())
    run(house, slurm, "toy.steps=40")
    assert house.bits() == quiet


def test_a_front_door_that_was_killed_picks_up_the_jobs_that_run(
    house: House, slurm: Slurm, quiet: dict[str, bytes]
) -> None:
    process = start(house, slurm, "toy.steps=40", TOY_SLEEP="0.4")
    wait_for(lambda: len(counts(house)) == 4)
    children = psutil.Process(process.pid).children(recursive=True)
    for victim in (process.pid, *(child.pid for child in children)):
        os.kill(victim, signal.SIGKILL)
    process.communicate()
    before = set(slurm.jobs())
    assert len(before) == 4
    run(house, slurm, "toy.steps=40")
    assert house.bits() == quiet
    assert len(counts(house)) == 4, "a job was started twice"
    assert {entry["id"] for entry in submissions(house)} > before
