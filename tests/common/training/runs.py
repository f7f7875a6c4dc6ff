"""Starts, kills and compares runs of trainee.py."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


class Runs:
    """A server that imported Lightning once and forks a process for each run."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.server = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore:The `srun` command is available:UserWarning",
                "-m",
                "tests.common.training.trainee",
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def running(self, out: Path, kind: str, **options: Any) -> Iterator[int]:
        """A run that has been started: its pid. ``wait`` must follow before the next."""
        request = {"out": str(out), "kind": kind, "log": str(log_of(out)), **options}
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        yield self._number()

    def wait(self) -> int:
        """Exit code of the run; minus the signal that killed it."""
        return self._number()

    def run(self, out: Path, kind: str, **options: Any) -> int:
        """Start a run and wait for its exit code."""
        with self.running(out, kind, **options):
            return self.wait()

    def final(self, out: Path, kind: str, **options: Any) -> dict[str, str]:
        """Run to the end; the digests of all that is left."""
        code = self.run(out, kind, **options)
        assert code == 0, log_of(out).read_text()
        return json.loads((out / "final.json").read_text())

    def close(self) -> None:
        self.server.communicate()

    def _number(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


def log_of(out: Path) -> Path:
    """Where a run's stdout and stderr go."""
    return out.with_name(out.name + ".log")


@functools.cache
def server() -> Runs:
    """The one server of this test process."""
    runs = Runs()
    atexit.register(runs.close)
    return runs
