import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.tracking.record import HISTORY, Recorder, read_history
from common.tracking.wandb_export import export

Make = Callable[..., Path]
Read = Callable[[Path], dict[str, Any]]


def offline_folders(directory: Path) -> list[Path]:
    return sorted((directory / "wandb").glob("offline-run-*"))


def test_the_run_shows_what_the_folder_holds(make_job: Make, wandb_directory: Path, read_run: Read) -> None:
    folder = make_job(3, rows=300, wandb={"api_key": "hunter2hunter2"})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    report = export([folder], group="thesis/laptop", directory=wandb_directory)
    assert (report.exported, report.rows, report.failed, report.warning) == (1, 300, [], "")
    (exported,) = offline_folders(wandb_directory)
    run = read_run(exported)
    assert run["rows"] == read_history(folder / HISTORY)
    assert run["steps"] == list(range(300))
    assert ("*", "step") in run["metrics"]
    assert (run["id"], run["project"], run["group"], run["job_type"]) == (
        folder.name[:16], "rethesis", "thesis/laptop", "imitate",
    )  # fmt: skip
    assert run["tags"] == ["thesis", "laptop", "method=opirl", "seed=3", "commit=c0c0c0c0"]
    assert run["config"]["arm"] == "imitate opirl"
    assert run["summary"]["final_return"] == 12.5
    assert run["summary"]["status"] == "done"
    assert run["config"]["agent"] == {"lr": 1e-3}
    assert run["config"]["wandb"] == {"api_key": "[redacted]"}
    assert run["config"]["inputs"] == {"expert": ["ef" * 32]}
    (name, metadata) = run["artifacts"][0]
    assert name == f"imitate-{folder.name[:16]}"
    assert metadata == {"commit": "c0" * 20, "fingerprint": folder.name, "inputs": {"expert": ["ef" * 32]}}
    assert run["exit"] == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_twice_gives_one_set_and_a_grown_run_is_whole(
    make_job: Make, wandb_directory: Path, read_run: Read
) -> None:
    folders = [make_job(0), make_job(1, done=False)]
    assert export(folders, group="g", directory=wandb_directory).exported == 2
    first = offline_folders(wandb_directory)
    again = export(folders, group="g", directory=wandb_directory)
    assert (again.exported, again.unchanged) == (0, 2)
    assert offline_folders(wandb_directory) == first
    with Recorder(folders[1]) as record:
        record.log(99, **{"loss/total": 0.0})
    grown = export(folders, group="g", directory=wandb_directory)
    assert (grown.exported, grown.unchanged) == (1, 1)
    now = offline_folders(wandb_directory)
    assert len(now) == 2
    runs = {run["id"]: run for run in map(read_run, now)}
    for folder in folders:
        assert runs[folder.name[:16]]["rows"] == read_history(folder / HISTORY)
    assert runs[folders[1].name[:16]]["summary"]["status"] == "running"


def test_non_finite_values_and_empty_histories(make_job: Make, wandb_directory: Path, read_run: Read) -> None:
    empty, diverged = make_job(1, rows=0), make_job(2, rows=1)
    with Recorder(diverged) as record:
        record.log(1, x=float("nan"))
    assert export([empty, diverged], group="g", directory=wandb_directory).exported == 2
    rows = {run["id"]: run["rows"] for run in map(read_run, offline_folders(wandb_directory))}
    assert rows == {empty.name[:16]: [], diverged.name[:16]: read_history(diverged / HISTORY)}


def test_a_damaged_folder_is_named_and_stops_no_other(make_job: Make, wandb_directory: Path) -> None:
    good, bad = make_job(1), make_job(2)
    (bad / HISTORY).write_text("{]\n")
    report = export([bad, good, bad.parent / "missing"], group="g", directory=wandb_directory)
    assert report.exported == 1
    assert bad in report.failed
    assert "is damaged" in report.warning
    assert "\n" not in report.warning


def test_the_environment_of_the_user_neither_shows_nor_changes(
    make_job: Make, wandb_directory: Path, read_run: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_NAME", "someone else's")
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    monkeypatch.setenv("WANDB_API_KEY", "planted-api-key-0123456789")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = dict(os.environ)
    export([make_job(4)], group="g", directory=wandb_directory)
    assert dict(os.environ) == before
    (folder,) = offline_folders(wandb_directory)
    assert read_run(folder)["name"] == "imitate method=opirl seed=4"
    for path in wandb_directory.rglob("*"):
        assert path.is_dir() or b"planted-api-key" not in path.read_bytes()


def test_nothing_is_written_outside_the_directory(
    make_job: Make, wandb_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    export([make_job(4)], group="g", directory=wandb_directory)
    assert list(home.rglob("*")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "results"]
