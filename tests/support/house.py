"""A house in miniature: a copy of common/ with a toy thesis, so that tests may change code and kill processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "toy"


@dataclass(frozen=True)
class House:
    """A toy repository and the ways to use it."""

    root: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "common.study", *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("RETHESIS", "PYTHON"))
        }
        return {**clean, "PYTHONPATH": str(self.root), "PYTHONWARNINGS": "ignore", **extra}

    def run(self, *arguments: str, code: int | None = 0, **extra: str) -> str:
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            cwd=self.root,
            env=self.environment(**extra),
            text=True,
            capture_output=True,
        )
        output = done.stdout + done.stderr
        assert code is None or done.returncode == code, output
        return output

    def start(self, *arguments: str, ignored: str = "", **extra: str) -> subprocess.Popen[str]:
        """Start a command; `ignored` names a signal that its parent ignores."""
        trap = ["sh", "-c", f'trap "" {ignored}; exec "$0" "$@"'] if ignored else []
        return subprocess.Popen(
            [*trap, *self.command(*arguments)], cwd=self.root, env=self.environment(**extra), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def runs(self) -> Path:
        return self.root / "results" / ".runs" / "toy"

    def calls(self) -> list[str]:
        """What really ran: each toy stage appends a line to calls.txt."""
        path = self.root / "calls.txt"
        return path.read_text().splitlines() if path.is_file() else []

    def bits(self) -> dict[str, bytes]:
        """Everything that "same bits" is said of."""
        names = ("metrics.json", "history.jsonl")
        found = (path for path in self.runs().glob("*/*/*") if path.name in names)
        return {str(path.relative_to(self.runs())): path.read_bytes() for path in found}


def make_house(root: Path) -> House:
    """Copy the pipeline and the toy thesis to `root`."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "common", root / "common", ignore=ignore)
    shutil.copytree(TOY / "projects", root / "projects", ignore=ignore)
    shutil.copytree(TOY / "configs", root / "configs")
    shutil.copytree(REPOSITORY / "configs" / "launch", root / "configs" / "launch")
    for name in ("Snakefile", "configs/config.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    return House(root)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
