"""What a person sees while a study runs: a table of stage × arm × replicate with an estimate of the rest."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table

from common.study.store import failure, is_done
from common.study.tasks import Task

State = Literal["done", "running", "waiting", "failed"]
MARKS: Mapping[State, str] = {
    "done": "[green]●[/]",
    "running": "[yellow]◐[/]",
    "waiting": "[dim]○[/]",
    "failed": "[red]✗[/]",
}


def duration(minutes: float) -> str:
    """``42 s``, ``7 min`` or ``3.1 h``."""
    if minutes < 1.5:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def share(folder: Path) -> float | None:
    """Done part of a running job in [0, 1] from its progress.json; None before it wrote one."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        return min(1.0, progress["done"] / max(1, progress["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def state(folder: Path, started: float) -> State:
    """Where a job stands; progress written before `started` (an earlier run's) counts as waiting."""
    if is_done(folder):
        return "done"
    if failure(folder) and (folder / "FAILED").stat().st_mtime >= started:
        return "failed"
    provenance = folder / "provenance.json"
    return "running" if provenance.is_file() and provenance.stat().st_mtime >= started else "waiting"


class Watch:
    """Context manager; call it a few times a second. A live table on a terminal, else a line per finished task."""

    def __init__(self, tasks: Sequence[Task], root: Path, cores: int) -> None:
        self.tasks, self.root, self.cores = tasks, root, cores
        self.started, self.last = time.time(), 0.0
        self.reported: set[str] = set()
        self.live = (
            Live(console=Console(), auto_refresh=False, transient=True) if sys.stdout.isatty() else None
        )

    def __enter__(self) -> Watch:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.__exit__(kind, error, trace)

    def __call__(self) -> None:
        """Look once a second; print or redraw what changed."""
        if time.time() - self.last < 1.0:
            return
        self.last = time.time()
        states: dict[str, list[State]] = {
            task.name: [state(job.folder(self.root), self.started) for job in task.jobs]
            for task in self.tasks
        }
        if self.live:
            self.live.update(self.table(states), refresh=True)
            return
        for task in self.tasks:
            now = states[task.name]
            if task.name not in self.reported and all(one in ("done", "failed") for one in now):
                self.reported.add(task.name)
                word = "done" if all(one == "done" for one in now) else "FAILED"
                print(
                    f"{duration((time.time() - self.started) / 60):>7}  {task.stage} {task.arm}: {word}"
                    f" · {len(self.reported)}/{len(self.tasks)} · {duration(self.remaining(states))} left",
                    flush=True,
                )

    def table(self, states: Mapping[str, Sequence[State]]) -> Table:
        """The live table."""
        table = Table("stage", "arm", "replicates", "state", box=None, pad_edge=False, min_width=60)
        for task in self.tasks:
            now = states[task.name]
            part = share(task.jobs[0].folder(self.root)) if "running" in now else None
            word = max(set(now), key=now.count) if part is None else f"{part:4.0%}"
            table.add_row(task.stage, task.arm, " ".join(MARKS[one] for one in now), word)
        done = sum(all(one not in ("waiting", "running") for one in now) for now in states.values())
        elapsed = duration((time.time() - self.started) / 60)
        table.caption = (
            f"{done}/{len(self.tasks)} processes · {elapsed} gone · {duration(self.remaining(states))} left"
        )
        return table

    def remaining(self, states: Mapping[str, Sequence[State]]) -> float:
        """Minutes left: the estimates of what is open, corrected by how wrong those of finished tasks were."""
        spent, estimated, open_minutes = 0.0, 0.0, 0.0
        for task in self.tasks:
            now = states[task.name]
            part = 1.0 if all(one in ("done", "failed") for one in now) else 0.0
            if "running" in now:
                part = share(task.jobs[0].folder(self.root)) or 0.0
            estimated += task.minutes * part
            open_minutes += task.minutes * (1 - part)
        spent = (time.time() - self.started) / 60 * self.cores
        pace = spent / estimated if estimated > 0.2 else 1.0
        longest = max((task.minutes for task in self.tasks if "done" not in states[task.name]), default=0.0)
        return max(open_minutes / self.cores, min(longest, open_minutes)) * min(max(pace, 0.2), 5.0)
