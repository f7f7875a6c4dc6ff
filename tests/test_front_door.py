"""The Makefile passes values as they are, setup survives interruption, and wrong names end early."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common import bootstrap

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ("PROJECT", "SCALE", "LAUNCH", "ONLY", "SEEDS", "TRACK", "ARGS", "PYTHON")
COMMANDS = ("new", "plan", "reproduce", "repeat", "status", "why", "logs", "dashboard", "sync", "clean")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LOCK = f"py{sys.version_info.major}{sys.version_info.minor}.txt"
HEAVY = ("torch", "pytorch_lightning", "wandb", "matplotlib")


def run(command: list[str], folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder`, with nothing of an outer make in its environment."""
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", *OPTIONS}
    environment = {name: value for name, value in os.environ.items() if name not in outer} | values
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def cpu_seconds() -> float:
    """CPU time of the child processes so far: what an idle machine's clock would show, however busy this one is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def door(tmp_path: Path) -> Path:
    """A folder with our Makefile, where Python is a script that prints its arguments, one a line."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("py311", "py312"):
        (tmp_path / "requirements" / f"{name}.txt").touch()
    (tmp_path / "a=1").touch()  # what an unguarded `a=[1]` would match
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def test_help_lists_every_target() -> None:
    text = run(["make"], ROOT).stdout
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert set(targets) == {line.split()[0] for line in text.splitlines() if re.match(r"[a-z]", line)}
    assert run(["make", "help"], ROOT).stdout == text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_target_calls_its_command(door: Path, command: str) -> None:
    done = run(["make", command, "PROJECT=opirl", "SCALE=smoke"], door)
    wanted = ["-m", "common.study", command, "--project", "opirl", "--scale", "smoke"]
    assert done.stdout.splitlines() == wanted


def test_every_option_reaches_the_command(door: Path) -> None:
    given = {
        "LAUNCH": "local",
        "ONLY": "expert,imitate",
        "SEEDS": "3",
        "TRACK": "live",
        "ARGS": "a=[1] b.c=*",
    }
    on_line = run(["make", "plan", *(f"{name}={value}" for name, value in given.items())], door)
    wanted = ["--launch", "local", "--only", "expert,imitate", "--seeds", "3"]
    wanted += ["--track", "live", "a=[1]", "b.c=*"]
    assert on_line.stdout.splitlines()[3:] == wanted
    assert run(["make", "plan"], door, **given).stdout == on_line.stdout


@pytest.mark.parametrize("name", ["PROJECT", "SCALE", "LAUNCH", "ONLY", "SEEDS", "TRACK", "ARGS"])
@pytest.mark.parametrize(
    "value",
    [
        "x;touch${IFS}pwned",
        "$(touch pwned)",
        "`touch pwned`",
        '";touch pwned;"',
        "$(shell touch pwned)",
        "x\\';>pwned",
    ],
)
def test_neither_make_nor_a_shell_interprets_a_value(door: Path, name: str, value: str) -> None:
    for done in (
        run(["make", "plan", f"{name}={value}"], door),
        run(["make", "plan"], door, **{name: value}),
    ):
        given = done.stdout.splitlines()[4:] if name != "ARGS" else [" ".join(done.stdout.splitlines()[3:])]
        assert given == [value]
    assert not (door / "pwned").exists()


def test_setup_needs_a_supported_python() -> None:
    assert bootstrap.find_python(("no-such-python", sys.executable))[1] == PYTHON
    with pytest.raises(bootstrap.SetupError, match=r"none of no-such-python is a Python 3\.11 or 3\.12"):
        bootstrap.find_python(("no-such-python",))


def test_setup_names_the_disk_it_needs(tmp_path: Path) -> None:
    bootstrap.check_disk(tmp_path, 1e-9)
    with pytest.raises(bootstrap.SetupError, match="1000000000 GB needed"):
        bootstrap.check_disk(tmp_path, 1e9)


def test_setup_builds_once_and_again_for_a_new_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[Path] = []
    monkeypatch.setattr(bootstrap, "install", lambda python, lock: installed.append(python))
    monkeypatch.setattr(
        bootstrap, "VENV", (*bootstrap.VENV, "--without-pip")
    )  # seconds less; `install` is no pip
    monkeypatch.setattr(bootstrap, "NEEDED_GB", 0.0)
    (tmp_path / "requirements").mkdir()
    lock = tmp_path / "requirements" / LOCK
    lock.write_text("a==1\n")
    calls = [threading.Thread(target=bootstrap.setup, args=(tmp_path, (sys.executable,))) for _ in range(3)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    python = tmp_path / ".venv" / "bin" / "python"
    assert installed == [python], "three commands at once build one environment"
    assert run([str(python), "-c", "print(1)"], tmp_path).stdout == "1\n"

    (tmp_path / ".venv" / "left-over").touch()
    lock.write_text("a==2\n")
    bootstrap.setup(tmp_path, (sys.executable,))
    assert installed == [python, python]
    assert not (tmp_path / ".venv" / "left-over").exists()


def test_a_failed_installation_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setattr(bootstrap, "NEEDED_GB", 0.0)
    (tmp_path / "requirements").mkdir()
    lock = tmp_path / "requirements" / LOCK
    lock.write_text(f"no-such-package==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(bootstrap.SetupError, match=r"pip failed:(.|\n)*no-such-package"):
        bootstrap.setup(tmp_path, (sys.executable,))
    assert not (tmp_path / ".venv" / ".ready").exists()


def test_the_front_door_imports_nothing_heavy() -> None:
    code = "import sys, common.study.__main__, common.study.queries, common.study.reproduce, common.study.scaffold;"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = run([sys.executable, "-c", code], ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["plan", "--project", "oprl"], "'opirl'"),
        (["plan", "--project", "opirl", "--scale", "labtop"], "'laptop'"),
        (["plan", "--project", "opirl", "--launch", "locale"], "'local'"),
        (["plan", "--project", "opirl", "seeds.cuont=3"], "'seeds.count'"),
        (["plan", "--project", "opirl;touch pwned"], "opirl"),
    ],
)
def test_a_wrong_name_ends_early_with_the_nearest(arguments: list[str], near: str) -> None:
    before = cpu_seconds()
    done = run([sys.executable, "-m", "common.study", *arguments], ROOT)
    assert done.returncode == 2, done.stdout + done.stderr
    assert near in done.stderr
    assert "Traceback" not in done.stderr
    assert cpu_seconds() - before < 2, "slower than 2 s even on an idle machine"


def test_documents_name_targets_and_files_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "containers/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets, name
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
        assert not [link for link in links if not (ROOT / name).parent.joinpath(link).exists()], name
