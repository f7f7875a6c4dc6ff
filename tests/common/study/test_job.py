"""One process: exit codes, what it leaves behind, what it sweeps, and that nothing of it holds a secret."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from common.errors import BadInputError, NonFiniteError, StoppedError
from common.files import read_json
from common.study import job as worker
from common.study.jobs import expand
from common.study.model import Inputs, Member, Need, Stage, Study
from common.study.programs import header
from common.study.store import failure, is_done, mark_done, read_index, stopped, write_spec
from common.training import stop
from tests.common.study.jobs_example import config

Function = Callable[..., Any]
NAME = "stage_under_test"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The worker installs the stop flag and sets thread variables: put both back."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    variables = {name: os.environ.get(name) for name in worker.THREAD_VARIABLES}
    yield
    stop.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name, value in variables.items():
        os.environ.pop(name, None)
        os.environ.update({name: value} if value is not None else {})


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Folders of jobs whose stage function is given; `run` and `root` are those of the worker."""

    def make(function: Function, stage: str = "train", stacked: str | None = None) -> list[Path]:
        module = ModuleType(NAME)
        module.__dict__["run"] = function
        monkeypatch.setitem(sys.modules, NAME, module)
        train = Stage("train", "common.files:digest", ("arm", "seed"), config=("model",), stacked=stacked)
        test = Stage("test", "common.files:digest", ("arm", "seed"), (Need("train"),), config=("model",))
        grid = {"train": [{"arm": ["a"]}], "test": [{"arm": ["a"]}]}
        study = Study("demo", "", "", "", (train, test), packages=("numpy",))
        found = expand(study, config(grid=grid, seeds={"first": 0, "count": 2}))
        made = [write_spec(job, "laptop", tmp_path) for job in found if job.stage.name == stage]
        for folder in made:
            spec = read_json(folder / "job.json") | {"run": f"{NAME}:run"}
            (folder / "job.json").write_text(json.dumps(spec))
        return made

    return make


def score(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> dict[str, float]:
    return {"score": cfg["axes"]["seed"] + 0.5}


def raising(error: BaseException) -> Function:
    def function(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> dict[str, float]:
        raise error

    return function


def test_a_job_that_ends_well_leaves_everything(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    first, second, _ = folders(score)
    assert worker.main([first, second], tmp_path) == 0
    assert read_json(first / "metrics.json") == {"score": 0.5}
    assert read_json(second / "metrics.json") == {"score": 1.5}
    assert yaml.safe_load((first / "config.yaml").read_text())["axes"] == {"arm": "a", "seed": 0}
    record = read_json(first / "provenance.json")
    assert record["ended"] >= record["started"]
    assert record["seed"] == 0
    assert record["command"] == f"python -m common.study.job {first.relative_to(tmp_path)}"
    entries = read_index(tmp_path / "results" / ".runs" / "demo")
    assert [entry["axes"]["seed"] for entry in entries] == [0, 1]
    assert all(os.environ[name] == "1" for name in worker.THREAD_VARIABLES)


def whose_process(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> dict[str, float]:
    if cfg["axes"]["seed"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid(), "parent": os.getppid()}


def test_programs_of_a_series_have_a_process_each_and_none_harms_the_next(
    folders: Callable[..., list[Path]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, killed, last = folders(whose_process)
    assert worker.series([[first], [killed], [last]], tmp_path) == 128 + signal.SIGKILL
    one, other = (read_json(folder / "metrics.json") for folder in (first, last))
    assert one["parent"] == other["parent"] == os.getpid() != one["pid"] != other["pid"]
    assert not is_done(killed)
    assert NAME in sys.modules  # imported before the fork
    log = capfd.readouterr().out
    assert [line for line in log.splitlines() if line.startswith("== ")] == [
        header([folder]) for folder in (first, killed, last)
    ]


def test_a_series_says_in_each_folder_what_went_wrong(
    folders: Callable[..., list[Path]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = folders(raising(BadInputError("no such data")))
    assert worker.series([[first], [second]], tmp_path) == 2
    assert failure(first)["message"] == failure(second)["message"] == "BadInputError: no such data"
    log = capfd.readouterr()
    assert "no such data" in log.err


def test_a_stop_reaches_every_program_of_a_series(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    def stops(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> dict[str, float]:
        os.kill(os.getppid(), signal.SIGTERM)  # as a signal to the whole group does
        raise StoppedError("checkpoint written.")

    first, second, _ = folders(stops)
    assert worker.series([[first], [second]], tmp_path) == 75
    assert "checkpoint" in stopped(first)
    assert "not started: received SIGTERM" in stopped(second)


def test_a_done_job_is_not_run_again(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    folder = folders(raising(AssertionError("it ran")))[0]
    mark_done(folder, {"score": 7.0})
    assert worker.main([folder], tmp_path) == 0
    assert not (folder / "provenance.json").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInputError("no such data"), 2),
        (NonFiniteError("loss became nan"), 70),
        (RuntimeError("a mistake"), 1),
        (KeyboardInterrupt(), 1),
        (OSError(errno.EIO, "Input/output error"), 1),
    ],
)
def test_a_failure_is_told_by_its_code_and_by_its_folder(
    folders: Callable[..., list[Path]], tmp_path: Path, error: BaseException, code: int
) -> None:
    folder = folders(raising(error))[0]
    assert worker.main([folder], tmp_path) == code
    failed = failure(folder)
    assert failed["exit_code"] == code
    assert failed["attempts"] == 1
    assert type(error).__name__ in failed["message"]
    assert "raise error" in failed["traceback"]
    assert not is_done(folder)
    assert worker.main([folder], tmp_path) == code
    assert failure(folder)["attempts"] == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoppedError("stopped after step 3 of 9"), "stopped after step 3 of 9"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "/x/y: No space left on device; free some",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), "Disk quota exceeded"),
    ],
)
def test_a_stop_is_no_failure(
    folders: Callable[..., list[Path]], tmp_path: Path, error: BaseException, reason: str
) -> None:
    folder = folders(raising(error))[0]
    assert worker.main([folder], tmp_path) == 75
    assert failure(folder) == {}
    assert reason in stopped(folder)
    folders(score)
    assert worker.main([folder], tmp_path) == 0
    assert not (folder / "STOPPED").exists()


def test_a_metric_that_is_nan_fails_the_job(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    folder = folders(lambda cfg, inputs, out: {"score": float("nan")})[0]
    assert worker.main([folder], tmp_path) == 1
    assert not is_done(folder)


@pytest.mark.parametrize("name", ["scale", "seed"])
def test_a_metric_that_would_hide_a_column_fails_the_job(
    folders: Callable[..., list[Path]], tmp_path: Path, name: str
) -> None:
    folder = folders(lambda cfg, inputs, out: {"score": 0.5, name: 8.0})[0]
    assert worker.main([folder], tmp_path) == 2
    assert f"says which job it is: {name}. Name it otherwise" in (failure(folder) or {})["traceback"]
    assert not is_done(folder)


def test_an_input_that_is_not_done_or_was_altered_is_refused(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    trained = folders(score)[0]
    tested = folders(lambda cfg, inputs, out: dict(inputs["train"][0].metrics), stage="test")[0]
    assert worker.main([tested], tmp_path) == 2
    assert "is not done" in failure(tested)["message"]
    mark_done(trained, {"score": 0.25})
    assert worker.main([tested], tmp_path) == 0
    assert read_json(tested / "metrics.json") == {"score": 0.25}
    (tested / "DONE").unlink()
    (trained / "metrics.json").write_text('{"score": 9.0}')
    assert worker.main([tested], tmp_path) == 2
    assert "was altered" in failure(tested)["message"]


def test_members_of_a_stack_run_as_one_and_end_each_in_its_folder(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    calls: list[list[Path]] = []

    def stack(members: Sequence[Member]) -> list[dict[str, float]]:
        calls.append([member.out for member in members])
        return [{"score": float(member.axes["seed"])} for member in members]

    made = folders(stack, stacked="seed")
    mark_done(made[1], {"score": 1.0})
    assert worker.main(made, tmp_path) == 0
    assert calls == [[made[0], made[2]]]
    assert [read_json(folder / "metrics.json")["score"] for folder in made] == [0.0, 1.0, 900.0]
    first, last = (read_json(made[i] / "provenance.json") for i in (0, 2))
    for name in ("cpu_seconds", "peak_memory_bytes", "ended"):  # one process, whose cost is counted once
        assert first[name] == last[name]


def test_a_stack_that_forgets_a_member_fails_as_a_whole(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    made = folders(lambda members: [{"score": 1.0}], stacked="seed")
    assert worker.main(made, tmp_path) == 1
    assert {failure(folder)["exit_code"] for folder in made[1:]} == {1}


def test_what_a_killed_write_left_is_swept(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    folder = folders(score)[0]
    for name in (".metrics.json.a1.tmp", ".DONE.b2.tmp"):
        (folder / name).write_text("{")
    (folder / "STOPPED").write_text("an hour ago")
    assert worker.main([folder], tmp_path) == 0
    assert not list(folder.glob(".*.tmp"))
    assert not (folder / "STOPPED").exists()


def test_no_secret_reaches_a_file_or_the_log(
    folders: Callable[..., list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "correct-horse-battery")
    for error in (
        RuntimeError("no login with correct-horse-battery"),
        StoppedError("at correct-horse-battery"),
    ):
        worker.main([folders(raising(error))[0]], tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"correct-horse-battery" not in written
    assert b"no login with" in written
    assert "correct-horse-battery" not in capfd.readouterr().err


def test_after_the_deadline_no_job_is_started(
    folders: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETHESIS_DEADLINE", "1000")
    folder = folders(raising(AssertionError("it ran")))[0]
    assert worker.main([folder], tmp_path) == 75
    assert stopped(folder) == "not started: the time limit (RETHESIS_DEADLINE) is near."


def test_a_deadline_that_is_no_number_is_named(
    folders: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETHESIS_DEADLINE", "noon")
    with pytest.raises(BadInputError, match="RETHESIS_DEADLINE='noon'"):
        worker.main([folders(score)[0]], tmp_path)
