"""`launch-check` as a user meets it: a table, the price, everything that is wrong, exit code 2."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from pathlib import Path

import pytest
from house import House, make_house
from launches import ROOT, launch_of

from common.study.launch_check import examine


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = make_house(tmp_path_factory.mktemp("launch") / "house")
    for name in ("containers", "requirements"):  # what an image is compared with
        shutil.copytree(ROOT / name, house.root / name, dirs_exist_ok=True)
    return house


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
    arm = "launch.python=/arm/python"
    text = house.run(
        "reproduce", "--project", "toy", "--launch", "fugaku", arm, code=2, RETHESIS_ACCOUNT="grp"
    )
    assert "pjsub is not on this machine: LAUNCH=fugaku starts on a login node" in text
    text = house.run(
        "reproduce", "--project", "toy", "--launch", "slurm", "launch.image=absent-0.sif", code=2,
    )  # fmt: skip
    assert "launch.image=absent-0.sif is not there; make container SITE=<site> builds it" in text
    assert not list(house.root.glob("results/.runs/toy/count"))


@pytest.mark.parametrize(
    ("launch", "override", "message"),
    [
        (
            "abci3",
            'launch.directives=["-l walltime=01:00:00"]',
            "asks for 3600 s and the job stops itself by 600 s",
        ),
        (
            "slurm",
            'launch.directives=["--nodes=2"]',
            "a directive asks for 2 nodes and the job is made for 1",
        ),
        (
            "slurm",
            "launch.stage_data=true",
            "there is no folder data to copy: point RETHESIS_DATA to the data",
        ),
        (
            "slurm",
            "launch.image=configs/config.yaml",
            "config.yaml is not named like an image of `make container`",
        ),
        ("fugaku", "launch.poll=1", "the nodes of Fugaku are aarch64 and this is"),
        ("slurm", "launch.executor=snake", "unknown launch.executor 'snake'"),
        ("slurm", "launch=abci3", "the site is no override: LAUNCH=abci3 beside ARGS names it"),
    ],
)
@pytest.mark.skipif(platform.machine() == "aarch64", reason="Fugaku's own kind of machine")
def test_what_would_fail_on_the_node_is_seen_before(
    house: House, launch: str, override: str, message: str
) -> None:
    assert message in check(house, launch, override, code=2, RETHESIS_ACCOUNT="grp")


def test_an_image_whose_labels_cannot_be_read_is_no_traceback(house: House, tmp_path: Path) -> None:
    (house.root / "cpu-1.sif").touch()
    program = tmp_path / "apptainer"
    for answer, message in (
        ("echo no json", "has no labels that apptainer shows"),
        ('echo \'{"data": {"attributes": {}}}\'', "has no labels that apptainer shows"),
        ("exit 3", "cannot be read as an image: apptainer ended with code 3"),
    ):
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        text = check(house, "slurm", "launch.image=cpu-1.sif", code=2, PATH=path)
        assert f"launch.image=cpu-1.sif: {house.root / 'cpu-1.sif'} {message}" in text
    text = check(house, "lumi", "launch.image=cpu-1.sif", RETHESIS_ACCOUNT="grp")
    assert "without singularity here the packages of cpu-1.sif are not compared" in text
    (house.root / "cpu-1.sif").unlink()


def test_a_path_that_schedulers_read_otherwise_is_refused(tmp_path: Path) -> None:
    chosen = launch_of("slurm")
    _, wrong = examine([], chosen, tmp_path)
    assert wrong == []
    _, (fault,) = examine([], chosen, tmp_path / "my repo,50%")
    assert "holds ' ' '%' ',', which schedulers read otherwise" in fault


def test_accounts_that_cannot_be_read(house: House) -> None:
    (house.root / ".accounts").write_bytes(b"abci3=\xff\n")
    assert ".accounts cannot be read" in check(house, "abci3", code=2)
    (house.root / ".accounts").unlink()
