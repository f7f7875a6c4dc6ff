"""`make repeat` on the toy thesis: what it runs, what it compares, what it writes, and when it refuses."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from house import House, make_house, wait_for
from hypothesis import given
from hypothesis import strategies as st

from common.study.collect import csv_text
from common.study.jobs import Job, expand
from common.study.model import Need
from common.study.repeat import choose, difference, key_of, rows_by_key
from common.study.store import FIXED
from tests.common.study.jobs_example import MEAN, STUDY, TEST, TRAIN, config, jobs

pytestmark = pytest.mark.timeout(180)
SMOKE = ("--project", "toy", "--scale", "smoke")
RESULT = Path("results/toy/smoke")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house in which the smoke study was run once; tests leave it as it is."""
    house = make_house(tmp_path_factory.mktemp("finished") / "house")
    house.run("reproduce", *SMOKE, "--track", "off")
    return house


@pytest.fixture
def clone(finished: House, tmp_path: Path) -> House:
    """What a fresh clone holds: code and evidence, no runs."""
    ignore = shutil.ignore_patterns(".runs", ".snakemake", "calls.txt", "__pycache__")
    return House(Path(shutil.copytree(finished.root, tmp_path / "clone", ignore=ignore)))


def entries(house: House) -> list[dict[str, Any]]:
    path = house.root / RESULT / "repeated.json"
    return json.loads(path.read_text()) if path.is_file() else []


def report(house: House) -> str:
    return (house.root / RESULT / "report.md").read_text()


def test_one_seed_of_every_arm_gives_the_evidence_again(clone: House) -> None:
    before = report(clone)
    output = clone.run("repeat", *SMOKE)
    assert (
        "4 of the 10 jobs of toy at scale smoke are repeated, with seed 0; left out: 4 of other seeds, "
        in output
    )
    assert "2 that read other seeds" in output
    assert "4 of 4 repeated jobs (seed 0) gave the same numbers to the last digit." in output
    assert sorted(clone.calls()) == ["count fast 0", "count slow 0", "stacked fast 0", "stacked slow 0"]
    (entry,) = entries(clone)
    assert (entry["jobs"], entry["equal"], entry["changed"], entry["seeds"]) == (4, 4, 0, [0])
    assert entry["differing"] == [] and entry["packages"] == {}
    section = report(clone).partition("## Repeated")[2].partition("## How it was run")
    assert "4 of 4 repeated jobs (seed 0)" in section[0] and section[1]
    assert report(clone).replace("## Repeated" + section[0], "") == before

    clone.run("repeat", *SMOKE)  # compares again, runs nothing
    assert len(clone.calls()) == 4 and len(entries(clone)) == 1
    assert "10 of 10 repeated jobs (seeds 0, 1)" in clone.run("repeat", *SMOKE, "--seeds", "2")
    assert len(clone.calls()) == 4 + 2 + 2 + 2  # the other seed of each arm, and the fan-ins
    assert "nothing to do: all 10 jobs are done" in clone.run("reproduce", *SMOKE, "--track", "off")
    assert entries(clone)[0]["jobs"] == 10


def test_a_changed_constant_is_told_and_new_evidence_ends_what_was_said(clone: House) -> None:
    clone.edit("projects/toy/fast.py", "3.0", "6.0")
    path = clone.root / RESULT / "environment.json"
    environment = json.loads(path.read_text())
    numpy = environment["packages"]["numpy"]
    path.write_text(json.dumps(environment | {"cpus": ["An abacus"], "packages": {"numpy": "0.1"}}))
    output = clone.run("repeat", *SMOKE, code=1)
    assert "differs: count score (1 job, by at most 0.5 of its value)" in output
    assert "2 of 4 repeated jobs (seed 0) gave the same numbers" in output
    assert f"Other versions than the evidence’s: numpy {numpy} (was 0.1)." in output
    assert "The evidence is of An abacus: another CPU model" in output
    (entry,) = entries(clone)
    assert [(each["stage"], each["jobs"]) for each in entry["differing"]] == [("count", 1), ("stacked", 1)]
    assert [each["largest"] for each in entry["differing"]] == [0.5, 0.5]  # (6 - 3) / 6, and sums of it
    assert entry["changed"] == 2 and entry["packages"] == {"numpy": ["0.1", numpy]}
    clone.run("dashboard")
    index = (clone.root / "results" / ".site" / "index.html").read_text()
    assert "since this evidence was made; at " in index and ", 2 of 4 jobs run again gave" in index
    assert "2 of the repeated jobs ran other code" in report(clone)

    clone.run("reproduce", *SMOKE, "--track", "off")
    assert not entries(clone) and "## Repeated" not in report(clone)
    assert "may be the very runs" in clone.run(
        "repeat", *SMOKE, code=2
    )  # what it had run is the evidence now


def test_runs_of_the_evidence_itself_do_not_count(finished: House, tmp_path: Path) -> None:
    output = finished.run("repeat", *SMOKE, code=2)
    assert "these jobs are done already in results/.runs/toy" in output
    assert "git clone . ../repeat-toy && cd ../repeat-toy && make repeat PROJECT=toy SCALE=smoke" in output
    assert not entries(finished) and len(finished.calls()) == 8

    partly = House(Path(shutil.copytree(finished.root, tmp_path / "partly")))
    for path in partly.runs().glob("count/*/job.json"):
        if json.loads(path.read_text())["axes"] == {"arm": "fast", "seed": 0}:
            shutil.rmtree(path.parent)
    output = partly.run("repeat", *SMOKE)
    assert "3 of them were done before, perhaps when the evidence was made: they do not count" in output
    assert "1 of 1 repeated jobs (seed 0) gave the same numbers" in output


def test_an_interrupted_command_goes_on_and_counts_all_that_it_ran(clone: House) -> None:
    process = clone.start("repeat", *SMOKE, TOY_SLEEP="0.5")
    wait_for(lambda: bool(list(clone.runs().glob("count/*/DONE"))))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in output
    assert not entries(clone)
    assert "4 of 4 repeated jobs" in clone.run("repeat", *SMOKE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--project", "toy"), "no evidence at results/toy/laptop; make reproduce makes it."),
        ((*SMOKE, "--seeds", "3"), "SEEDS=3: this study has 2 seeds; choose 1 to 2."),
        ((*SMOKE, "--seeds", "0"), "SEEDS=0: this study has 2 seeds"),
        ((*SMOKE, "toy.steps=3"), "without ONLY and ARGS"),
        ((*SMOKE, "--only", "fast"), "without ONLY and ARGS"),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    finished: House, arguments: tuple[str, ...], message: str
) -> None:
    assert message in finished.run("repeat", *arguments, code=2)


def chosen(
    found: list[Job], seeds: list[int], without: str = ""
) -> tuple[set[tuple[str, ...]], dict[str, int]]:
    evidence = {key_of(job): dict[str, str]() for job in found if job.stage.name != without}
    kept, left = choose(found, seeds, evidence)
    return {key_of(job) for job in kept}, dict(left)


def test_a_fan_in_over_seeds_is_left_out_until_all_seeds_are_chosen() -> None:
    one = {(stage, arm, "0") for stage in ("train", "test") for arm in "ab"}
    left = {
        "of other seeds": 8,
        "of validation seeds that none of these reads": 4,
        "that read other seeds": 2,
    }
    assert chosen(jobs(), [0]) == (one, left)
    kept, left = chosen(jobs(), [0, 1, 2])
    # The mean reads the validation seed's jobs, too: they come as what it needs.
    assert len(kept) == len(jobs()) and left == {}


def test_times_and_what_reads_them_are_left_out() -> None:
    timed = replace(STUDY, stages=(TRAIN, replace(TEST, measures_host=True), MEAN))
    grid = {name: [{"arm": ["a", "b"]}] for name in ("train", "test", "mean")}
    kept, left = chosen(expand(timed, config(grid=grid)), [0])
    assert kept == {("train", "a", "0"), ("train", "b", "0")}
    assert left["that measure times or read them"] == 2 + 2 + 2  # seed 0, the validation seed, the means


def test_a_choice_on_validation_seeds_comes_with_what_reads_it() -> None:
    reads = replace(TEST, needs=(Need("train", on={"seed": None}),))
    study = replace(STUDY, stages=(TRAIN, reads))
    train = [{"arm": ["a", "b"], "seeds": "validation"}]
    found = expand(study, config(grid={"train": train, "test": [{"arm": ["a"], "seeds": "study"}]}))
    kept, left = chosen(found, [1])
    assert kept == {("train", "a", "900"), ("test", "a", "1")}
    assert left == {"of other seeds": 2, "of validation seeds that none of these reads": 1}


def test_an_arm_that_the_evidence_does_not_have_is_left_out() -> None:
    kept, left = chosen(jobs(), [0], without="test")
    assert kept == {("train", "a", "0"), ("train", "b", "0")}
    assert left["that the evidence has no row of"] == 2


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_equal_to_the_last_bit_or_differ_by_a_share(a: float, b: float) -> None:
    def row(value: float) -> Any:
        cells = {"stage": "mean", "arm": "a,\n", "status": "done", "score": value}
        return rows_by_key(STUDY, csv_text([cells], FIXED))["mean", "a,\n"]

    found = difference(row(a), row(b))
    assert (found == {}) == (a == b)
    if found:
        size = found["score"]
        assert size is not None and 0 < size <= 2 and difference(row(b), row(a)) == found


def test_a_job_that_ended_otherwise_and_a_metric_that_is_gone_differ() -> None:
    done = {"status": "done", "score": "1.0", "role": "study"}
    assert difference(done, {"status": "diverged"}) == {"status": None}
    assert difference({"status": "diverged"}, {"status": "diverged"}) == {}
    assert difference(done, {"status": "done", "new": "2.0"}) == {"score": None}
    assert difference(done, done | {"new": "2.0", "role": "validation", "score": "1"}) == {}
