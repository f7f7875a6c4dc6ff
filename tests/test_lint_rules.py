"""The rules of `make lint` can fail: each is shown a violation. And rules that no linter has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from common.lint import Sizes, measure, report

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are ours is not known")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in names.stdout.split("\0") if name]


def test_measure_counts_lines_and_documented_functions(tmp_path: Path) -> None:
    source = tmp_path / "common" / "part"
    source.mkdir(parents=True)
    (source / "code.py").write_text(
        'def bare():\n    pass\n\n\ndef told():\n    """Doc."""\n\n\ndef _private():\n    pass\n\n\n'
        'class Shown:\n    def __init__(self):\n        pass\n\n    def method(self):\n        """Doc."""\n\n\n'
        "class _Hidden:\n    def method(self):\n        pass\n"
    )
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "code.py").write_text("def bare():\n    pass\n")
    sizes = measure(tmp_path)
    assert sizes.lines == {"common/part/code.py": 23, "projects/code.py": 2}
    assert sizes.functions == {
        "common/part/code.py:1 bare": (2, False),
        "common/part/code.py:5 told": (2, True),
        "common/part/code.py:17 Shown.method": (2, True),
    }
    assert report(sizes)[1] == ["common/part/code.py:1 bare: no docstring"]


@pytest.mark.parametrize(
    ("counts", "violations"),
    [
        ([120] * 9 + [300], []),
        ([121] * 9 + [300], ["median"]),
        ([100] * 8 + [301] * 2, ["tenth"]),
        ([100] * 9 + [500], []),
        ([100] * 9 + [501], ["501 lines"]),
    ],
)
def test_file_length_targets(counts: list[int], violations: list[str]) -> None:
    found = report(Sizes({f"common/{i}.py": count for i, count in enumerate(counts)}, {}))[1]
    assert len(found) == len(violations)
    assert all(word in text for word, text in zip(violations, found, strict=True))


def test_import_contracts_reject_violations(tmp_path: Path) -> None:
    for folder in ("common", "projects"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "projects" / "thief").mkdir()
    (tmp_path / "projects" / "thief" / "__init__.py").write_text("import projects.opirl\n")
    (tmp_path / "common" / "data" / "upwards.py").write_text("import common.study.model\n")
    (tmp_path / "common" / "tracking" / "outwards.py").write_text("import projects.opirl\n")
    with (tmp_path / "common" / "study" / "store.py").open("a") as file:
        file.write("import torch\n")
    script = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"
    command = [sys.executable, "-c", script, "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert done.returncode != 0
    assert len(contracts) == 4
    for contract in contracts:
        assert f"{contract['name']} BROKEN" in done.stdout, done.stdout + done.stderr


def test_files_name_no_machine_and_no_registry() -> None:
    forbidden = re.compile(rb"(?<![\w.<>-])/(?:root|work|home)/\w|https?://[\w.-]*(?:pypi|pythonhosted)")
    wrong = {
        path.relative_to(ROOT).as_posix(): match.group().decode()
        for path in tracked()
        if path.is_file() and path != Path(__file__) and (match := forbidden.search(path.read_bytes()))
    }
    assert not wrong


@pytest.mark.parametrize("name", ["py311", "py312"])
def test_lock_pins_and_hashes_every_dependency(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.findall(
        r"^(\S+)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    lines = sum(2 + hashes.count("\n") - 1 for *_, hashes in entries)
    assert lines == len(text.splitlines()), "a line is neither a pinned package nor a sha256 hash"
    locked = {package.lower().replace("_", "-"): version for package, version, _ in entries}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    for line in project["project"]["dependencies"] + groups["dev"] + groups["bench"]:
        needed = Requirement(line)
        assert needed.specifier.contains(locked[needed.name.lower()]), line
