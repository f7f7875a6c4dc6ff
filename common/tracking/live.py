"""Follows running jobs and shows them in W&B: ``python -m common.tracking.live --project p --scale s``.

A process of its own that only reads the jobs' folders: whatever happens to W&B ends this process, never
a job. Stopped by SIGTERM, SIGINT or the end of its parent; `export` completes what it leaves.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from common.tracking import wandb_runs as runs
from common.tracking.provenance import ROOT
from common.tracking.record import HISTORY, Row, read_history
from common.tracking.redact import redact_text
from common.tracking.wandb_export import PROJECT

POLL_SECONDS = 5.0
_TOUCHED = ("provenance.json", HISTORY, "DONE", "FAILED")


@dataclass
class _Followed:
    """A run that is open in W&B, and the rows of its history that were read."""

    run: Any
    claim: ExitStack
    uploaded: int
    rows: list[Row] = field(default_factory=list[Row])


class Follower:
    """Exports jobs under `jobs` (``<stage>/<fingerprint>``) that move after `since`, Unix seconds."""

    def __init__(self, wandb: Any, jobs: Path, target: runs.Target, mode: runs.Mode, since: float) -> None:
        self._wandb, self._jobs, self._since = wandb, jobs, since
        self._target, self._directory = target, target.directory
        self._mode: runs.Mode = mode
        self._open: dict[Path, _Followed] = {}

    def poll(self) -> None:
        """Send the new rows of every moving job; open and close runs as jobs start and end."""
        for folder in sorted(self._jobs.glob("*/*/")):
            if folder in self._open or self._moved(folder):
                job = runs.read_job(folder)
                self._send(job)
                if job.status != "running" and folder in self._open:
                    self._finish(job)

    def close(self) -> None:
        """Send what is new and close every run."""
        for folder in list(self._open):
            job = runs.read_job(folder)
            self._send(job)
            self._finish(job)

    def _moved(self, folder: Path) -> bool:
        times = [(folder / name).stat().st_mtime for name in _TOUCHED if (folder / name).exists()]
        if not times or not (folder / "config.yaml").exists() or max(times) < self._since:
            return False
        ended = (folder / "DONE").exists() or (folder / "FAILED").exists()
        return not (ended and runs.read_state(self._directory, folder.name[: runs.ID_DIGITS]))

    def _send(self, job: runs.Exported) -> None:
        followed = self._open.get(job.folder) or self._start(job)
        if followed is None:
            return
        # from the start: a resume cuts the file, and on another machine it goes on with other bytes
        first, followed.rows = len(followed.rows), read_history(job.folder / HISTORY)
        rows = followed.rows[first:]
        skip = max(0, followed.uploaded - first)
        runs.log_rows(followed.run, rows[skip:], first + skip)

    def _start(self, job: runs.Exported) -> _Followed | None:
        claim = ExitStack()
        if not claim.enter_context(runs.claimed(self._directory, job.run_id)):
            claim.close()
            return None
        state = runs.read_state(self._directory, job.run_id)
        # The first rows of a run wait for `make sync`: the rest must not reach the server before them.
        waits = bool(state.get("folder"))
        run = runs.open_run(self._wandb, job, self._target, "offline" if waits else self._mode)
        self._open[job.folder] = _Followed(run, claim, state.get("uploaded", 0))
        return self._open[job.folder]

    def _finish(self, job: runs.Exported) -> None:
        followed = self._open.pop(job.folder)
        runs.close_run(self._wandb, followed.run, job)
        offline = followed.run.settings.mode == "offline"
        folder = Path(followed.run.settings.sync_dir).name if offline else ""
        uploaded = followed.uploaded if offline else len(followed.rows)
        runs.write_state(self._target, job, followed.rows, uploaded, folder)
        followed.claim.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow until told to stop; 0, or 1 after one line about why W&B was given up."""
    parser = argparse.ArgumentParser(prog="common.tracking.live", description=__doc__)
    parser.add_argument("--project", required=True, help="the thesis")
    parser.add_argument("--scale", required=True)
    parser.add_argument("--mode", choices=("offline", "online"), default="offline")
    parser.add_argument("--wandb-project", default=PROJECT)
    parser.add_argument("--root", type=Path, default=ROOT, help="repository")
    parser.add_argument("--poll", type=float, default=POLL_SECONDS, help="seconds between two looks")
    given = parser.parse_args(arguments)
    stop, parent, since = threading.Event(), os.getppid(), time.time()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    base = given.root / "results" / ".runs"
    target = runs.Target(given.wandb_project, f"{given.project}/{given.scale}", base / "wandb")
    try:
        with runs.session(base / "wandb", given.mode) as wandb:
            follower = Follower(wandb, base / given.project, target, given.mode, since)
            while not stop.is_set() and os.getppid() == parent:
                follower.poll()
                stop.wait(given.poll)
            follower.close()
    except Exception as error:  # W&B may fail in ways that it does not declare; the jobs go on without it
        why = redact_text(f"{type(error).__name__}: {error}".splitlines()[0])[:200]
        message = f"W&B is given up for this run ({why}); no job is affected, `make sync` uploads later."
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.nice(10)
    sys.exit(main())
