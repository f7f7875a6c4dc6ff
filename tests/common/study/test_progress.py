"""What a person sees while a study runs: states, shares, estimates, one line a process or a live table."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from common.errors import EXIT_OTHER
from common.files import write_json
from common.study.progress import Watch, duration, share, state
from common.study.store import mark_failed, write_spec
from common.study.tasks import Task, plan_tasks
from tests.common.study.jobs_example import finish, jobs, of, provenance


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.0, "0 s"), (0.5, "30 s"), (1.4, "84 s"), (1.6, "2 min"), (119.0, "119 min"), (186.0, "3.1 h")],
)
def test_durations_for_people(minutes: float, text: str) -> None:
    assert duration(minutes) == text


def start(task: Task, root: Path, done: int = 0, total: int = 0) -> None:
    for job in task.jobs:
        folder = write_spec(job, "laptop", root)
        write_json(folder / "provenance.json", provenance())
        if total:
            write_json(folder / "progress.json", {"done": done, "total": total})


def test_a_share_is_read_or_unknown(tmp_path: Path) -> None:
    assert share(tmp_path) is None
    for text in ("", "{", '{"done": 1}', "[]"):
        (tmp_path / "progress.json").write_text(text)
        assert share(tmp_path) is None, text
    write_json(tmp_path / "progress.json", {"done": 30, "total": 120})
    assert share(tmp_path) == 0.25
    write_json(tmp_path / "progress.json", {"done": 130, "total": 120})
    assert share(tmp_path) == 1.0


def test_a_state_is_of_this_run(tmp_path: Path) -> None:
    job, now = jobs()[0], time.time()
    folder = write_spec(job, "laptop", tmp_path)
    assert state(folder, now) == "waiting"
    write_json(folder / "provenance.json", provenance())
    assert state(folder, now - 60) == "running"
    os.utime(folder / "provenance.json", (now - 600, now - 600))  # an earlier run's, which was killed
    assert state(folder, now - 60) == "waiting"
    mark_failed(folder, EXIT_OTHER, "message", "trace")
    assert state(folder, now - 60) == "failed"
    os.utime(folder / "FAILED", (now - 600, now - 600))  # it is tried again
    assert state(folder, now - 60) == "waiting"
    finish(job, tmp_path)
    assert state(folder, now - 60) == "done"


def test_a_pipe_gets_one_line_a_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = plan_tasks(of(jobs(), "train"), tmp_path)
    with Watch(tasks, tmp_path, cores=2) as watch:
        watch()
        assert capsys.readouterr().out == ""
        for job in tasks[0].jobs:
            finish(job, tmp_path)
        mark_failed(write_spec(tasks[1].jobs[0], "laptop", tmp_path), EXIT_OTHER, "message", "trace")
        watch()  # within the same second: not looked at
        assert capsys.readouterr().out == ""
        for _ in range(2):
            watch.last = 0.0
            watch()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "train a: done · 1/4 ·" in lines[0]
    assert "left" in lines[0]
    assert "train a: FAILED · 2/4 ·" in lines[1]


def test_the_live_table_shows_stage_arm_and_every_replicate(tmp_path: Path) -> None:
    tasks = plan_tasks(of(jobs(), "train"), tmp_path)
    finish(tasks[0].jobs[0], tmp_path)
    watch = Watch(tasks, tmp_path, cores=2)
    watch.started -= 1
    start(tasks[2], tmp_path, done=37, total=100)
    states = {task.name: [state(job.folder(tmp_path), watch.started) for job in task.jobs] for task in tasks}
    screen = io.StringIO()
    Console(file=screen, width=100).print(watch.table(states))
    lines = screen.getvalue().splitlines()
    assert lines[0].split() == ["stage", "arm", "replicates", "state"]
    assert lines[1].split() == ["train", "a", "●", "○", "○", "waiting"]
    assert lines[3].split() == ["train", "b", "◐", "◐", "◐", "37%"]
    assert "0/4 processes" in lines[-1]


def test_the_estimate_shrinks_and_follows_the_pace(tmp_path: Path) -> None:
    tasks = plan_tasks(of(jobs(), "train"), tmp_path)  # four processes of two minutes
    watch = Watch(tasks, tmp_path, cores=2)

    def remaining() -> float:
        states = {
            task.name: [state(job.folder(tmp_path), watch.started) for job in task.jobs] for task in tasks
        }
        return watch.remaining(states)

    assert remaining() == pytest.approx(4.0)  # 8 minutes of work on two cores
    watch.started -= 60
    start(tasks[0], tmp_path, done=1, total=2)
    start(tasks[2], tmp_path, done=1, total=2)
    assert remaining() == pytest.approx(3.0, rel=0.01)  # one minute's work done in each of them, in a minute
    watch.started -= 60
    assert remaining() == pytest.approx(6.0, rel=0.01)  # it took twice as long as estimated
    for task in tasks:
        for job in task.jobs:
            finish(job, tmp_path)
    assert remaining() == 0.0


def test_the_longest_process_bounds_the_estimate(tmp_path: Path) -> None:
    found = of(jobs(minutes={"train": 30.0}), "train", arm="a")[:3]
    watch = Watch(plan_tasks(found, tmp_path), tmp_path, cores=8)
    assert watch.remaining({task.name: ["waiting"] * 3 for task in watch.tasks}) == pytest.approx(30.0)
