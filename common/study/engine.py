"""Running tasks: Snakemake in a session of its own, watched, stopped and never trusted about success."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from common.errors import BadInputError
from common.files import read_json, write_json
from common.study.store import write_spec
from common.study.tasks import Task
from common.tracking.provenance import usable_cores

# Only the existence of DONE counts: each flag was found necessary after kill -9 (ARCHITECTURE.md, "the engine").
FLAGS = shlex.split(
    "--nolock --ignore-incomplete --keep-incomplete --keep-going --rerun-triggers mtime --quiet all --latency-wait 1"
)
GRACE = 10.0  # seconds between SIGTERM and SIGKILL
POLL = 0.25
LINES = 20  # of a process's output that are shown


def cores(launch: Mapping[str, Any]) -> int:
    """Cores that the launch profile allows, by default all that this process may use."""
    return int(launch["cores"] or usable_cores())


def run(
    tasks: Sequence[Task],
    *,
    scale: str,
    engine: Path,
    launch: Mapping[str, Any],
    root: Path,
    watch: Callable[[], None],
) -> int | None:
    """Run tasks to their end and return the signal that stopped us, or None.

    Args:
        tasks: what to run.
        scale: noted in each job's specification.
        engine: scratch folder of this study; emptied first.
        launch: the launch profile.
        root: the repository's root.
        watch: called a few times a second.
    """
    shutil.rmtree(engine, ignore_errors=True)
    write_plan(tasks, scale, engine, root)
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with (engine / "snakemake.log").open("w") as log:
            child = subprocess.Popen(
                command(engine, launch), cwd=root, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_default_signals,  # noqa: PLW1509 - no thread runs yet
            )  # fmt: skip
            while child.poll() is None and not received:
                watch()
                time.sleep(POLL)
            if received:
                _end(child)
        watch()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return received[0] if received else None


def write_plan(tasks: Sequence[Task], scale: str, engine: Path, root: Path) -> None:
    """Write every job's specification and tasks.json, which the Snakefile reads."""
    (engine / "logs").mkdir(parents=True, exist_ok=True)
    planned = {
        task.name: {
            "stage": task.stage,
            "needs": list(task.needs),
            "folders": [str(write_spec(job, scale, root).relative_to(root)) for job in task.jobs],
        }
        for task in tasks
    }
    stages = {
        task.stage: {
            "threads": int(task.jobs[0].parts["environment"]["threads"]),
            "memory_mb": int(task.jobs[0].stage.resources.memory_gb * 1000),
            "gpus": task.jobs[0].stage.resources.gpus,
            "nodes": task.jobs[0].stage.resources.nodes,
        }
        for task in tasks
    }
    plan = {"engine": str(engine.relative_to(root)), "tasks": planned, "stages": stages}
    write_json(engine / "tasks.json", plan)


def output_of(folder: Path, root: Path) -> str:
    """The last lines that the process of a job printed when it was run last; empty when it never was."""
    name = str(folder.relative_to(root))
    plans = sorted(folder.parents[1].glob(".engine/*/tasks.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(plans):
        for task, planned in read_json(path)["tasks"].items():
            log = path.parent / "logs" / f"{task}.log"
            if name in planned["folders"] and log.is_file():
                return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:])
    return ""


def command(engine: Path, launch: Mapping[str, Any]) -> list[str]:
    """The Snakemake command line of a launch profile."""
    if launch["executor"] != "local":
        raise BadInputError(f"LAUNCH executor {launch['executor']!r} is not known; only 'local' is.")
    number = str(cores(launch))
    config = f"tasks={engine / 'tasks.json'}"
    return [sys.executable, "-m", "snakemake", "--cores", number, *FLAGS, "--config", config]


def _default_signals() -> None:
    # nohup and make may have left SIGINT ignored, and Snakemake would pass that on to the jobs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group (Snakemake forwards no signal), SIGKILL to what is left after ten seconds."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _alive(child):
            time.sleep(0.05)
        if not _alive(child):
            break


def _alive(child: subprocess.Popen[bytes]) -> bool:
    child.poll()  # reap, or the leader itself would count as alive
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True
