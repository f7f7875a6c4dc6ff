"""Jobs that end before their program starts: a wrong interpreter, a missing module, data that cannot be copied."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.cluster import schedulers
from common.cluster.sites import Site
from common.errors import EXIT_OTHER, RethesisError
from common.study.polling import newer
from common.study.registry import entries
from common.study.store import FAILED, STOPPED, mark_failed

MOST = 3  # of a task in one run; one may have met a broken node
SIGNS = ("provenance.json", FAILED, STOPPED)  # of a program that was started
LINES = 20


def give_up_unborn(engine: Path, site: Site, task: str, folders: Sequence[Path], began: float) -> None:
    """Fail a task whose jobs ended again and again without having started its program.

    Jobs of it that stand in an error state for good are removed from the queue, since it is submitted again.

    Args:
        engine: the study's scratch folder.
        site: the machine.
        task: the job's name in the plan.
        folders: of the jobs that it works on.
        began: Unix time at which this run of the front door began.

    Raises:
        RethesisError: it was given up; each folder's FAILED holds the end of the log.
    """
    mine = {entry["id"] for entry in entries(engine) if entry["task"] == task and entry["time"] >= began}
    if not mine:
        return
    with suppress(schedulers.SchedulerError):
        schedulers.remove_stuck(site, mine)
    if len(mine) < MOST or any(newer(folder / name, began) for folder in folders for name in SIGNS):
        return
    why = f"{len(mine)} jobs of {site.title} ended before the program started"
    words = last_words(engine, task) or "They left no output."
    for folder in folders:
        mark_failed(folder, EXIT_OTHER, f"{why}.", words)
    raise RethesisError(f"{task}: {why}. {words}")


def last_words(engine: Path, task: str = "") -> str:
    """The end of the newest log of the engine's jobs, or of a task's: a program's own, or what the scheduler said."""
    logs = [path for end in ("log", "scheduler") for path in engine.glob(f"logs/{task or '*'}.*{end}")]
    for log in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        if text := log.read_text(encoding="utf-8", errors="replace").strip():
            return f"{log.name}:\n" + "\n".join(text.splitlines()[-LINES:])
    return ""
