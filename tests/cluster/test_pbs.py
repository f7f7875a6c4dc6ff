"""The launch layer on PBS: on a stub that refuses what ABCI refuses, and on a real OpenPBS where one was built."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openpbs
import pbs_stub
import pytest
from batches import (
    SLOW,
    STEPS,
    Batch,
    ctrl_c,
    deadline_kill_and_packs,
    outage,
    quiet_bits,
)
from house import make_house, wait_for
from launches import launch_of, script_for

from common.cluster.schedulers import SchedulerError, cancel, living, submit
from common.cluster.script import Ask
from common.cluster.sites import site

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", params=["stub", pytest.param("openpbs", marks=openpbs.mark)])
def commands(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment in which qsub, qstat and qdel are those of a stub or of a real cluster."""
    folder = tmp_path_factory.mktemp("pbs")
    if request.param == "stub":
        yield pbs_stub.install(folder / "stub")
        return
    cluster = openpbs.OpenPBS(folder)
    yield cluster.start()
    cluster.stop()


@pytest.fixture
def batch(tmp_path: Path, commands: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Batch]:
    for name, value in commands.items():
        monkeypatch.setenv(name, value)
    batch = Batch(make_house(tmp_path / "house"), "abci3", {**commands, "RETHESIS_ACCOUNT": "grp"})
    yield batch
    batch.stop()
    cancel(site("abci3"), sorted(living(site("abci3"))))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return quiet_bits(make_house(tmp_path_factory.mktemp("quiet") / "house"), STEPS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" -P", " -A", "-P GROUP is mandatory"),
        ("select=1:", "select=1:ncpus=4:", "fixed by the resource type"),
        ("select=1:", "select=2:", "multi-node only in rt_HF"),
        ("-l walltime=01:00:00", "-l walltime=169:00:00", "walltime above the limit"),
        ("-q rt_HC", "-q rt_H", "Unknown queue"),
        ("", "", ""),
    ],
)
def test_what_abci_refuses_is_refused_with_its_words(
    commands: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    message: str,
) -> None:
    for name, value in commands.items():
        monkeypatch.setenv(name, value)
    row = replace(site("abci3"), account=new.strip()) if old == " -P" else site("abci3")
    script = tmp_path / "job.sh"
    text = script_for(launch_of("abci3"), Ask("a-0", seconds=3600), tmp_path, ("sleep", "30"))
    script.write_text(text.replace(old, new))
    if message:
        with pytest.raises(SchedulerError, match=message):
            submit(row, script, "grp")
        return
    job = submit(row, script, "grp")
    assert job in living(row)
    cancel(row, [job])
    wait_for(lambda: job not in living(row))


def test_a_deadline_a_kill_and_packs_end_with_the_same_bits(batch: Batch, quiet: dict[str, bytes]) -> None:
    deadline_kill_and_packs(batch, quiet)


def test_the_walltime_itself_is_survived(batch: Batch, quiet: dict[str, bytes]) -> None:
    """No signal comes before the limit; SIGTERM at it sets the flag, and the next job continues."""
    limit = ('launch.walltime="00:00:05"', "launch.margin=1", "launch.pack=4")
    batch.house.edit("common/training/stop.py", "time.time() >= _flag.deadline", "False")
    batch.run(STEPS, *limit, SLOW)
    assert len(batch.counts()) >= 8
    assert sorted(batch.house.bits().values()) == sorted(
        quiet.values()
    )  # the edit gave the folders other names


def test_a_dead_server_is_no_verdict(batch: Batch, quiet: dict[str, bytes], tmp_path: Path) -> None:
    outage(batch, quiet, "qstat", tmp_path)


def test_ctrl_c_leaves_no_orphan_and_the_same_command_continues(
    batch: Batch, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    ctrl_c(batch, quiet, tmp_path, lambda: living(site("abci3")))


def test_a_job_starts_in_its_folder_with_its_node_file(commands: dict[str, str], tmp_path: Path) -> None:
    ask = Ask("a-0", seconds=60, nodes=2, processes=2, gpus=2)
    text = script_for(launch_of("abci3", node_class="rt_HF"), ask, tmp_path)
    start = text.index("exec mpirun")
    (tmp_path / "job.sh").write_text(text[:start] + f"exec cp $PBS_NODEFILE {tmp_path}/nodes\n")
    subprocess.run(
        ["qsub", "-P", "grp", str(tmp_path / "job.sh")], env=commands, check=True, capture_output=True
    )
    wait_for((tmp_path / "nodes").is_file)
    assert (tmp_path / "nodes").read_text().split() == ["pbs1", "pbs1", "pbs2", "pbs2"]
