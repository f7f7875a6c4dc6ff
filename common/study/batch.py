"""What Snakemake's cluster-generic executor calls: ``python -m common.study.batch submit|poll ENGINE ...``.

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
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.cluster import schedulers
from common.cluster.profile import Profile, account, profile
from common.cluster.script import Ask
from common.errors import RethesisError
from common.files import read_json, write_json, write_text
from common.study.programs import programs_of
from common.study.store import DONE, FAILED, STOPPED

LAUNCH = "launch.json"  # of the engine: the profile, what each stage's jobs ask for
REGISTRY = "submitted.jsonl"  # of the engine: one line a submission; it outlives the front door
LIVING = "living.json"  # of the engine: the last answer about all jobs
VERDICTS = "verdicts"  # of the engine: a line ``id success|failed|running`` a job, which status.sh reads
HALT = "HALT"  # of the engine: the front door was stopped, nothing more is submitted
SUBMITTED = "submitted.json"  # of a job folder
BACKOFF = (2, 5, 10, 20, 40, 80, 160)  # seconds between attempts while a scheduler does not answer
SETTLE = 3  # polls that a shared file system may take to show what a job wrote


def main(arguments: Sequence[str]) -> int:
    """Submit and print the id; or bring the verdicts up to date."""
    command, engine, *rest = arguments
    try:
        if command == "submit":
            task, *folders = rest
            if (
                folders and Path(folders[-1]).suffix == ".sh"
            ):  # Snakemake's own job script, which we do not use
                folders.pop()
            print(submit(Path(engine), task, programs_of(folders)))
        else:
            poll(Path(engine))
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


def poll(engine: Path) -> dict[str, str]:
    """Judge every job by its files and one question to the scheduler; write the verdicts and the engine's markers.

    A scheduler that does not answer is no verdict: what has no DONE stays ``running`` then.
    """
    chosen = profile(read_json(engine / LAUNCH)["launch"])
    path = engine / VERDICTS
    with _alone(engine):
        lines = path.read_text().splitlines() if path.is_file() else []
        verdicts = {job: verdict for job, verdict in (line.split() for line in lines) if verdict != "running"}
        todo = {entry["id"]: entry for entry in _entries(engine) if entry["id"] not in verdicts}
        for job, entry in todo.items():
            if _done([Path(folder) for folder in entry["folders"]]):
                marker = engine / entry["stage"] / f"{entry['task']}.done"
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
                verdicts[job] = "success"
        answer = living(engine, chosen, 0.0)
        for job, entry in todo.items():
            verdicts.setdefault(job, _judge(entry, answer, SETTLE * chosen.poll))
        write_text(path, "".join(f"{job} {verdict}\n" for job, verdict in verdicts.items()))
    return verdicts


def living(engine: Path, chosen: Profile, age: float) -> dict[str, Any] | None:
    """The jobs that the scheduler knows, by an answer at most `age` seconds old; None: it does not answer.

    Call it while the engine's folder is locked.

    Returns:
        ``ids``, the ``time`` just before the question, and ``gone``: id -> when it was missed first.
    """
    path = engine / LIVING
    old: dict[str, Any] = read_json(path) if path.is_file() else {"time": 0.0, "ids": [], "gone": {}}
    now = time.time()
    if now - old["time"] < age:
        return old
    try:
        ids = schedulers.living(chosen.site)
    except schedulers.SchedulerError:
        return None
    missing = {entry["id"] for entry in _entries(engine) if entry["time"] < now} - ids
    gone = {job: old["gone"].get(job, now) for job in sorted(missing)}
    answer = {"time": now, "ids": sorted(ids), "gone": gone}
    write_json(path, answer)
    return answer


def _judge(entry: Mapping[str, Any], answer: Mapping[str, Any] | None, settle: float) -> str:
    """``running`` or ``failed``, of a job that is not done."""
    job, submitted = entry["id"], entry["time"]
    if answer is None or answer["time"] <= submitted or job in answer["ids"]:
        return "running"
    said = all(_said_why(Path(folder), submitted) for folder in entry["folders"])
    return (
        "failed" if said or answer["time"] - answer["gone"].get(job, answer["time"]) >= settle else "running"
    )


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
    paths = [folder / SUBMITTED for folders in programs for folder in folders]
    notes = [read_json(path) for path in paths if path.is_file()]
    times = {note["id"]: note["time"] for note in notes if note["site"] == chosen.site.name}
    if not times:
        return ""
    for pause in (*BACKOFF, None):
        with _alone(engine):  # an answer from before the submission says nothing about it
            answer = living(engine, chosen, min(chosen.poll, time.time() - max(times.values())))
        if answer is not None:
            return min(times.keys() & set(answer["ids"]), default="")
        if pause is not None:
            time.sleep(pause)
    raise schedulers.SchedulerError(f"{chosen.site.title} does not say whether {sorted(times)} still run.")


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
