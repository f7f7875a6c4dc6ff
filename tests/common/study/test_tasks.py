"""Processes: stacks of at most eight, dependencies among what is open, and what failed for good is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_OTHER
from common.files import read_json
from common.study import engine
from common.study.engine import write_plan
from common.study.jobs import Job
from common.study.store import mark_failed, write_spec
from common.study.tasks import STACK, Task, plan_tasks
from tests.common.study.jobs_example import finish, jobs, of


def fail(job: Job, root: Path, code: int, times: int = 1) -> None:
    folder = write_spec(job, "laptop", root)
    for _ in range(times):
        mark_failed(folder, code, "message", "trace")


def shape(tasks: list[Task]) -> dict[tuple[str, str], list[int]]:
    """(stage, arm) -> sizes of its processes."""
    sizes: dict[tuple[str, str], list[int]] = {}
    for task in tasks:
        sizes.setdefault((task.stage, task.arm), []).append(len(task.jobs))
    return sizes


def test_members_of_a_stack_share_arm_and_role(tmp_path: Path) -> None:
    found = jobs(seeds={"first": 0, "count": 2 * STACK + 1})
    sizes = shape(plan_tasks(found, tmp_path))
    assert sizes["train", "a"] == [8, 8, 1, 1]  # the last is the validation seed, alone in its role
    assert sizes["test", "a"] == [1] * 18  # not stacked
    assert sizes["mean", "b"] == [1]
    assert sum(sum(counts) for counts in sizes.values()) == len(found)


def test_done_jobs_leave_their_stack(tmp_path: Path) -> None:
    found = jobs()
    finish(of(found, "train", arm="a", seed=1)[0], tmp_path)
    stack = next(task for task in plan_tasks(found, tmp_path) if task.stage == "train" and task.arm == "a")
    assert [job.axes["seed"] for job in stack.jobs] == [0, 2]


def test_a_process_waits_for_open_inputs_only(tmp_path: Path) -> None:
    found = jobs()
    for job in of(found, "train", arm="a"):
        finish(job, tmp_path)
    tasks = plan_tasks(found, tmp_path)
    names = {task.name: task for task in tasks}
    for task in tasks:
        wanted = {"train": set(), "test": {"train"} if task.arm == "b" else set(), "mean": {"test"}}[
            task.stage
        ]
        assert {names[name].stage for name in task.needs} == wanted
        assert {names[name].arm for name in task.needs} <= {task.arm}


def test_all_done_is_nothing_to_do(tmp_path: Path) -> None:
    found = jobs()
    for job in found:
        finish(job, tmp_path)
    assert plan_tasks(found, tmp_path) == []


def test_a_deterministic_failure_is_tried_once_more_and_then_takes_its_readers_along(tmp_path: Path) -> None:
    found = jobs()
    bad = of(found, "test", arm="a", seed=1)[0]
    for times, left in ((1, 1), (1, 0)):
        fail(bad, tmp_path, EXIT_BAD_INPUT, times)
        open_jobs = [job for task in plan_tasks(found, tmp_path) for job in task.jobs]
        assert len(of(open_jobs, "test", arm="a", seed=1)) == left
        assert len(of(open_jobs, "mean", arm="a")) == left
        assert len(of(open_jobs, "test", arm="b")) == 4
        assert len(of(open_jobs, "mean", arm="b")) == 1


def test_another_failure_is_tried_again_and_again(tmp_path: Path) -> None:
    found = jobs()
    fail(found[0], tmp_path, EXIT_OTHER, times=5)
    assert found[0] in [job for task in plan_tasks(found, tmp_path) for job in task.jobs]


def test_a_diverged_member_runs_alone_the_others_together(tmp_path: Path) -> None:
    found = jobs()
    for job in of(found, "train", arm="a", seed=2):
        fail(job, tmp_path, EXIT_NON_FINITE)
    assert sorted(shape(plan_tasks(found, tmp_path))["train", "a"]) == [1, 1, 2]


def test_a_name_depends_on_its_members_alone(tmp_path: Path) -> None:
    first = {task.name: [job.fingerprint for job in task.jobs] for task in plan_tasks(jobs(), tmp_path)}
    again = {task.name: [job.fingerprint for job in task.jobs] for task in plan_tasks(jobs(), tmp_path)}
    assert first == again
    finish(of(jobs(), "train", arm="a", seed=1)[0], tmp_path)
    smaller = {task.name for task in plan_tasks(jobs(), tmp_path)}
    assert len(smaller - first.keys()) == 1


def test_a_stack_costs_what_one_process_costs(tmp_path: Path) -> None:
    tasks = plan_tasks(jobs(), tmp_path)
    assert {task.minutes for task in tasks if task.stage == "train"} == {2.0}
    assert {task.arm for task in tasks} == {"a", "b"}


def test_a_measurement_has_the_machine_to_itself(tmp_path: Path) -> None:
    tasks = [replace_stage(task) for task in plan_tasks(jobs(), tmp_path) if task.stage in ("train", "test")]
    write_plan(tasks, "laptop", tmp_path / "engine", local(4), tmp_path)
    threads = {
        name: stage["threads"] for name, stage in read_json(tmp_path / "engine/tasks.json")["stages"].items()
    }
    assert threads == {"train": 4, "test": 1}
    alone = sum(task.minutes for task in tasks if task.alone)
    beside = sum(task.minutes for task in tasks if not task.alone)
    assert engine.minutes(tasks, local(4)) == pytest.approx(alone + beside / 4)


def local(cores: int) -> dict[str, object]:
    return {"executor": "local", "cores": cores}


def replace_stage(task: Task) -> Task:
    """The same process, of a stage that measures the host if it is `train`."""
    changed = [
        replace(job, stage=replace(job.stage, measures_host=job.stage.name == "train")) for job in task.jobs
    ]
    return replace(task, jobs=tuple(changed))
