"""plan, status, why, logs, clean on the toy thesis: what each says, and that none starts anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from house import House, make_house

pytestmark = pytest.mark.timeout(180)
STUDY = ("--project", "toy", "--scale", "smoke")
RUN = ("reproduce", *STUDY, "--track", "off")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house in which the smoke study was run once; tests change copies."""
    house = make_house(tmp_path_factory.mktemp("finished") / "house")
    house.run(*RUN)
    return house


@pytest.fixture
def copy(finished: House, tmp_path: Path) -> House:
    """A copy that a test may change."""
    return House(Path(shutil.copytree(finished.root, tmp_path / "house", symlinks=True)))


def test_plan_prints_jobs_minutes_disk_replicates_and_power(new_house: Callable[[], House]) -> None:
    house = new_house()
    text = house.run("plan", "--project", "toy", "launch.cores=2")
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.splitlines()
        if line.startswith(("count", "sta", "tot"))
    }
    assert rows["stage"] == ["jobs", "done", "processes", "minutes", "MB"]
    assert rows["count"] == ["10", "0", "2", "0.1", "10"]  # short ones share one, two at once
    assert rows["stacked"] == ["10", "0", "2", "0.0", "10"]  # five members of a stack are one process
    assert rows["total"] == ["2", "0", "2", "0.0", "2"]
    assert "22 jobs" in text
    assert "disk 22 MB" in text
    assert "5 replicates; primary claims at this scale: 1" in text
    assert "80 % power needs a paired effect of 1.74 SD" in text
    assert not (house.root / "results").exists()
    assert house.calls() == []


def test_plan_refuses_replicates_that_can_decide_nothing(finished: House) -> None:
    text = finished.run("plan", "--project", "toy", "--seeds", "4", code=2)
    assert "4 replicates cannot support any of 1 primary claim" in text
    assert "Use at least 5 replicates" in text


def test_plan_of_a_finished_study_has_nothing_to_run(finished: House) -> None:
    text = finished.run("plan", *STUDY)
    assert "nothing to run" in text
    assert re.search(r"^count +4 +4 +0 +0\.0 +4$", text, re.MULTILINE)


def test_status_counts_by_arm(copy: House) -> None:
    for marker in list(copy.runs().glob("stacked/*/DONE"))[:1]:
        marker.unlink()
    text = copy.run("status", *STUDY)
    counts = [line for line in text.splitlines() if line.startswith("stacked")]
    assert sorted(line.split()[2:] for line in counts) == [["1", "done,", "1", "missing"], ["2", "done"]]
    assert "report: results/toy/smoke/report.html" in text


@pytest.mark.parametrize(
    ("path", "old", "new", "reason", "jobs"),
    [
        ("projects/toy/fast.py", "3.0", "4.0", "module projects.toy.fast changed", "count fast (2 jobs)"),
        (
            "projects/toy/stages.py",
            "0.0,",
            "1.0,",
            "module projects.toy.stages changed",
            "total slow (1 jobs)",
        ),
        (
            "configs/project/toy/base.yaml",
            "steps: 5",
            "steps: 6",
            "config key toy.steps changed",
            "count slow (2",
        ),
        ("configs/config.yaml", "threads: 1 ", "threads: 2 ", "environment threads changed", "count slow (2"),
        ("common/files.py", "1 << 20", "1 << 21", "module common.files changed", "count fast (2 jobs)"),
        ("projects/toy/study.py", "stages:count", "stages:other", "run changed", "count fast (2 jobs)"),
        (
            "projects/toy/study.py",
            '"fast is above',
            '"fast is far above',
            "nothing to do",
            "all 10 jobs are done",
        ),
        ("configs/launch/local.yaml", "cores: null", "cores: 1", "nothing to do", "all 10 jobs are done"),
        ("projects/toy/fast.py", "FACTOR", "# why\nFACTOR", "nothing to do", "all 10 jobs are done"),
    ],
)
def test_why_names_what_changed_and_what_reads_it(
    copy: House, path: str, old: str, new: str, reason: str, jobs: str
) -> None:
    copy.edit(path, old, new)
    text = copy.run("why", *STUDY)
    assert reason in text
    assert jobs in text
    if path == "projects/toy/fast.py":
        assert "slow" not in text
    assert len(copy.calls()) == 8


def test_why_tells_never_ran_from_changed(finished: House) -> None:
    text = finished.run("why", "--project", "toy")  # the laptop scale has three seeds more
    assert text.startswith("never ran:")
    assert "count slow (3 jobs)" in text
    assert "inputs count" not in text
    assert "total slow (1 jobs)" in text


def test_why_does_not_call_another_scale_a_change(finished: House) -> None:
    text = finished.run("why", "--project", "toy", "toy.steps=9")  # only smoke ran, with 5 steps
    assert "config key" not in text
    assert "count slow (5 jobs)" in text


def test_logs_without_a_failure_says_so(finished: House) -> None:
    assert finished.run("logs", "--project", "toy").strip() == "no job of toy has failed"


def test_clean_finds_nothing_where_every_job_is_named(copy: House) -> None:
    assert "nothing to clean" in copy.run("clean", "--project", "toy", "--yes")
    assert len(list(copy.runs().glob("*/*/DONE"))) == 10


def test_clean_keeps_what_another_scale_names_and_removes_overridden_runs(copy: House) -> None:
    copy.run(*RUN, "--only", "count,slow", "toy.steps=6")
    listed = copy.run("clean", "--project", "toy")
    assert "2 folders that no current study names; `make clean PROJECT=toy YES=1` removes them" in listed
    assert len(list(copy.runs().glob("*/*/DONE"))) == 12
    copy.run("clean", "--project", "toy", "--yes")
    assert len(list(copy.runs().glob("*/*/DONE"))) == 10
    assert "nothing to do" in copy.run(*RUN)


def test_list_names_projects_and_scales(finished: House) -> None:
    assert finished.run("list") == "toy: smoke, laptop\n"


def test_help_names_every_command(finished: House) -> None:
    text = finished.run("--help")
    for command in (
        "plan",
        "reproduce",
        "status",
        "why",
        "logs",
        "clean",
        "new",
        "dashboard",
        "sync",
        "render",
    ):
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE), command


def test_new_writes_a_thesis_that_is_listed_at_once(copy: House) -> None:
    text = copy.run("new", "--project", "second")
    assert "wrote projects/second/study.py" in text
    assert copy.run("list").splitlines()[0] == "second: smoke, laptop"
    assert "jobs" in copy.run("plan", "--project", "second")
    assert "exists" in copy.run("new", "--project", "second", code=2)
