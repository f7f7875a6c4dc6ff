"""`make new`: what it writes passes contract, tests and linters unedited, and nothing else changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import BadInputError
from common.study import scaffold

ROOT = Path(__file__).resolve().parents[2]


def run(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The repository without its theses and their results."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("common", "tests/contract"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copytree(ROOT / "configs", tmp_path / "configs", ignore=lambda *_: ["opirl"])
    (tmp_path / "projects").mkdir()
    for name in ("projects/__init__.py", "projects/pyrightconfig.json", "pyproject.toml", "Snakefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests" / "support").mkdir()
    return tmp_path


def test_a_new_thesis_passes_unedited(house: Path) -> None:
    before = tree(house)
    written = scaffold.create("trial", house)
    after = tree(house)
    assert {name: after[name] for name in before} == before
    assert sorted(after.keys() - before.keys()) == [path.relative_to(house).as_posix() for path in written]
    mine = ["projects/trial", "tests/projects/trial"]
    run(house, "-m", "ruff", "check", "--no-cache", *mine)
    run(house, "-m", "ruff", "format", "--check", "--no-cache", *mine)
    out = run(
        house,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contract/test_contract.py",
        "tests/projects",
    )
    assert " passed" in out


@pytest.mark.slow
def test_a_new_thesis_reproduces(house: Path) -> None:
    scaffold.create("a_thesis_with_a_long_name", house)
    study = ("--project", "a_thesis_with_a_long_name", "--scale", "smoke")
    assert "report: results/" in run(house, "-m", "common.study", "reproduce", *study)
    assert "nothing to do" in run(house, "-m", "common.study", "reproduce", *study)


def test_a_long_name_keeps_the_format(house: Path) -> None:
    scaffold.create("a_thesis_with_a_long_name", house)
    run(house, "-m", "ruff", "check", "--no-cache", "projects", "tests/projects")
    run(house, "-m", "ruff", "format", "--check", "--no-cache", "projects", "tests/projects")


@pytest.mark.parametrize(
    "name", ["", "Trial", "1st", "a-b", "a b", "../x", "x;touch pwned", "class", "é", "_x"]
)
def test_a_bad_name_is_refused(house: Path, name: str) -> None:
    before = tree(house)
    with pytest.raises(BadInputError, match="PROJECT"):
        scaffold.create(name, house)
    assert tree(house) == before


@pytest.mark.parametrize("taken", ["projects/trial", "configs/project/trial", "tests/projects/trial"])
def test_a_taken_name_is_refused(house: Path, taken: str) -> None:
    (house / taken).mkdir(parents=True)
    before = tree(house)
    with pytest.raises(BadInputError, match=f"{taken} exists"):
        scaffold.create("trial", house)
    assert tree(house) == before


def test_an_error_half_way_leaves_nothing(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = tree(house), Path.rename

    def fail_at_the_second(source: Path, target: Path) -> Path:
        if "configs" in source.parts:
            raise OSError("planted")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_second)
    with pytest.raises(OSError, match="planted"):
        scaffold.create("trial", house)
    assert tree(house) == before
    assert not (house / "projects" / "trial").exists()
