"""A job's folder: its specification, its markers, its lock. DONE, written last, is the only truth about success.

job.json       what to run (written by the front door; everything a worker needs)
config.yaml    the resolved configuration, for people
metrics.json   final scalars                 history.jsonl  curves
DONE           digests of the two; written last, by rename
FAILED         exit code, attempts, traceback
STOPPED        why the last process left before the end, with a checkpoint
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import EXIT_BAD_INPUT, EXIT_NON_FINITE, BadInputError
from common.files import digest, read_json, sha256, write_json, write_text
from common.study import lines
from common.study.jobs import Job

DONE = "DONE"
FAILED = "FAILED"
STOPPED = "STOPPED"
SPEC = "job.json"
METRICS = "metrics.json"
HISTORY = "history.jsonl"
FIXED = (
    "project",
    "scale",
    "stage",
    "status",
    "role",
    "fingerprint",
)  # first columns of a table, before the axes
INDEX = "index.jsonl"  # of the project: one line a job whose fingerprint was settled
# A failure that comes again with the same input: retried once by the next `make reproduce`, then left alone.
DETERMINISTIC = (EXIT_BAD_INPUT, EXIT_NON_FINITE)


def write_spec(job: Job, scale: str, root: Path) -> Path:
    """Create the job's folder with its job.json; an existing identical one is left alone."""
    folder = job.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    spec: dict[str, Any] = {
        "project": job.project,
        "scale": scale,
        "stage": job.stage.name,
        "run": job.stage.run,
        "stacked": job.stage.stacked,
        "axes": dict(job.axes),
        "config": dict(job.config),
        "fingerprint": job.fingerprint,
        "parts": dict(job.parts),
        "threads": job.parts["environment"]["threads"],
        "inputs": {
            name: [
                {"axes": dict(need.axes), "folder": str(need.folder(root).relative_to(root))}
                for need in needs
            ]
            for name, needs in job.inputs.items()
        },
    }
    path = folder / SPEC
    if not path.is_file() or read_json(path) != spec:
        write_json(path, spec)
    return folder


def is_done(folder: Path) -> bool:
    """Whether the job finished."""
    return (folder / DONE).is_file()


def mark_done(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics.json, then DONE with the digests of what a report reads."""
    write_json(folder / METRICS, {key: float(value) for key, value in metrics.items()})
    (folder / FAILED).unlink(missing_ok=True)
    write_json(folder / DONE, _digests(folder))


def read_metrics(folder: Path) -> dict[str, float]:
    """The final scalars of a finished job.

    Raises:
        BadInputError: metrics.json or history.jsonl is not what the job wrote.
    """
    if _digests(folder) != read_json(folder / DONE):
        raise BadInputError(
            f"{folder}: metrics.json or history.jsonl was altered after the job finished; "
            f"remove the folder and run the same command to make it again."
        )
    return read_json(folder / METRICS)


def mark_failed(folder: Path, code: int, message: str, trace: str) -> None:
    """Write FAILED; the number of attempts goes on from an earlier one."""
    attempts = failure(folder).get("attempts", 0) + 1
    write_json(
        folder / FAILED, {"exit_code": code, "attempts": attempts, "message": message, "traceback": trace}
    )


def failure(folder: Path) -> dict[str, Any]:
    """What FAILED says; empty when the job has not failed."""
    path = folder / FAILED
    return read_json(path) if path.is_file() else {}


def mark_stopped(folder: Path, reason: str) -> None:
    """Note why the job left before its end; the next start removes the note."""
    write_text(folder / STOPPED, reason + "\n")


def stopped(folder: Path) -> str:
    """Why the job left before its end, or nothing."""
    path = folder / STOPPED
    return path.read_text(encoding="utf-8").strip() if path.is_file() and not is_done(folder) else ""


def given_up(folder: Path) -> bool:
    """Whether the job failed twice in a way that would come again."""
    failed = failure(folder)
    return failed.get("exit_code") in DETERMINISTIC and failed.get("attempts", 0) >= 2


@contextmanager
def locked(path: Path, what: str) -> Generator[None]:
    """Hold an exclusive flock on `path`; a waiter says once which process it waits for.

    The kernel releases the lock when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            print(f"waiting for process {holder}, which works on {what}", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def append_index(project_folder: Path, spec: Mapping[str, Any]) -> None:
    """Note in index.jsonl that stage + axes now has this fingerprint, made of these parts."""
    entry = {key: spec[key] for key in ("scale", "stage", "axes", "fingerprint", "parts")}
    lines.append(project_folder / INDEX, entry)


def read_index(project_folder: Path) -> list[dict[str, Any]]:
    """The lines of index.jsonl, oldest first; a torn line is skipped."""
    return lines.read(project_folder / INDEX)


def study_fingerprint(jobs: Sequence[Job]) -> str:
    """One hash over all jobs of a study."""
    return digest(sorted(job.fingerprint for job in jobs))[:16]


def _digests(folder: Path) -> dict[str, str]:
    files = [folder / METRICS, folder / HISTORY]
    return {file.name: sha256(file) for file in files if file.is_file()}
