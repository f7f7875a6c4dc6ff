"""`launch-check` as a user meets it: a table, the price, everything that is wrong, exit code 2."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from house import House, make_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("launch") / "house")


def check(house: House, launch: str, *overrides: str, code: int = 0, **extra: str) -> str:
    return house.run("launch-check", "--project", "toy", "--launch", launch, *overrides, code=code, **extra)


def test_it_counts_jobs_hours_and_points(house: House) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = check(
        house, "abci3", "launch.points.rt_HC=2", "launch.pack=4", 'launch.walltime="12:00:00"',
        RETHESIS_ACCOUNT="grp",
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [line.split() for line in text.splitlines()]
    assert ["count", "rt_HC", "2", "1", "4", "12:00:00", "1", "24.0", "48.0"] in rows
    assert ["count", "rt_HC", "1", "1", "2", "12:00:00", "1", "12.0", "24.0"] in rows
    # 10 counters in packs of 4, two stacks in one pack, two totals in one pack: five jobs of 12 hours
    assert "5 jobs, at most 60.0 unit-hours if each runs to its limit; 120.0 points" in text
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0
    assert not (house.root / "results").exists()


def test_all_that_is_wrong_is_said_at_once(house: House) -> None:
    text = check(house, "abci3", 'launch.walltime="200:00:00"', "launch.jobs=2000", code=2)
    assert "fits in no node class" in text and "200:00:00 of 168 h" in text
    assert "launch.jobs=2000; ABCI 3.0 takes 1000 unfinished jobs" in text
    text = check(house, "abci3", code=2)
    assert text.count("set RETHESIS_ACCOUNT=") == 1 and "count, stacked, total: ABCI 3.0 needs" in text


def test_long_jobs_are_chains_and_chains_have_a_limit(house: House) -> None:
    text = check(house, "slurm", "minutes.count=600", 'launch.longest="01:00:00"', "launch.retries=5")
    assert "note: up to 11 jobs follow each other, and launch.retries=5 allows 6" in text


@pytest.mark.parametrize(
    ("launch", "code", "message"),
    [
        ("local", 0, "nothing is submitted"),
        ("abci2", 2, "ABCI 2.0 is retired (job service ended on 2024-10-31"),
        ("abci", 2, "unknown LAUNCH 'abci'. Did you mean 'abci3'?"),
        ("_batch", 2, "unknown LAUNCH '_batch'"),
    ],
)
def test_names(house: House, launch: str, code: int, message: str) -> None:
    assert message in check(house, launch, code=code)


def test_reproduce_refuses_before_anything_is_submitted(house: House, tmp_path: Path) -> None:
    text = house.run("reproduce", "--project", "toy", "--launch", "abci3", code=2)
    assert "nothing was submitted" in text and "RETHESIS_ACCOUNT" in text
    text = house.run("reproduce", "--project", "toy", "--launch", "fugaku", code=2, RETHESIS_ACCOUNT="grp")
    assert "pjsub is not on this machine: LAUNCH=fugaku starts on a login node" in text
    text = house.run(
        "reproduce", "--project", "toy", "--launch", "slurm", "launch.image=absent-0.sif", code=2,
    )  # fmt: skip
    assert "launch.image=absent-0.sif is not there; make container SITE=<site> builds it" in text
    assert not list(house.root.glob("results/.runs/toy/count"))
