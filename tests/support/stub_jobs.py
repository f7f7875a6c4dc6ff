"""What the stub schedulers share: commands in a folder, and jobs that really run, detached from who submitted them.

A stub is a module that is also a program: ``python stub.py ROOT COMMAND ARGUMENT...``. A job is a folder below
ROOT/jobs, named by its number, with ``pid``, ``out`` and, when it is over, ``ended``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def install(folder: Path, module: str, commands: Sequence[str]) -> dict[str, str]:
    """Write the commands of a stub into a folder; return the environment that finds them."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in commands:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(module).resolve()} {folder} {name} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def new_job(root: Path, script: str) -> Path:
    """The folder of a new job, with its script."""
    folder = root / "jobs" / str(sum(1 for _ in (root / "jobs").iterdir()) + 1)
    folder.mkdir()
    (folder / "script").write_text(script)
    return folder


def detach(module: str, root: Path, *words: str) -> None:
    """Call ``python module root words...`` in a session of its own: the node's part of a job."""
    subprocess.Popen(
        [sys.executable, module, str(root), *words],
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def started(folder: Path) -> None:
    """Wait until a detached job runs."""
    while not (folder / "pid").exists():
        time.sleep(0.01)


def execute(
    folder: Path, start: Path, variables: Mapping[str, str], wall: float, first: int, patience: float
) -> None:
    """Run a job's script to its end, or to its limit.

    Args:
        folder: the job's.
        start: the directory in which it starts.
        variables: the scheduler's; nothing else of the environment is passed on but PATH and LANG.
        wall: seconds until the limit.
        first: the signal at the limit, to all processes of the job.
        patience: seconds until SIGKILL follows.
    """
    keep = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
    with (folder / "out").open("w") as out:
        job = subprocess.Popen(
            ["/bin/bash", str(folder / "script")], cwd=start, env={**keep, **variables}, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        note(folder / "pid", str(job.pid))
        try:
            job.wait(wall)
        except subprocess.TimeoutExpired:
            end(job.pid, first, patience, job.poll)
            job.wait()


def over(folder: Path, output: str) -> None:
    """Write the output file, as a scheduler does when a job has ended; from now on the job is over."""
    if output:
        Path(output).write_text((folder / "out").read_text())
    (folder / "ended").touch()


def note(path: Path, text: str) -> None:
    """Write a file that another command may be reading."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def end(session: int, first: int, patience: float, reap: Callable[[], object] = lambda: None) -> None:
    """A signal to all processes of a job, and SIGKILL to what is left after `patience` seconds."""
    deadline = time.monotonic() + patience
    try:
        os.killpg(session, first)
        while time.monotonic() < deadline:
            reap()  # a dead leader that nobody waited for still counts as a process
            os.killpg(session, 0)
            time.sleep(0.05)
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def alive(root: Path) -> list[Path]:
    """The folders of the jobs that have started and are not over, by number."""
    found = [
        folder
        for folder in (root / "jobs").iterdir()
        if (folder / "pid").exists() and not (folder / "ended").exists()
    ]
    return sorted(found, key=lambda folder: int(folder.name))
