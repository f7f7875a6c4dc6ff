"""What reaches a W&B server, and what becomes of it when the server misbehaves. The server is a stub on localhost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from wandb_stub import KEY, Stub

from common.errors import BadInputError, RethesisError
from common.tracking import wandb_runs, wandb_sync
from common.tracking.record import HISTORY, Recorder, read_history
from common.tracking.wandb_export import export
from common.tracking.wandb_sync import sync
from common.tracking.wandb_workspace import Curve, View

Make = Callable[..., Path]
VIEW = View("thesis/laptop", "imitate", [Curve("Return", "step", "loss/total", "step", "loss")])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    wandb = pytest.importorskip("wandb")
    if not wandb.__version__.startswith("0.31."):
        pytest.skip(f"the stub speaks with wandb 0.31, not {wandb.__version__}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_runs, "SERVER_SECONDS", 3)
    monkeypatch.setattr(wandb_runs, "FINISH_SECONDS", 4)
    monkeypatch.setattr(wandb_sync, "REACH_SECONDS", 2)
    with Stub() as stub:
        monkeypatch.setenv("WANDB_BASE_URL", stub.address)
        yield stub


def rows_at(server: Stub, folders: Sequence[Path]) -> list[list[dict[str, object]]]:
    return [server.runs[folder.name[:16]].rows for folder in folders]


def truth(folders: Sequence[Path]) -> list[list[dict[str, object]]]:
    return [read_history(folder / HISTORY) for folder in folders]


@pytest.fixture
def study(make_job: Make, tmp_path: Path) -> tuple[list[Path], Path]:
    """expert -> reward -> transfer on two seeds, and a result."""
    folders: list[Path] = []
    for seed in (1, 2):
        inputs: dict[str, list[str]] = {}
        for stage in ("expert", "reward", "transfer"):
            folder = make_job(seed, stage=stage, inputs=inputs)
            folders.append(folder)
            inputs = {stage: [folder.name]}
    result = tmp_path / "results" / "thesis" / "laptop"
    result.mkdir(parents=True)
    claim = {
        "id": "better",
        "verdict": "supported",
        "effect": 1.5,
        "ci": [1.0, 2.0],
        "n": 2,
        "statement": "It is.",
    }
    claim["pairs"] = [{"replicate": "1", "effect": 1.0}, {"replicate": "2", "effect": 2.0}]
    (result / "claims.json").write_text(json.dumps({"commit": "ab" * 20, "cpu": "a CPU", "claims": [claim]}))
    (result / "table.csv").write_text("stage,seed,final_return\ntransfer,1,12.5\ntransfer,2,\n")
    return folders, result


def test_a_study_arrives_once_with_its_lineage_tables_and_workspace(
    server: Stub, study: tuple[list[Path], Path], wandb_directory: Path
) -> None:
    folders, result = study
    export(folders, group="thesis/laptop", directory=wandb_directory, result=result)
    first = sync(wandb_directory, [VIEW])
    assert (first.uploaded, first.before, len(first.workspaces)) == (7, 0, 1)
    assert rows_at(server, folders) == truth(folders)
    report = next(run for run in server.runs.values() if run.fields["jobType"] == "report")
    assert len(server.runs) == 7
    assert {run.fields["groupName"] for run in server.runs.values()} == {"thesis/laptop"}

    made = {key: artifact["run"] for key, artifact in server.artifacts.items()}
    edges = {(server.runs[made[used]].fields["jobType"], run.fields["jobType"])
             for run in server.runs.values() for used in run.used}  # fmt: skip
    assert edges == {("expert", "reward"), ("reward", "transfer"), ("transfer", "report")}
    assert len(report.used) == 2

    tables = {name.rsplit("/", 1)[1].partition("_")[0]: json.loads(data)
              for name, data in server.files.items() if "/media/table/" in name}  # fmt: skip
    assert tables["seeds"]["data"] == [["better", "1", 1.0], ["better", "2", 2.0]]
    assert tables["runs"]["data"] == [["transfer", 1, 12.5], ["transfer", 2, None]]
    assert tables["verdicts"]["data"][0][:3] == ["better", "supported", 1.5]
    spec = server.views[0]["spec"]
    assert "thesis/laptop" in spec
    assert all(
        name in spec for name in ("verdicts", "Learning curves by arm", "seeds", "loss/total", "arm.value")
    )

    calls = len(server.log)
    again = sync(wandb_directory, [VIEW])
    assert (again.uploaded, again.before) == (0, 7)
    assert len(server.log) == calls

    (result / "table.csv").write_text("stage,seed,final_return\ntransfer,1,12.5\ntransfer,2,13.0\n")
    export(folders, group="thesis/laptop", directory=wandb_directory, result=result)
    assert sync(wandb_directory, [VIEW]).uploaded == 1
    assert (len(server.runs), len(server.views)) == (7, 1)
    assert len([each for each in server.versions("report") if each["type"] == "report"]) == 2


def test_a_resumed_run_is_continued_on_its_step_axis(
    server: Stub, make_job: Make, wandb_directory: Path
) -> None:
    folder = make_job(1, rows=3, done=False)
    export([folder], group="g/laptop", mode="online", directory=wandb_directory)
    assert rows_at(server, [folder]) == truth([folder])
    with Recorder(folder) as record:
        for row in range(3, 6):
            record.log(10 * row, **{"loss/total": 1.0})
    report = export([folder], group="g/laptop", mode="online", directory=wandb_directory)
    assert (report.rows, report.warning) == (3, "")
    assert rows_at(server, [folder]) == truth([folder])
    assert [row["step"] for row in rows_at(server, [folder])[0]] == [0, 10, 20, 30, 40, 50]
    assert len(server.runs) == 1
    assert list((wandb_directory / "wandb").glob("*run-*")) == []


def refuse(status: int) -> Callable[[str, str, str], int]:
    return lambda method, path, operation: status


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "trouble", [401, 500, "unreachable", slow(429), slow("slow"), slow("stream"), slow("storage")]
)
def test_no_row_is_lost_to_a_server_in_trouble(
    trouble: int | str, server: Stub, make_job: Make, wandb_directory: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folders = [make_job(1), make_job(2, rows=7)]
    if isinstance(trouble, int):
        server.fault = refuse(trouble)
    elif trouble == "slow":
        server.delay = 5
    elif trouble == "unreachable":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    else:
        server.fault = lambda method, path, operation: 500 if operation == trouble else None
    begun = time.monotonic()
    report = export(folders, group="g/laptop", mode="online", directory=wandb_directory)
    assert time.monotonic() - begun < 40
    assert (report.exported, report.failed) == (2, [])
    assert report.warning.startswith("W&B took no upload (")
    assert report.warning.endswith("; written offline, `make sync` uploads it later.")
    assert "\n" not in report.warning
    server.fault, server.delay = (lambda method, path, operation: None), 0
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    assert sync(wandb_directory).uploaded == 2
    assert rows_at(server, folders) == truth(folders)
    assert len(server.runs) == 2
    printed = capfd.readouterr()
    assert KEY not in report.warning + printed.out + printed.err
    assert all(KEY.encode() not in path.read_bytes() for path in wandb_directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        (401, BadInputError, "W&B accepted no API key: set WANDB_API_KEY"),
        ("no key", BadInputError, "W&B accepted no API key: set WANDB_API_KEY"),
        ("unreachable", RethesisError, "cannot be reached"),
        slow("slow", RethesisError, "the server is out of order, or too slow"),
        (500, RethesisError, "W&B took 0 of 2 runs; `make sync` again uploads the rest"),
        slow(429, RethesisError, "W&B took 0 of 2 runs; `make sync` again uploads the rest"),
        ("halfway", RethesisError, "the runs are uploaded, not all of their lineage; `make sync` again"),
    ],
)
def test_make_sync_says_what_is_wrong_and_continues(
    trouble: int | str, kind: type[Exception], message: str, server: Stub, study: tuple[list[Path], Path],
    wandb_directory: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(wandb_sync, "START_SECONDS", 6)
    monkeypatch.setattr(wandb_sync, "RUN_SECONDS", 1)
    folders = study[0][:2]
    export(folders, group="g/laptop", directory=wandb_directory)
    if isinstance(trouble, int):
        server.fault = lambda method, path, operation: trouble if method != "GET" else None
    elif trouble == "no key":
        monkeypatch.delenv("WANDB_API_KEY")
    elif trouble == "unreachable":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    elif trouble == "slow":
        server.delay = 4
    else:
        server.fault = lambda method, path, operation: 400 if operation == "UseArtifact" else None
    with pytest.raises(kind) as caught:
        sync(wandb_directory)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
    server.fault, server.delay = (lambda method, path, operation: None), 0
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_sync, "START_SECONDS", 60)
    sync(wandb_directory)
    assert rows_at(server, folders) == truth(folders)
    assert [len(server.runs[folder.name[:16]].used) for folder in folders] == [0, 1]


def follow(root: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "common.tracking.live", "--project", "thesis", "--scale", "laptop"]
    command += ["--mode", mode, "--poll", "0.2", "--root", str(root)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_live_shows_rows_as_they_are_written_and_through_a_resume(
    server: Stub, make_job: Make, tmp_path: Path, wandb_directory: Path
) -> None:
    follower = follow(tmp_path, "online")
    try:
        time.sleep(2)
        folder = make_job(1, rows=0, done=False)
        name = folder.name[:16]
        with Recorder(folder) as record:
            for row in range(4):
                record.log(row, x=row / 8)
        wait(lambda: name in server.runs and len(server.runs[name].rows) == 4)
        with Recorder(folder) as record:  # killed, and resumed from a checkpoint after row 1
            record.truncate(len(b"".join((folder / HISTORY).read_bytes().splitlines(keepends=True)[:2])))
            for row in range(2, 9):
                record.log(row, x=row / 8)
        (folder / "metrics.json").write_text('{"final_return": 1.0}')
        (folder / "DONE").touch()
        wait(lambda: server.runs[name].exit_code == 0)
    finally:
        follower.send_signal(signal.SIGTERM)
        _, said = follower.communicate(timeout=60)
    assert (follower.returncode, said) == (0, "")
    assert rows_at(server, [folder]) == truth([folder])
    report = export([folder], group="thesis/laptop", directory=wandb_directory)
    assert (report.exported, report.unchanged) == (0, 1)


def test_live_gives_up_without_a_word_too_many_and_loses_nothing(
    server: Stub, make_job: Make, tmp_path: Path, wandb_directory: Path
) -> None:
    server.fault = refuse(401)
    follower = follow(tmp_path, "online")
    time.sleep(2)
    folder = make_job(1)
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 1
    assert said.startswith("W&B is given up for this run (")
    assert said.count("\n") == 1
    assert KEY not in said
    server.fault = lambda method, path, operation: None
    assert export([folder], group="thesis/laptop", directory=wandb_directory).exported == 1
    sync(wandb_directory)
    assert rows_at(server, [folder]) == truth([folder])


def test_a_wandb_that_is_slow_to_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a cluster's file system that is cold."""
    monkeypatch.setattr(wandb_sync, "START_SECONDS", 0.2)
    monkeypatch.setattr(wandb_sync, "_ADDRESS", "import time; time.sleep(60)")
    with pytest.raises(RethesisError, match=r"took more than 0\.2 s to start.*The offline runs are kept"):
        wandb_sync._address(dict(os.environ))
