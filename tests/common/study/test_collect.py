"""From finished jobs to tables: rows, statuses, curves, cost, the worst value of what diverged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import EXIT_NON_FINITE, EXIT_OTHER
from common.files import read_json
from common.study import collect
from common.study.jobs import Job
from common.study.model import Metric, Scaled
from common.study.store import mark_failed, write_spec
from tests.common.study.jobs_example import STUDY, finish, jobs, of


def history(rows: int) -> str:
    return "".join(json.dumps({"step": 10 * i, "loss": 1 / (1 + i)}) + "\n" for i in range(rows))


def fail(job: Job, root: Path, code: int) -> None:
    mark_failed(write_spec(job, "laptop", root), code, "message", "trace")


def test_a_row_a_job_with_its_status(tmp_path: Path) -> None:
    found = of(jobs(), "train", arm="a")
    finish(found[0], tmp_path, metrics={"score": 0.25, "steps": 7})
    fail(found[1], tmp_path, EXIT_NON_FINITE)
    fail(found[2], tmp_path, EXIT_OTHER)
    rows = collect.rows_of(found, "laptop", tmp_path)
    assert [row["status"] for row in rows] == ["done", "diverged", "failed", "missing"]
    assert [row["role"] for row in rows] == ["study", "study", "study", "validation"]
    assert rows[0] == {
        "project": "demo",
        "scale": "laptop",
        "stage": "train",
        "status": "done",
        "role": "study",
        "fingerprint": found[0].fingerprint,
        "arm": "a",
        "seed": 0,
        "score": 0.25,
        "steps": 7.0,
    }
    assert "score" not in rows[1]


def test_csv_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [{"stage": "a,b", "x": 0.1 + 0.2, "n": 3}, {"stage": 'say "x"', "note": "two\nlines"}]
    (tmp_path / "t.csv").write_text(collect.csv_text(rows, ("stage",)))
    assert collect.read_csv(tmp_path / "t.csv") == rows


@given(st.floats(allow_nan=False), st.integers())
def test_csv_keeps_every_bit_of_a_number(x: float, n: int) -> None:
    line = collect.csv_text([{"x": x, "n": n}], ()).splitlines()[1].split(",")
    assert math.copysign(1, float(line[0])) == math.copysign(1, x)
    assert float(line[0]) == x
    assert int(line[1]) == n


@pytest.mark.parametrize(("length", "points"), [(1, 1), (60, 60), (61, 31), (1000, 60), (10_001, 61)])
def test_a_curve_is_thinned_and_keeps_both_ends(tmp_path: Path, length: int, points: int) -> None:
    job = jobs()[0]
    finish(job, tmp_path, history=history(length))
    rows = collect.curve_rows([job], tmp_path)
    assert len(rows) == points
    assert (rows[0]["step"], rows[-1]["step"]) == (0, 10 * (length - 1))
    assert rows[0] == {"stage": "train", "arm": "a", "seed": 0, "step": 0, "key": "loss", "value": 1.0}


def test_a_lost_value_leaves_a_gap_and_no_curve_is_no_row(tmp_path: Path) -> None:
    first, second = jobs()[:2]
    finish(first, tmp_path, history='{"step":0,"loss":null,"kl":1}\n{"step":1,"loss":2.0}\n')
    finish(second, tmp_path)
    rows = collect.curve_rows([first, second], tmp_path)
    assert [(row["step"], row["key"]) for row in rows] == [(0, "kl"), (1, "loss")]


def test_members_of_a_stack_are_one_cost(tmp_path: Path) -> None:
    found = of(jobs(), "train")
    for job in found:
        start = 0.0 if job.axes["arm"] == "a" else 60.0
        # two stacks, one after the other
        finish(job, tmp_path, start=start, end=start + 60.0, cpu=60.0, process=str(job.axes["arm"]))
    told = collect.environment_of(STUDY, found, tmp_path, scale="laptop")
    assert told["cost"] == {"train": {"jobs": 8, "cpu_minutes": 2.0}}
    assert told["cpu_hours"] == round(2 / 60, 3)
    assert told["wall_minutes"] == 2.0
    assert told["seeds"] == [0, 1, 2]
    assert told["scale"] == "laptop"
    assert (told["cpu"], told["commits_of_jobs"], told["dirty"]) == ("A processor", ["c0ffee"], False)


def test_short_jobs_cost_what_they_are_together(tmp_path: Path) -> None:
    found = of(jobs(), "train")
    for job in found:
        finish(job, tmp_path, cpu=0.27)
    assert collect.environment_of(STUDY, found, tmp_path)["cost"]["train"]["cpu_minutes"] == 0.036


def test_a_pause_between_two_runs_is_no_work(tmp_path: Path) -> None:
    first, second, third = of(jobs(), "test")[:3]
    finish(first, tmp_path, start=0.0, end=60.0, cpu=1.0)
    finish(second, tmp_path, start=30.0, end=90.0, cpu=2.0)
    finish(third, tmp_path, start=9000.0, end=9060.0, cpu=3.0)
    assert collect.environment_of(STUDY, [first, second, third], tmp_path)["wall_minutes"] == 2.5


def test_one_dirty_job_makes_the_result_dirty(tmp_path: Path) -> None:
    first, second = jobs()[:2]
    finish(first, tmp_path)
    finish(second, tmp_path, git={"commit": "d00d", "dirty": True})
    told = collect.environment_of(STUDY, [first, second], tmp_path)
    assert (told["dirty"], told["commits_of_jobs"]) == (True, ["c0ffee", "d00d"])


def test_without_a_finished_job_the_environment_is_unknown(tmp_path: Path) -> None:
    told = collect.environment_of(STUDY, jobs(), tmp_path)
    assert (told["cpu"], told["cost"], told["wall_minutes"]) == ("unknown", {}, 0.0)


def test_the_worst_value_may_depend_on_the_job_s_own_config() -> None:
    job = jobs()[0]
    worst = collect.worst_of([job])
    row = {"fingerprint": job.fingerprint}
    assert worst(row, Metric("steps", "", "lower", worst=Scaled("model.cap", 2.0))) == 200.0
    assert worst(row, Metric("score", "", "higher", worst=-3)) == -3.0
    assert math.isnan(worst(row, Metric("steps", "", "lower", worst=Scaled("other.cap"))))


def test_a_modified_study_has_a_folder_of_its_own() -> None:
    label = collect.overrides_label
    assert label("laptop", (), (), None) == "laptop"
    names = [
        label("laptop", ("a=1",), (), None),
        label("laptop", ("a=2",), (), None),
        label("laptop", (), ("train",), None),
        label("laptop", (), (), 8),
        label("smoke", ("a=1",), (), None),
    ]
    assert len(set(names)) == 5
    assert all("+" in name for name in names)
    assert label("laptop", ("a=1", "b=2"), (), None) == label("laptop", ("b=2", "a=1"), (), None)


def test_measurements_on_another_cpu_are_set_aside_not_lost(tmp_path: Path) -> None:
    def write(cpu: str, commit: str, measures: bool = True) -> None:
        stages = (replace(STUDY.stages[0], measures_host=measures), *STUDY.stages[1:])
        environment = {"cpu": cpu, "cpus": [cpu], "commit": commit}
        collect.write_result(
            replace(STUDY, stages=stages),
            jobs(),
            folder,
            scale="laptop",
            environment=environment,
            root=tmp_path,
        )

    def aside() -> dict[str, str]:
        return {path.parent.name: read_json(path)["commit"] for path in folder.glob("cpus/*/claims.json")}

    folder = tmp_path / "result"
    write("An Old CPU (1)", "a")
    write("An Old CPU (1)", "b")
    assert aside() == {}
    write("New CPU", "c")
    assert aside() == {"an-old-cpu-1": "b"}
    assert read_json(folder / "cpus/an-old-cpu-1/environment.json")["commit"] == "b"
    write("An Old CPU (1)", "d")  # of each model the newest run only
    assert aside() == {"new-cpu": "c"}
    write("Third CPU", "e", measures=False)  # what does not measure the host is the same everywhere
    assert aside() == {"new-cpu": "c"}
