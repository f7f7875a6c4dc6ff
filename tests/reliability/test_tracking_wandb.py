"""W&B may be killed, unreachable or forbidden: no job waits for it, no row is lost, no secret is shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from house import make_house

from common.errors import RethesisError
from common.tracking.record import HISTORY, Recorder
from common.tracking.wandb_export import export
from common.tracking.wandb_sync import exported_folders, is_synced, sync

CLOSED = "http://127.0.0.1:9"
EXPORT = (
    "import sys; from pathlib import Path; from common.tracking.wandb_export import export\n"
    "report = export(sorted(Path(sys.argv[1]).glob('thesis/*/*')), group='thesis/laptop',"
    " mode=sys.argv[2], directory=Path(sys.argv[1]) / 'wandb')\n"
    "print(report.exported, report.unchanged, report.rows, report.warning, sep='|')"
)


def make_jobs(root: Path, count: int, rows: int, **config: object) -> list[Path]:
    folders: list[Path] = []
    for number in range(count):
        folder = root / "results" / ".runs" / "thesis" / "imitate" / (f"{number:08x}" * 8)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"axes": {"seed": number}, **config}))
        (folder / "provenance.json").write_text("{}")
        with Recorder(folder) as record:
            for row in range(rows):
                record.log(row, loss=1 / (1 + row + number))
        (folder / "metrics.json").write_text('{"final": 1.0}')
        (folder / "DONE").touch()
        folders.append(folder)
    return folders


def histories(folders: list[Path]) -> list[bytes]:
    return [(folder / HISTORY).read_bytes() for folder in folders]


def run_export(runs: Path, mode: str = "offline", **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, runs, mode],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout.strip().split("|")


@pytest.mark.parametrize(
    "finished", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_killed_in_the_middle_then_again_is_complete(tmp_path: Path, finished: int) -> None:
    folders = make_jobs(tmp_path, count=8, rows=200)
    runs = tmp_path / "results" / ".runs"
    process = subprocess.Popen([sys.executable, "-c", EXPORT, runs, "offline"], start_new_session=True)
    deadline = time.monotonic() + 30
    while len(list((runs / "wandb" / "wandb").glob("offline-run-*"))) <= finished:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name for path in exported_folders(runs / "wandb")}
    assert finished <= len(before) <= finished + 1 < 8
    exported, unchanged, rows, warning = run_export(runs)
    assert int(exported) + int(unchanged) == 8
    assert int(unchanged) == len(before)
    assert int(rows) == 200 * int(exported)
    assert warning == ""
    names = {path.name for path in (runs / "wandb" / "wandb").glob("offline-run-*")}
    assert names == {path.name for path in exported_folders(runs / "wandb")}
    assert len(names) == 8
    assert before <= names
    assert histories(folders) == histories(sorted(runs.glob("thesis/*/*")))


def test_unreachable_server_costs_one_warning_and_bounded_time(tmp_path: Path) -> None:
    folders = make_jobs(tmp_path, count=5, rows=20)
    before, started = histories(folders), time.monotonic()
    exported, _, rows, warning = run_export(
        tmp_path / "results" / ".runs", "online", WANDB_BASE_URL=CLOSED, WANDB_API_KEY="a" * 40
    )
    assert time.monotonic() - started < 45
    assert (exported, rows) == ("5", "100")
    assert "written offline" in warning
    assert "a" * 40 not in warning
    assert histories(folders) == before
    assert len(exported_folders(tmp_path / "results" / ".runs" / "wandb")) == 5


def test_without_a_key_online_becomes_offline_at_once(tmp_path: Path) -> None:
    make_jobs(tmp_path, count=2, rows=5)
    (tmp_path / "home").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "WANDB_BASE_URL": CLOSED, "NETRC": str(tmp_path / "none")}
    exported, _, _, warning = run_export(tmp_path / "results" / ".runs", "online", **environment)
    assert exported == "2"
    assert "No API key" in warning


def test_sync_names_the_server_that_cannot_be_reached_and_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "results" / ".runs" / "wandb"
    export(make_jobs(tmp_path, count=2, rows=5), group="g", directory=directory)
    files = {path: path.read_bytes() for path in directory.rglob("*.wandb")}
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    started = time.monotonic()
    with pytest.raises(RethesisError, match=f"{CLOSED} cannot be reached") as raised:
        sync(directory)
    assert raised.value.exit_code == 1
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 30
    assert {path: path.read_bytes() for path in directory.rglob("*.wandb")} == files
    assert not any(map(is_synced, exported_folders(directory)))


def test_sync_uploads_only_what_is_not_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "results" / ".runs" / "wandb"
    export(make_jobs(tmp_path, count=2, rows=5), group="g", directory=directory)
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    for folder in exported_folders(directory):
        (path,) = folder.glob("run-*.wandb")
        path.with_name(path.name + ".synced").touch()
    report = sync(directory)
    assert (report.uploaded, report.before) == (0, 2)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_export_needs_no_network(tmp_path: Path) -> None:
    make_jobs(tmp_path, count=2, rows=5)
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("the kernel allows no network namespace here")
    command = ["unshare", "-rn", sys.executable, "-c", EXPORT, tmp_path / "results" / ".runs", "offline"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "2|0|10|"


def test_planted_secrets_are_nowhere_in_the_output(tmp_path: Path) -> None:
    planted = {
        "HF_TOKEN": "hf_" + "pL4nted" * 5,
        "AWS_SECRET_ACCESS_KEY": "planted/secret+key/0123456789abcdefABCDEF",
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "MY_PASSWORD": "correct horse planted",
    }
    config = {"note": f"see {planted['HF_TOKEN']}", "login": {"password": "planted-in-config"}}
    make_jobs(tmp_path, count=1, rows=5, **config)
    runs = tmp_path / "results" / ".runs"
    (config_path,) = runs.glob("thesis/*/*/config.yaml")
    result = subprocess.run(
        [sys.executable, "-c", EXPORT, runs, "offline", "--password", "planted-argument"],
        env={**os.environ, **planted}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == "1|0|5|"
    config_path.unlink()  # the planted input itself
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for secret in [*planted.values(), "planted-in-config", "planted-argument"]:
        assert secret not in result.stdout + result.stderr
        for path in files:
            assert secret.encode() not in path.read_bytes(), path


def start_live(root: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "common.tracking.live", "--project", "thesis", "--scale", "smoke"]
    return subprocess.Popen(
        [*command, "--root", str(root), "--poll", "0.1", *options],
        env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_live_follows_jobs_and_the_export_afterwards_adds_nothing(tmp_path: Path) -> None:
    runs = tmp_path / "results" / ".runs"
    process = start_live(tmp_path)
    first, second = make_jobs(tmp_path, count=2, rows=5)
    (second / "DONE").unlink()
    deadline = time.monotonic() + 60
    while not (runs / "wandb" / "state" / f"{first.name[:16]}.json").exists():
        assert time.monotonic() < deadline
        for folder in (first, second):  # only what moves after its start is followed, whenever that was
            (folder / "provenance.json").touch()
        time.sleep(0.1)
    with Recorder(second) as record:
        record.log(7, loss=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 0
    states = [json.loads(path.read_text()) for path in sorted((runs / "wandb" / "state").glob("*.json"))]
    assert [state["rows"] for state in states] == [5, 6]
    assert run_export(runs) == ["0", "2", "0", ""]


@pytest.mark.slow
def test_live_ends_with_one_line_when_the_server_is_unreachable(tmp_path: Path) -> None:
    process = start_live(tmp_path, "--mode", "online", WANDB_BASE_URL=CLOSED, WANDB_API_KEY="a" * 40)
    time.sleep(2)
    folders = make_jobs(tmp_path, count=2, rows=5)
    before = histories(folders)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("W&B is given up")
    assert histories(folders) == before


LIVE = ("reproduce", "--project", "toy", "--scale", "smoke", "--track", "live")


def test_a_study_with_a_live_view_becomes_one_run_a_job_and_one_of_the_report(tmp_path: Path) -> None:
    house = make_house(tmp_path / "house")
    house.run(*LIVE)
    wandb = house.runs().parent / "wandb"
    jobs = {path.parent.name for path in house.runs().glob("*/*/DONE")}
    assert len(jobs) == 10
    runs = {path.stem for path in (wandb / "state").glob("*.json")}
    assert jobs < runs and len(runs - jobs) == 1  # and the study's report
    assert len(exported_folders(wandb)) == 11
    (house.root / "results" / "toy" / "smoke" / "claims.json").unlink()
    assert "0 runs written offline, 11 unchanged" in house.run(*LIVE)


def test_a_broken_wandb_costs_a_warning_and_no_row(tmp_path: Path) -> None:
    house = make_house(tmp_path / "house")
    (house.root / "wandb.py").write_text("raise RuntimeError('planted')\n")
    output = house.run(*LIVE)
    assert "planted" in output
    assert "Traceback" not in output
    assert "report: results/toy/smoke/report.html" in output
    assert len(house.bits()) == 10 + 4
