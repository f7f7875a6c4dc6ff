"""What Snakemake's cluster-generic executor calls: ``python -m common.study.batch submit|poll ENGINE ...``.

A job's success is read from its folders' DONE, never from a scheduler's exit code: PBS reports 0 for arrays that
failed and -29 for whatever met its limit. submitted.json in each job folder holds the scheduler's id, so that a front
door that died is simply started again: a job that the scheduler still knows is not submitted twice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.cluster import schedulers
from common.cluster.profile import Profile, account, profile
from common.cluster.script import Ask
from common.errors import EXIT_OTHER, RethesisError
from common.files import read_json, write_json, write_text
from common.study.polling import LAUNCH, alone, done, failed, living, note_silence, poll
from common.study.programs import programs_of
from common.study.registry import append, entries
from common.study.unborn import give_up_unborn

HALT = "HALT"  # of the engine: the front door was stopped, nothing more is submitted
REFUSED = "REFUSED"  # of the engine: the scheduler's words when it refused a job; nothing more is submitted
SUBMITTED = "submitted.json"  # of a job folder
BACKOFF = (2, 5, 10, 20, 40, 80, 160)  # seconds between attempts while a scheduler does not answer


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
    except (RethesisError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        if command == "poll":
            note_silence(Path(engine), error)
        return error.exit_code if isinstance(error, RethesisError) else EXIT_OTHER
    return 0


def submit(engine: Path, task: str, programs: Sequence[Sequence[Path]]) -> str:
    """Submit a job, unless the scheduler still knows it; return its id.

    Args:
        engine: the study's scratch folder.
        task: the job's name in the plan.
        programs: for each program of the job the folders that it works on.

    Raises:
        RethesisError: the front door was stopped; every open program failed in this run already, or never started;
            or the scheduler refused this job or one before it.
        OSError: the id could not be written down; the job was cancelled.
    """
    launch = read_json(engine / LAUNCH)
    chosen, root = profile(launch["launch"]), Path(launch["root"])
    todo = [(number, folders) for number, folders in enumerate(programs) if not done(folders)]
    if not todo:
        return _register(engine, f"done-{task}", task, programs)
    _require_open(engine)
    with alone(todo[0][1][0]):
        known = _known(engine, chosen, [folders for _, folders in todo])
        if known:
            return _register(engine, known, task, programs)
        todo = [(number, folders) for number, folders in todo if not failed(folders, engine)]
        if not todo:
            raise RethesisError(
                f"{task} failed in this run; `make logs` shows why. It is not submitted again."
            )
        give_up_unborn(
            engine, chosen.site, task, [folder for _, each in todo for folder in each], launch["began"]
        )
        asked = replace(Ask(**launch["asks"][task]), pack=len(todo))
        logs = [engine / "logs" / f"{task}.{number}.log" for number, _ in todo]
        path = engine / "scripts" / f"{task}.sh"
        path.parent.mkdir(exist_ok=True)
        write_text(path, _script(chosen, asked, [folders for _, folders in todo], logs, root))
        job = _patient(engine, chosen, path, account(chosen.site, root))
        try:
            for folder in (folder for _, folders in todo for folder in folders):
                write_json(folder / SUBMITTED, {"id": job, "site": chosen.site.name, "time": time.time()})
            return _register(engine, job, task, programs)
        except OSError:
            # Nobody would know of it: Ctrl-C would leave it, and the next attempt would submit it once more.
            schedulers.cancel(chosen.site, [job])
            raise


def refusal(engine: Path) -> str:
    """The scheduler's words when it refused a job in the last run, or nothing."""
    path = engine / REFUSED
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def halt(engine: Path) -> None:
    """Let no further job be submitted."""
    (engine / HALT).touch()


def cancel(engine: Path, chosen: Profile) -> int:
    """Cancel every job of this engine that the scheduler still knows; return how many.

    Raises:
        SchedulerError: it does not answer, or still has some of them.
    """
    known = {entry["id"] for entry in entries(engine)}
    ours = known & schedulers.living(chosen.site)
    schedulers.cancel(chosen.site, sorted(ours))
    schedulers.remove_stuck(chosen.site, known)
    return len(ours)


def _script(
    chosen: Profile, asked: Ask, programs: Sequence[Sequence[Path]], logs: Sequence[Path], root: Path
) -> str:
    from common.study.launch import script_of

    names = [[str(folder.relative_to(root)) for folder in folders] for folders in programs]
    return script_of(chosen, asked, names, logs, root)


def _require_open(engine: Path) -> None:
    """Submit nothing for a front door that was stopped, or after a refusal: the next job would be refused alike."""
    if (engine / HALT).exists():
        raise RethesisError("the front door was stopped; nothing is submitted any more.")
    if (engine / REFUSED).exists():
        raise RethesisError("the scheduler refused a job; nothing is submitted any more.")


def _patient(engine: Path, chosen: Profile, script: Path, pays: str) -> str:
    """Submit; while the scheduler gives no answer at all, try again for some minutes. A refusal is noted."""
    for pause in (*BACKOFF, None):
        _require_open(engine)
        try:
            return schedulers.submit(chosen.site, script, pays)
        except schedulers.SchedulerError as error:
            # A command that found no scheduler was not refused, unless questions are answered and it never finds one.
            refused = (pause is None or isinstance(error, schedulers.RefusedError)) and _answers(chosen)
            if refused:
                write_text(engine / REFUSED, f"{error}\n")
            if refused or pause is None:
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
        with alone(engine):  # an answer from before the submission says nothing about it
            answer = living(engine, chosen, min(chosen.poll, time.time() - max(times.values())))
        if answer is not None:
            return min(times.keys() & set(answer["ids"]), default="")
        if pause is not None:
            time.sleep(pause)
    raise schedulers.SchedulerError(f"{chosen.site.title} does not say whether {sorted(times)} still run.")


def _register(engine: Path, job: str, task: str, programs: Sequence[Sequence[Path]]) -> str:
    folders = [str(folder) for folders in programs for folder in folders]
    stage = task.rpartition("-")[0]
    append(engine, {"id": job, "time": time.time(), "task": task, "stage": stage, "folders": folders})
    return job


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
