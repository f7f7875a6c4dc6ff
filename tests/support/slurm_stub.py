"""A Slurm of a few shell lines, for tests of one decision: its jobs run nothing and end when a test says so."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from launches import section

from common.cluster.script import Ask
from common.files import write_json
from common.study.polling import LAUNCH, PLAN

TASK = "count-0"


class SlurmStub:
    """sbatch counts up, squeue prints what `alive` holds, scancel empties it.

    While `down` exists none of them answers, while `refuses` exists sbatch prints its text and ends with 1, and while
    `keeps` exists scancel does so and cancels nothing. `calls` has a line for each time that sbatch was asked.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        names = ("alive", "down", "calls", "refuses", "keeps")
        self.alive, self.down, self.calls, self.refuses, self.keeps = (folder / name for name in names)
        for path in (self.alive, self.calls):
            path.touch()
        dead = f'[ -e {self.down} ] && {{ echo "Unable to contact slurm controller" >&2; exit 1; }}\n'
        scripts = {
            "sbatch": f"echo x >>{self.calls}\n{dead}{self._unless(self.refuses)}"
            f"n=$(wc -l <{self.calls}); echo $n RUNNING >>{self.alive}; echo $n",
            "squeue": f"{dead}cat {self.alive}",
            "scancel": f"{dead}{self._unless(self.keeps)}for job; do sed -i /^$job\\ /d {self.alive}; done",
        }
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    @staticmethod
    def _unless(path: Path) -> str:
        return f"[ -e {path} ] && {{ cat {path} >&2; exit 1; }}\n"

    def ends(self) -> None:
        self.alive.write_text("")

    def asked(self) -> int:
        return len(self.calls.read_text().splitlines())


def job_folder(root: Path) -> Path:
    """A job's folder, in a repository with an engine folder whose plan is this job alone."""
    folder = root / "results" / "count" / "f"
    folder.mkdir(parents=True)
    engine = engine_of(folder)
    (engine / "logs").mkdir(parents=True)
    launch = section("slurm", poll=0.1)
    asks = {TASK: asdict(Ask(TASK, seconds=600))}
    write_json(engine / LAUNCH, {"launch": launch, "root": str(root), "asks": asks, "began": time.time()})
    task = {"stage": "count", "needs": [], "programs": [[str(folder.relative_to(root))]]}
    write_json(engine / PLAN, {"tasks": {TASK: task}})
    return folder


def engine_of(folder: Path) -> Path:
    return folder.parents[2] / "engine"
