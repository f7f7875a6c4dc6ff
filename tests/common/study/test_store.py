"""A job's folder: markers, attempts, locks, the index; DONE is the only truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_OTHER, BadInputError
from common.files import read_json
from common.study import store
from tests.common.study.jobs_example import finish, jobs

ROOT = Path(__file__).parents[3]
HOLD = "import sys, time; from pathlib import Path; from common.study.store import locked\n"
HOLD += "with locked(Path(sys.argv[1]), 'the study'):\n    print('held', flush=True)\n    time.sleep(60)\n"


def test_the_specification_holds_what_a_worker_needs_and_is_written_once(tmp_path: Path) -> None:
    job = next(job for job in jobs() if job.stage.name == "test")
    folder = store.write_spec(job, "laptop", tmp_path)
    spec = read_json(folder / store.SPEC)
    assert folder == tmp_path / "results" / ".runs" / "demo" / "test" / job.fingerprint
    assert spec["config"] == {
        "model": {"width": 4, "cap": 100, "source": None},
        "axes": {"arm": "a", "seed": 0},
    }
    assert spec["axes"] == {"arm": "a", "seed": 0}
    assert [need["axes"] for need in spec["inputs"]["train"]] == [{"arm": "a", "seed": 0}]
    assert not Path(spec["inputs"]["train"][0]["folder"]).is_absolute()
    before = (folder / store.SPEC).stat().st_ino
    store.write_spec(job, "laptop", tmp_path)
    assert (folder / store.SPEC).stat().st_ino == before
    store.write_spec(job, "smoke", tmp_path)
    assert read_json(folder / store.SPEC)["scale"] == "smoke"


def test_done_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = store.write_json
    monkeypatch.setattr(
        store, "write_json", lambda path, value: (written.append(path.name), original(path, value))
    )
    store.mark_done(tmp_path, {"score": 1})
    assert written == ["metrics.json", "DONE"]
    assert store.read_metrics(tmp_path) == {"score": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_not_done(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.mark_done(tmp_path, {"score": value})
    assert not store.is_done(tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "history.jsonl"])
@pytest.mark.parametrize("change", ["append", "flip", "remove"])
def test_an_altered_result_is_refused(tmp_path: Path, name: str, change: str) -> None:
    (tmp_path / "history.jsonl").write_text('{"step":0,"loss":1.0}\n')
    store.mark_done(tmp_path, {"score": 1.0})
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if change == "remove":
        path.unlink()
    else:
        content[5] ^= 1
        path.write_bytes(bytes(content) if change == "flip" else path.read_bytes() + b"\n")
    with pytest.raises(BadInputError, match="altered after the job finished"):
        store.read_metrics(tmp_path)


def test_attempts_are_counted_and_success_forgets_them(tmp_path: Path) -> None:
    assert store.failure(tmp_path) == {}
    for attempt in (1, 2, 3):
        store.mark_failed(tmp_path, EXIT_OTHER, "message", "trace")
        assert store.failure(tmp_path)["attempts"] == attempt
    store.mark_done(tmp_path, {})
    assert store.failure(tmp_path) == {}


@pytest.mark.parametrize(
    ("code", "given_up"), [(EXIT_BAD_INPUT, True), (EXIT_NON_FINITE, True), (EXIT_OTHER, False)]
)
def test_only_what_would_fail_again_is_given_up_after_two_attempts(
    tmp_path: Path, code: int, given_up: bool
) -> None:
    store.mark_failed(tmp_path, code, "message", "trace")
    assert not store.given_up(tmp_path)
    store.mark_failed(tmp_path, code, "message", "trace")
    assert store.given_up(tmp_path) is given_up


def test_a_stop_is_noted_until_the_job_is_done(tmp_path: Path) -> None:
    assert store.stopped(tmp_path) == ""
    store.mark_stopped(tmp_path, "the time limit is near")
    assert store.stopped(tmp_path) == "the time limit is near"
    store.mark_done(tmp_path, {})
    assert store.stopped(tmp_path) == ""


def test_a_waiter_names_the_holder_and_goes_on_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == f"waiting for process {holder.pid}, which works on the study\n"
    holder.send_signal(signal.SIGKILL)
    started = time.monotonic()
    assert waiter.stdout.readline() == "held\n"
    assert time.monotonic() - started < 5
    assert path.read_text() == f"{waiter.pid}\n"
    waiter.kill()
    for process in (holder, waiter):
        process.communicate()


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), store.locked(tmp_path / ".lock", "x"):
            _ = 1 / 0
    assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_the_index_survives_a_torn_line(tmp_path: Path) -> None:
    assert store.read_index(tmp_path) == []
    spec = {
        "scale": "laptop",
        "stage": "train",
        "axes": {"seed": 1},
        "fingerprint": "f",
        "parts": {"code": {}},
    }
    store.append_index(tmp_path, spec | {"config": "not kept"})
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write('{"scale": "lap\n')
    store.append_index(tmp_path, spec | {"fingerprint": "g"})
    assert store.read_index(tmp_path) == [spec, spec | {"fingerprint": "g"}]


def test_the_study_s_fingerprint_is_of_the_set_of_jobs() -> None:
    found = jobs()
    assert store.study_fingerprint(found) == store.study_fingerprint(list(reversed(found)))
    assert store.study_fingerprint(found) != store.study_fingerprint(found[1:])
    assert store.study_fingerprint(found) != store.study_fingerprint(jobs(threads=2))


def test_done_counts_without_any_other_file(tmp_path: Path) -> None:
    folder = finish(jobs()[0], tmp_path)
    assert store.is_done(folder)
    assert json.loads((folder / "DONE").read_text()).keys() == {"metrics.json"}
    (folder / "DONE").unlink()
    assert not store.is_done(folder)
