"""Values of a launch profile that are of another type: one message each that names the key."""

from __future__ import annotations

import pytest
from launches import section

from common.cluster.profile import Profile, profile
from common.errors import BadInputError
from common.study.launch import cores
from common.tracking.provenance import usable_cores

ABCI = section("abci3")


def changed(**changes: object) -> Profile:
    return profile({**ABCI, **changes})


@pytest.mark.parametrize("name", ["retries", "jobs", "pack", "margin", "poll", "slack"])
@pytest.mark.parametrize("value", [None, "two", True, [1], float("nan")])
def test_a_number_is_a_number(name: str, value: object) -> None:
    with pytest.raises(BadInputError, match=rf"launch\.{name}=.* is no (whole )?number"):
        changed(**{name: value})


@pytest.mark.parametrize("name", ["retries", "jobs", "pack", "margin"])
def test_a_count_is_whole(name: str) -> None:
    with pytest.raises(BadInputError, match=rf"launch\.{name}=1\.5 is no whole number"):
        changed(**{name: 1.5})


@pytest.mark.parametrize("name", ["setup", "directives"])
@pytest.mark.parametrize("value", [None, "module load hpcx", ["ok", 1], {"a": "b"}])
def test_lines_are_a_list(name: str, value: object) -> None:
    with pytest.raises(
        BadInputError, match=rf"launch\.{name}=.* is no list of lines; write launch\.{name}=\["
    ):
        changed(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": {"rt_HC": "abc"}}, r"launch\.points\.rt_HC='abc' is no number"),
        ({"points": {"rt_HC": -1}}, r"launch\.points\.rt_HC=-1: at least 0"),
        ({"points": 5}, r"launch\.points=5: write launch\.points=\{CLASS:<price>\}"),
        ({"longest": None}, r"launch\.longest=.* is no time"),
        ({"runtime": None}, r"launch\.runtime is empty; write a name, such as apptainer"),
        ({"parallel_environment": None}, r"launch\.parallel_environment is empty"),
        ({"devices": "cude"}, r"unknown launch\.devices 'cude'\. Did you mean 'cuda'\?"),
        ({"stage_data": "later"}, r"launch\.stage_data='later': write true or false"),
        ({"poll": 0}, r"launch\.poll=0: at least 0\.1"),
    ],
)
def test_other_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        changed(**changes)


def test_what_may_be_null() -> None:
    chosen = changed(node_class=None, image=None, walltime=None, shortest=None, devices=None)
    assert (chosen.node_class, chosen.image, chosen.walltime, chosen.shortest, chosen.devices) == (
        "",
        "",
        0,
        0,
        "",
    )


def test_processes_at_once() -> None:
    assert cores(section("local")) == usable_cores()
    assert cores(section("local", cores=3)) == 3
    assert cores(section("slurm", jobs=5, pack=2)) == 10
    for changes in ({"cores": "two"}, {"cores": 0}, {"cores": 1.5}):
        with pytest.raises(BadInputError, match=r"launch\.cores="):
            cores(section("local", **changes))
    with pytest.raises(BadInputError, match=r"launch\.jobs=null"):
        cores(section("slurm", jobs=None))
