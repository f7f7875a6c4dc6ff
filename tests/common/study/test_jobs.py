"""From a grid to jobs: products, variants, matching of inputs, errors that name the nearest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common.errors import BadInputError
from common.study.jobs import Job, expand, select
from common.study.model import Need, Stage, Study
from common.tracking.provenance import cpu_model
from tests.common.study.jobs_example import RUN, TEST, TRAIN, config, jobs, of


def study(*stages: Stage) -> Study:
    return Study("demo", "", "", "", stages, packages=())


def labels(found: list[Job] | tuple[Job, ...]) -> list[str]:
    return [job.label for job in found]


def test_the_grid_is_a_product_with_seeds_and_variants_reach_their_arm_alone() -> None:
    jobs = expand(study(TRAIN), config(grid={"train": [{"arm": ["a", "b"]}]}))
    assert labels(jobs)[:2] == ["train arm=a seed=0", "train arm=a seed=1"] and len(jobs) == 8
    assert {job.config["model"]["width"] for job in jobs if job.axes["arm"] == "b"} == {8}
    assert {job.config["model"]["width"] for job in jobs if job.axes["arm"] == "a"} == {4}
    assert [job.role for job in jobs[:4]] == ["study", "study", "study", "validation"]
    assert len({job.fingerprint for job in jobs}) == 8


def test_an_entry_may_be_for_the_seeds_of_one_role_only() -> None:
    grid = {"train": [{"arm": ["a"], "seeds": "study"}, {"arm": ["b"], "seeds": "validation"}]}
    jobs = expand(study(TRAIN), config(grid=grid))
    assert [(job.axes["arm"], job.role) for job in jobs] == [("a", "study")] * 3 + [("b", "validation")]
    with pytest.raises(BadInputError, match="validation"):
        expand(study(TRAIN), config(grid={"train": [{"arm": ["a"], "seeds": "validate"}]}))


def test_a_measurement_of_another_cpu_model_is_another_job() -> None:
    timed = study(replace(TRAIN, measures_host=True), TEST)
    here, there = expand(timed, config()), expand(timed, config(), cpu="An abacus")
    assert not {job.fingerprint for job in here} & {job.fingerprint for job in there}
    assert [job.fingerprint for job in expand(timed, config(), cpu=cpu_model())] == [
        job.fingerprint for job in here
    ]


def test_memory_is_the_stages_own_unless_the_configuration_says_otherwise_and_enters_no_fingerprint() -> None:
    plain = jobs()
    told = jobs(
        memory_gb={"train": 5}, variants={"arm": {"b": {"model": {"width": 8}, "memory_gb": {"train": 9}}}}
    )
    assert {job.resources.memory_gb for job in plain} == {2.0}
    assert {job.resources.memory_gb for job in of(told, "train", arm="a")} == {5.0}
    assert {job.resources.memory_gb for job in of(told, "train", arm="b")} == {9.0}
    assert {job.resources.memory_gb for job in of(told, "test")} == {2.0}
    assert [job.fingerprint for job in told] == [job.fingerprint for job in plain]


def test_overlapping_products_name_a_job_once() -> None:
    grid = {"train": [{"arm": ["a"]}, {"arm": ["a", "b"], "seed": [0, 1]}]}
    assert len(expand(study(TRAIN), config(grid=grid))) == 4 + 2


def test_inputs_match_on_shared_axes_and_fan_in_on_the_rest() -> None:
    jobs = expand(study(TRAIN, TEST), config())
    tests = [job for job in jobs if job.stage.name == "test"]
    assert all(labels(tuple(job.inputs["train"])) == [job.label.replace("test", "train")] for job in tests)
    pooled = Stage("test", RUN, ("arm",), (Need("train"),))
    job = expand(study(TRAIN, pooled), config())[-1]
    assert [need.axes["seed"] for need in job.inputs["train"]] == [0, 1, 2, 900]
    across = Stage("test", RUN, ("arm", "seed"), (Need("train", {"seed": None}),))
    assert len(expand(study(TRAIN, across), config())[-1].inputs["train"]) == 4


def test_an_input_may_be_named_by_the_config_and_be_absent() -> None:
    by_config = Stage(
        "test", RUN, ("arm", "seed"), (Need("train", {"arm": "model.source"}),), config=("model",)
    )
    grid = {"train": [{"arm": ["a"]}], "test": [{"arm": ["a", "b"]}]}
    variants = {"arm": {"b": {"model": {"source": "a"}}}}
    jobs = expand(study(TRAIN, by_config), config(grid=grid, variants=variants))
    found = {job.axes["arm"]: len(job.inputs["train"]) for job in jobs if job.stage.name == "test"}
    assert found == {"a": 0, "b": 1}


def test_a_consumer_changes_with_its_producer_and_not_with_others() -> None:
    before = {job.label: job.fingerprint for job in expand(study(TRAIN, TEST), config())}
    after_jobs = expand(study(TRAIN, TEST), config(variants={"arm": {"b": {"model": {"width": 9}}}}))
    changed = [job.label for job in after_jobs if before[job.label] != job.fingerprint]
    assert changed and all("arm=b" in label for label in changed)
    minutes = expand(study(TRAIN, TEST), config(minutes={"train": 7.0}))
    assert {job.label: job.fingerprint for job in minutes} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"trian": [{"arm": ["a"]}]}}, "Did you mean 'train'"),
        ({"grid": {"train": [{"method": ["a"]}]}}, "has axes"),
        ({"variants": {"arm": {"b": {"model": {"widht": 8}}}}}, "Did you mean 'width'"),
        ({"variants": {"arm": {"b": {"modle": {"width": 8}}}}}, "Did you mean 'model'"),
        ({"grid": {"train": [{"arm": ["a"]}], "test": [{"arm": ["b"]}]}}, "which the grid does not have"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        expand(study(TRAIN, TEST), config(**changes))


def test_an_unknown_arm_is_named() -> None:
    stage = Stage("train", RUN, ("arm", "seed"), arms={"arm": {"a": RUN, "bb": RUN}})
    with pytest.raises(BadInputError, match="Did you mean 'bb'"):
        expand(study(stage), config(grid={"train": [{"arm": ["b"]}]}))


def test_select_keeps_what_the_chosen_need() -> None:
    jobs = expand(study(TRAIN, TEST), config())
    chosen = select(jobs, ["test", "b"])
    assert {job.label.split(" seed")[0] for job in chosen} == {"test arm=b", "train arm=b"}
    with pytest.raises(BadInputError, match="Did you mean 'test'"):
        select(jobs, ["tset"])
