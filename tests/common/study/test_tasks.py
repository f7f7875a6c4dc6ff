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
from common.study.launch import SHORT, packed
from common.study.store import mark_failed, write_spec
from common.study.tasks import STACK, Task, plan_tasks
from tests.common.study.jobs_example import finish, jobs, of
from tests.support.launches import section


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


def series(tasks: list[Task], cores: int, minutes: float) -> dict[str, list[int]]:
    """Sizes of the processes of each stage, where a task takes `minutes`."""
    changed = [
        replace(task, jobs=tuple(replace(job, minutes=minutes) for job in task.jobs)) for task in tasks
    ]
    sizes: dict[str, list[int]] = {}
    for pack in packed(changed, local(cores)):
        sizes.setdefault(pack.stage, []).append(len(pack.tasks))
        assert {task.stage for task in pack.tasks} == {pack.stage}
    return sizes


def test_short_tasks_of_a_stage_share_a_process_but_leave_no_core_without_work(tmp_path: Path) -> None:
    tasks = plan_tasks(jobs(), tmp_path)
    assert series(tasks, 1, 0.1) == {"train": [4], "test": [8], "mean": [2]}
    assert series(tasks, 2, 0.1) == {"train": [2, 2], "test": [4, 4], "mean": [1, 1]}
    assert series(tasks, 3, 0.1) == {"train": [2, 2], "test": [3, 3, 2], "mean": [1, 1]}
    assert series(tasks, 1, 0.0) == {"train": [4], "test": [8], "mean": [2]}
    assert series(tasks, 1, SHORT) == {"train": [4], "test": [4, 4], "mean": [2]}  # two minutes together
    assert series(tasks, 1, 1.01 * SHORT) == {"train": [1] * 4, "test": [1] * 8, "mean": [1] * 2}


def test_a_process_of_several_tasks_waits_for_what_any_of_them_needs(tmp_path: Path) -> None:
    tasks = plan_tasks(jobs(), tmp_path)
    short = [replace(task, jobs=tuple(replace(job, minutes=0.1) for job in task.jobs)) for task in tasks]
    packs = {pack.name: pack for pack in packed(short, local(2))}
    owner = {task.name: pack.name for pack in packs.values() for task in pack.tasks}
    for pack in packs.values():
        assert set(pack.needs) == {owner[need] for task in pack.tasks for need in task.needs}


@pytest.mark.parametrize(("memory", "sizes"), [(7, [8]), (64, [5, 3]), (320, [1] * 8), (999, [1] * 8)])
def test_a_pack_fits_into_a_node(tmp_path: Path, memory: float, sizes: list[int]) -> None:
    tasks = plan_tasks(jobs(memory_gb={"test": memory}), tmp_path)
    packs = packed(tasks, section("abci3", node_class="rt_HC", pack=16))  # 320 GB
    mine = [pack for pack in packs if pack.stage == "test"]
    assert [len(pack.tasks) for pack in mine] == sizes
    assert [pack.ask and pack.ask.memory_gb for pack in mine] == [memory * size for size in sizes]


def test_measurements_share_no_process(tmp_path: Path) -> None:
    tasks = [replace_stage(task) for task in plan_tasks(jobs(), tmp_path) if task.stage in ("train", "test")]
    assert series(tasks, 1, 0.1) == {"train": [1] * 4, "test": [8]}


def test_what_failed_in_this_run_is_left_out_with_its_readers(tmp_path: Path) -> None:
    found = jobs()
    bad = of(found, "test", arm="a", seed=1)[0]
    left = [job for task in plan_tasks(found, tmp_path, without={bad.fingerprint}) for job in task.jobs]
    assert bad not in left
    assert [len(of(left, "mean", arm=arm)) for arm in "ab"] == [0, 1]


def local(cores: int) -> dict[str, object]:
    return {"executor": "local", "cores": cores}


def replace_stage(task: Task) -> Task:
    """The same process, of a stage that measures the host if it is `train`."""
    changed = [
        replace(job, stage=replace(job.stage, measures_host=job.stage.name == "train")) for job in task.jobs
    ]
    return replace(task, jobs=tuple(changed))


def test_the_time_of_a_plan_is_that_of_its_longest_chain_where_there_is_room(tmp_path: Path) -> None:
    found = jobs()
    tasks = plan_tasks(found, tmp_path)
    minutes = {task.name: task.minutes for task in tasks}
    chains = [
        minutes[task.name] + max((_chain(need, tasks) for need in task.needs), default=0.0) for task in tasks
    ]
    many = {**section("slurm"), "jobs": 1000}
    assert engine.minutes(tasks, many) == pytest.approx(max(chains))
    assert engine.minutes(tasks, {**many, "jobs": 1}) == pytest.approx(sum(minutes.values()))
    assert engine.minutes([], many) == 0.0


def _chain(name: str, tasks: list[Task]) -> float:
    (task,) = (one for one in tasks if one.name == name)
    return task.minutes + max((_chain(need, tasks) for need in task.needs), default=0.0)
