"""What Snakemake's cluster-generic executor calls: ``python -m common.study.batch submit|status ENGINE ...``.

A job's success is read from its folders' DONE, never from a scheduler's exit code: PBS reports 0 for arrays that
failed and -29 for whatever met its limit. submitted.json in each job folder holds the scheduler's id, so that a front
door that died is simply started again: a job that the scheduler still knows is not submitted twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.cluster import schedulers
from common.cluster.profile import Profile, account, profile
from common.cluster.script import Ask
from common.errors import RethesisError
from common.files import read_json, write_json, write_text
from common.study.store import DONE, FAILED, STOPPED

LAUNCH = "launch.json"  # of the engine: the profile, what each stage's jobs ask for
REGISTRY = "submitted.jsonl"  # of the engine: one line a submission; it outlives the front door
LIVING = "living.json"  # of the engine: the last answer about all jobs
HALT = "HALT"  # of the engine: the front door was stopped, nothing more is submitted
SUBMITTED = "submitted.json"  # of a job folder
BETWEEN = "--"  # between the folders of two programs on a command line
BACKOFF = (2, 5, 10, 20, 40, 80, 160)  # seconds between attempts while a scheduler does not answer
SETTLE = 3  # polls that a shared file system may take to show what a job wrote


def main(arguments: Sequence[str]) -> int:
    """Run one command and print one line: an id, or success, failed or running."""
    command, engine, *rest = arguments
    try:
        if command == "submit":
            task, *folders = rest
            if (
                folders and Path(folders[-1]).suffix == ".sh"
            ):  # Snakemake's own job script, which we do not use
                folders.pop()
            print(submit(Path(engine), task, _programs(folders)))
        else:
            print(status(Path(engine), rest[0]))
    except RethesisError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def submit(engine: Path, task: str, programs: Sequence[Sequence[Path]]) -> str:
    """Submit a job, unless the scheduler still knows it; return its id.

    Args:
        engine: the study's scratch folder.
        task: the job's name in the plan.
        programs: for each program of the job the folders that it works on.

    Raises:
        RethesisError: the front door was stopped; every open program failed in this run already; or the
            scheduler refused.
    """
    launch = read_json(engine / LAUNCH)
    chosen, root = profile(launch["launch"]), Path(launch["root"])
    todo = [(number, folders) for number, folders in enumerate(programs) if not _done(folders)]
    if not todo:
        return _register(engine, f"done-{task}", task, programs)
    with _alone(todo[0][1][0]):
        known = _known(engine, chosen, [folders for _, folders in todo])
        if known:
            return _register(engine, known, task, programs)
        todo = [(number, folders) for number, folders in todo if not _failed(folders, engine)]
        if not todo:
            raise RethesisError(
                f"{task} failed in this run; `make logs` shows why. It is not submitted again."
            )
        asked = replace(Ask(**launch["asks"][task]), pack=len(todo))
        logs = [engine / "logs" / f"{task}.{number}.log" for number, _ in todo]
        path = engine / "scripts" / f"{task}.sh"
        path.parent.mkdir(exist_ok=True)
        write_text(path, _script(chosen, asked, [folders for _, folders in todo], logs, root))
        job = _patient(engine, chosen, path, account(chosen.site, root))
        for _, folders in todo:
            for folder in folders:
                write_json(folder / SUBMITTED, {"id": job, "site": chosen.site.name, "time": time.time()})
        return _register(engine, job, task, programs)


def status(engine: Path, job: str) -> str:
    """``success``, ``failed`` or ``running``; on success the engine's marker is written.

    A scheduler that does not answer is no verdict.
    """
    entry = _entry(engine, job)
    if (
        entry is None
    ):  # Snakemake remembers an id that nothing is known about: submitting again finds it, or not
        return "failed"
    folders = [Path(folder) for folder in entry["folders"]]
    if _done(folders):
        marker = engine / entry["stage"] / f"{entry['task']}.done"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        return "success"
    chosen = profile(read_json(engine / LAUNCH)["launch"])
    answer = living(engine, chosen)
    if answer is None or answer["time"] <= entry["time"] or job in answer["ids"]:
        return "running"
    said = all(_said_why(folder, entry["time"]) for folder in folders)
    if said or time.time() - answer["gone"].get(job, time.time()) >= SETTLE * chosen.poll:
        return "failed"
    return "running"


def living(engine: Path, chosen: Profile) -> dict[str, Any] | None:
    """The jobs that the scheduler knows, asked at most once in ``poll`` seconds for all of them; None: no answer.

    Returns:
        ``ids``, the ``time`` just before the question, and ``gone``: id -> when it was missed first.
    """
    path = engine / LIVING
    with _alone(engine):  # many ask at once: one of them asks the scheduler, the others read its answer
        old: dict[str, Any] = read_json(path) if path.is_file() else {"time": 0.0, "ids": [], "gone": {}}
        if time.time() - old["time"] < chosen.poll:
            return old
        now = time.time()
        try:
            ids = schedulers.living(chosen.site)
        except schedulers.SchedulerError:
            return None
        missing = {entry["id"] for entry in _entries(engine) if entry["time"] < now} - ids
        gone = {job: old["gone"].get(job, now) for job in sorted(missing)}
        answer = {"time": now, "ids": sorted(ids), "gone": gone}
        write_json(path, answer)
        return answer


def halt(engine: Path) -> None:
    """Let no further job be submitted."""
    (engine / HALT).touch()


def cancel(engine: Path, chosen: Profile) -> int:
    """Cancel every job of this engine that the scheduler still knows; return how many."""
    ours = {entry["id"] for entry in _entries(engine)} & schedulers.living(chosen.site)
    schedulers.cancel(chosen.site, sorted(ours))
    return len(ours)


def _script(
    chosen: Profile, asked: Ask, programs: Sequence[Sequence[Path]], logs: Sequence[Path], root: Path
) -> str:
    from common.study.launch import script_of

    names = [[str(folder.relative_to(root)) for folder in folders] for folders in programs]
    return script_of(chosen, asked, names, logs, root)


def _patient(engine: Path, chosen: Profile, script: Path, pays: str) -> str:
    """Submit; while the scheduler gives no answer at all, try again for some minutes."""
    for pause in (*BACKOFF, None):
        if (engine / HALT).exists():
            raise RethesisError("the front door was stopped; nothing is submitted any more.")
        try:
            return schedulers.submit(chosen.site, script, pays)
        except schedulers.SchedulerError:
            if pause is None or _answers(chosen):
                raise
        time.sleep(pause)
    raise AssertionError


def _answers(chosen: Profile) -> bool:
    try:
        schedulers.living(chosen.site)
    except schedulers.SchedulerError:
        return False
    return True


def _known(engine: Path, chosen: Profile, programs: Sequence[Sequence[Path]]) -> str:
    """The id under which the scheduler still has these programs, or nothing."""
    notes = [folder / SUBMITTED for folders in programs for folder in folders]
    ids = {
        note["id"]
        for path in notes
        if path.is_file() and (note := read_json(path))["site"] == chosen.site.name
    }
    if not ids:
        return ""
    for pause in (*BACKOFF, None):
        answer = living(engine, chosen)
        if answer is not None or pause is None:
            break
        time.sleep(pause)
    else:
        answer = None
    if answer is None:
        raise schedulers.SchedulerError(
            f"{chosen.site.title} does not say whether jobs {sorted(ids)} still run."
        )
    found = ids & set(answer["ids"])
    return min(found) if found else ""


def _register(engine: Path, job: str, task: str, programs: Sequence[Sequence[Path]]) -> str:
    folders = [str(folder) for folders in programs for folder in folders]
    stage = task.rpartition("-")[0]
    line = (
        json.dumps({"id": job, "time": time.time(), "task": task, "stage": stage, "folders": folders}) + "\n"
    )
    descriptor = os.open(engine / REGISTRY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return job


def _entries(engine: Path) -> list[dict[str, Any]]:
    path = engine / REGISTRY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _entry(engine: Path, job: str) -> dict[str, Any] | None:
    """The last line of an id; the others are not parsed."""
    start = json.dumps({"id": job})[:-1] + ","
    path = engine / REGISTRY
    lines = path.read_text().splitlines() if path.is_file() else []
    found = next((line for line in reversed(lines) if line.startswith(start)), None)
    return json.loads(found) if found else None


def _done(folders: Sequence[Path]) -> bool:
    return all((folder / DONE).is_file() for folder in folders)


def _failed(folders: Sequence[Path], engine: Path) -> bool:
    """Whether a program failed since this run of the front door began."""
    began = (engine / LAUNCH).stat().st_mtime
    return any(_newer(folder / FAILED, began) for folder in folders if not (folder / DONE).is_file())


def _said_why(folder: Path, submitted: float) -> bool:
    """Whether a job told by a file how it ended."""
    return (folder / DONE).is_file() or any(_newer(folder / name, submitted) for name in (FAILED, STOPPED))


def _newer(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime >= moment
    except FileNotFoundError:
        return False


def _programs(words: Sequence[str]) -> list[list[Path]]:
    programs: list[list[Path]] = [[]]
    for word in words:
        if word == BETWEEN:
            programs.append([])
        else:
            programs[-1].append(Path(word).resolve())
    return programs


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One process of this host at a time: an flock on the folder itself, which leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
