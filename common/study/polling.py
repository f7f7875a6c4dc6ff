"""What became of submitted jobs: by the files that they wrote, and one question to the scheduler about all of them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.cluster import schedulers
from common.cluster.profile import Profile, profile
from common.errors import DamagedError, RethesisError
from common.files import read_json, write_json, write_text
from common.study.registry import entries
from common.study.store import DONE, FAILED, STOPPED

# All of the engine's folder
LAUNCH = "launch.json"  # the profile, what each stage's jobs ask for, when this run began
PLAN = "tasks.json"  # the tasks and what they wait for, for the Snakefile too
LIVING = "living.json"  # the last answer about all jobs
SILENT = "silent.json"  # since when, and why, no poll has told anything
VERDICTS = "verdicts"  # a line ``id success|failed|running`` a job, which status.sh reads
SETTLE = 3  # polls that a shared file system may take to show what a job wrote


def poll(engine: Path) -> dict[str, str]:
    """Judge every job by its files and one question to the scheduler; write the verdicts and the engine's markers.

    A scheduler that does not answer is no verdict: what has no DONE stays ``running`` then.
    """
    chosen = profile(read_json(engine / LAUNCH)["launch"])
    path = engine / VERDICTS
    with alone(engine):
        rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
        verdicts = {row[0]: row[1] for row in rows if len(row) == 2 and row[1] != "running"}
        todo = {entry["id"]: entry for entry in entries(engine) if entry["id"] not in verdicts}
        for job, entry in todo.items():
            if done([Path(folder) for folder in entry["folders"]]):
                marker = engine / entry["stage"] / f"{entry['task']}.done"
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
                verdicts[job] = "success"
        answer = living(engine, chosen, 0.0)
        for job, entry in todo.items():
            verdicts.setdefault(job, _judge(entry, answer, SETTLE * chosen.poll))
        write_text(path, "".join(f"{job} {verdict}\n" for job, verdict in verdicts.items()))
        if answer is not None:
            (engine / SILENT).unlink(missing_ok=True)
    return verdicts


def living(engine: Path, chosen: Profile, age: float) -> dict[str, Any] | None:
    """The jobs that the scheduler knows, by an answer at most `age` seconds old; None: it does not answer.

    Call it while the engine's folder is locked.

    Returns:
        ``ids``, the ``time`` just before the question, ``gone``: id -> when it was missed first, and ``held``: id of
        ours -> why it will not start by itself.
    """
    path = engine / LIVING
    old: dict[str, Any] = {"time": 0.0, "ids": [], "gone": {}}
    with suppress(DamagedError):  # then it is asked anew
        old = read_json(path) if path.is_file() else old
    now = time.time()
    if now - old["time"] < age:
        return old
    try:
        found = schedulers.queue(chosen.site)
    except schedulers.SchedulerError as error:
        note_silence(engine, error)
        return None
    known = entries(engine)
    missing = {entry["id"] for entry in known if entry["time"] < now} - found.keys()
    gone = {job: old["gone"].get(job, now) for job in sorted(missing)}
    ours = {entry["id"] for entry in known}
    held = {job: why for job, why in found.items() if why and job in ours}
    answer = {"time": now, "ids": sorted(found), "gone": gone, "held": held}
    write_json(path, answer)
    return answer


def held(engine: Path) -> dict[str, list[str]]:
    """Why jobs will not start by themselves -> their ids, by the last answer."""
    try:
        answer = read_json(engine / LIVING)
    except (FileNotFoundError, DamagedError):
        return {}
    found: dict[str, list[str]] = {}
    for job, why in answer.get("held", {}).items():
        found.setdefault(why, []).append(job)
    return found


def note_silence(engine: Path, why: Exception) -> None:
    """Write down that a poll told nothing; `silence` then says since when, until one succeeds."""
    with suppress(OSError):  # which may be what is wrong
        since = silence(engine)
        write_json(engine / SILENT, {"since": since[0] if since else time.time(), "why": str(why)})


def silence(engine: Path) -> tuple[float, str] | None:
    """Unix time of the first of the polls that told nothing, and why the last of them did not; None: all is well."""
    try:
        note = read_json(engine / SILENT)
        return float(note["since"]), str(note["why"])
    except (FileNotFoundError, DamagedError):
        return None


def undecided(engine: Path) -> tuple[int, int]:
    """How many tasks of the plan wait or run in the queue, and how many could run but were not submitted in this run.

    Of every other task a verdict is known, or it waits for one that failed. Where the poll fails, nothing is known:
    what was submitted then counts as in the queue.
    """
    launch = read_json(engine / LAUNCH)
    plan: dict[str, Any] = read_json(engine / PLAN)["tasks"]
    try:
        verdicts = poll(engine)
    except (RethesisError, OSError):
        verdicts = {}
    root, last = Path(launch["root"]), {entry["task"]: entry for entry in entries(engine)}
    programs = {
        task: [[root / name for name in names] for names in one["programs"]] for task, one in plan.items()
    }
    finished = {task for task, each in programs.items() if all(done(folders) for folders in each)}
    queued = unsubmitted = 0
    for task in plan.keys() - finished:
        entry = last.get(task)
        if entry and verdicts.get(entry["id"], "running") == "running":
            queued += 1
        elif not (entry and entry["time"] >= launch["began"]) and finished.issuperset(plan[task]["needs"]):
            unsubmitted += not any(failed(folders, engine) for folders in programs[task])
    return queued, unsubmitted


def done(folders: Sequence[Path]) -> bool:
    """Whether all jobs of a program are done."""
    return all((folder / DONE).is_file() for folder in folders)


def failed(folders: Sequence[Path], engine: Path) -> bool:
    """Whether a program failed since this run of the front door began."""
    began = (engine / LAUNCH).stat().st_mtime
    return any(newer(folder / FAILED, began) for folder in folders if not (folder / DONE).is_file())


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """One process of this host at a time: an flock on the folder itself, which leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _judge(entry: Mapping[str, Any], answer: Mapping[str, Any] | None, settle: float) -> str:
    """``running`` or ``failed``, of a job that is not done."""
    job, submitted = entry["id"], entry["time"]
    if answer is None or answer["time"] <= submitted or job in answer["ids"]:
        return "running"
    said = all(_said_why(Path(folder), submitted) for folder in entry["folders"])
    return (
        "failed" if said or answer["time"] - answer["gone"].get(job, answer["time"]) >= settle else "running"
    )


def _said_why(folder: Path, submitted: float) -> bool:
    """Whether a job told by a file how it ended."""
    return (folder / DONE).is_file() or any(newer(folder / name, submitted) for name in (FAILED, STOPPED))


def newer(path: Path, moment: float) -> bool:
    """Whether a file is there and was written since a Unix time."""
    try:
        return path.stat().st_mtime >= moment
    except FileNotFoundError:
        return False
