"""The config section `parallel`: who may have several processes, what is asked for, and that they train as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fitting import SMALL, fitting, ranks, score

from common.errors import BadInputError
from common.study.jobs import Job, expand
from common.study.model import Resources, Study
from tests.common.study.jobs_example import TEST, TRAIN, config

FIT = replace(TRAIN, parallel=("ddp", "fsdp"), config=("model", "device"), resources=Resources(memory_gb=3))
STUDY = Study("demo", "", "", "", (FIT, TEST), packages=())


def jobs(**changes: Any) -> tuple[Job, Job]:
    """A training and what reads it."""
    found = expand(STUDY, config(**changes))
    return next(job for job in found if job.stage.parallel), found[-1]


def several(nodes: int, processes: int, strategy: str = "ddp") -> dict[str, Any]:
    return {
        "parallel": {"nodes": nodes, "processes": processes, "strategy": strategy},
        "launch": {"executor": "batch"},
    }


def test_only_a_training_gets_several_processes_and_a_gpu_each() -> None:
    training, reader = jobs(**several(2, 4), device="cuda")
    assert training.resources == Resources(memory_gb=3, gpus=4, nodes=2, processes=4)
    assert reader.resources == Resources()
    assert jobs(device="cuda")[0].resources.gpus == 1
    assert jobs(**several(2, 4))[0].resources.gpus == 0


def test_one_process_leaves_every_fingerprint_alone_and_several_change_those_of_trainings() -> None:
    plain = {
        job.label: job.fingerprint
        for job in expand(replace(STUDY, stages=(replace(FIT, parallel=()), TEST)), config())
    }
    alone = {job.label: job.fingerprint for job in expand(STUDY, config())}
    assert alone == plain
    prints = {jobs(**several(*how))[0].fingerprint for how in ((1, 2), (2, 1), (2, 1, "fsdp"))}
    assert len(prints | {jobs()[0].fingerprint}) == 4


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"nodes": 0, "processes": 1, "strategy": "ddp"},
            "parallel.nodes=0, parallel.processes=1: at least 1",
        ),
        ({"nodes": 1, "processes": 2, "strategy": "fdsp"}, "'fdsp'.*fsdp"),
        ({"nodes": 2, "processes": 1, "strategy": "ddp"}, "LAUNCH=local is one machine"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(section: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        jobs(parallel=section)


def test_a_strategy_that_is_not_for_a_stage_is_refused_before_anything_starts() -> None:
    study = replace(STUDY, stages=(replace(FIT, parallel=("ddp",)), TEST))
    assert expand(study, config(**several(1, 2))) and expand(study, config(**several(1, 1, "fsdp")))
    with pytest.raises(BadInputError, match=r"parallel.strategy=fsdp: stage \w+ runs .* by ddp only"):
        expand(study, config(**several(1, 2, "fsdp")))


def test_a_device_that_is_none_or_not_for_a_training_is_refused() -> None:
    with pytest.raises(BadInputError, match="unknown device 'gpu'"):
        jobs(device="gpu")
    study = replace(STUDY, stages=(replace(FIT, config=("model",)), TEST))
    assert expand(study, config())
    with pytest.raises(BadInputError, match=r"device=cuda: stage train trains on the CPU only"):
        expand(study, config(device="cuda"))


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    study = replace(STUDY, stages=(replace(FIT, shares={"model.batch": 4}), TEST))
    model = config()["model"]

    def three(batch: int) -> list[Job]:
        return expand(study, config(**several(1, 3), model=model | {"batch": batch}))

    assert three(24) and expand(study, config(model=model | {"batch": 2}))
    with pytest.raises(BadInputError, match=r"model.batch is 32: 3 processes need a multiple of 12"):
        three(32)


@pytest.mark.timeout(240)
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_on_this_machine_train_as_one(tmp_path: Path, strategy: str) -> None:
    one, two = fitting(tmp_path / "one"), fitting(tmp_path / "two")
    study = ("reproduce", "--project", "toy", "--scale", "laptop", "--track", "off")
    one.run(*study, *SMALL)
    output = two.run(*study, "parallel.processes=2", f"parallel.strategy={strategy}", *SMALL)
    assert "laptop+" in output, "several processes are another study than the committed one"
    assert ranks(two) == ["0 2 0 torchrun", "1 2 0 torchrun"]
    assert score(one) == pytest.approx(score(two), abs=1e-12)
    (folder,) = two.runs().glob("count/*")
    assert not list(folder.glob("rank*"))
