"""Running tasks: Snakemake in a session of its own, watched, stopped and never trusted about success."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from common.cluster.profile import profile
from common.errors import RethesisError, StoppedError
from common.files import read_json, write_json
from common.study import batch
from common.study.launch import Pack, cores, packed
from common.study.model import Resources
from common.study.polling import LAUNCH, PLAN, held, silence, undecided
from common.study.programs import spoken
from common.study.registry import REGISTRY
from common.study.store import write_spec
from common.study.tasks import Task

# Only the existence of DONE counts: each flag was found necessary after kill -9 (ARCHITECTURE.md, "the engine").
FLAGS = shlex.split(
    "--nolock --ignore-incomplete --keep-incomplete --keep-going --rerun-triggers mtime --quiet all --latency-wait 1"
)
GRACE = 10.0  # seconds between SIGTERM and SIGKILL
POLL = 0.25
SUBMISSION = 60.0  # seconds that a submission under way may take to end
SILENCE = 60.0  # seconds without a word from the scheduler, of which a person is told
SHOWN = 5  # ids of jobs that a message names
STARTS = 5  # of Snakemake in one run, before jobs of a scheduler are left to the next one
LOG = "snakemake.log"
LINES = 20  # of a process's output that are shown
Child = subprocess.Popen[bytes]


def minutes(tasks: Sequence[Task], launch: Mapping[str, Any]) -> float:
    """Estimated wall time of all tasks, if none waits in a queue: their sum over the cores, or their longest chain."""
    local = launch["executor"] == "local"
    known = {task.name: task for task in tasks}
    ends: dict[str, float] = {}

    def end(task: Task) -> float:
        if task.name not in ends:
            before = max((end(known[need]) for need in task.needs if need in known), default=0.0)
            ends[task.name] = before + task.minutes
        return ends[task.name]

    number = cores(launch) if local else max(1, min(cores(launch), len(tasks)))
    total = sum(task.minutes * (_threads(task, launch) if local else 1) for task in tasks)
    return max(total / number, max(map(end, tasks), default=0.0))


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

    It also ends where the scheduler refused a job: ``batch.refusal`` then has its words, and jobs of this study that
    it took before go on.

    Args:
        tasks: what to run.
        scale: noted in each job's specification.
        engine: scratch folder of this study; emptied first, but for what a scheduler may still run.
        launch: the launch profile.
        root: the repository's root.
        watch: called a few times a second.

    Raises:
        StoppedError: Snakemake ended again and again before the jobs of a scheduler did; nothing is known of these.
    """
    _clear(engine)
    write_plan(tasks, scale, engine, launch, root)
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if launch["executor"] == "batch":
            _run_jobs(engine, launch, root, watch, received)
        else:
            child = _spawn(engine, launch, root)
            _follow(child, engine, launch, watch, received)
            if received:
                _end(child)
        watch()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return received[0] if received else None


def _clear(engine: Path) -> None:
    """Remove what an earlier run left, but for what jobs in the queue may still need."""
    for path in engine.glob("*"):
        if path.name in ("logs", REGISTRY):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _spawn(engine: Path, launch: Mapping[str, Any], root: Path) -> Child:
    with (engine / LOG).open("a") as log:
        return subprocess.Popen(
            command(engine, launch), cwd=root, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=_default_signals,  # noqa: PLW1509 - no thread runs yet
        )  # fmt: skip


def _follow(
    child: Child, engine: Path, launch: Mapping[str, Any], watch: Callable[[], None], received: Sequence[int]
) -> None:
    """Watch until Snakemake ends, a signal comes or the scheduler refuses a job."""
    # A look costs three file operations a job: on a cluster's file system it keeps the pace of the polls.
    pace, last = (POLL if launch["executor"] == "local" else float(launch["poll"])), 0.0
    told, waiting = False, set[str]()
    while child.poll() is None and not received and not batch.refusal(engine):
        if time.monotonic() - last >= pace:
            watch()
            told = _tell_silence(engine, told)
            waiting |= _tell_held(engine, waiting)
            last = time.monotonic()
        time.sleep(POLL)


def _tell_silence(engine: Path, told: bool) -> bool:
    """Say once that polls tell nothing, and once that they do again; return whether the first was said last."""
    quiet = silence(engine)
    if quiet and not told and time.time() - quiet[0] >= SILENCE:
        since = time.strftime("%H:%M:%S", time.localtime(quiet[0]))
        print(
            f"nothing is known of the queue since {since}, and nothing is judged until it is: {quiet[1]}",
            flush=True,
        )
    elif told and not quiet:
        print("the scheduler answers again", flush=True)
    else:
        return told
    return not told


def _tell_held(engine: Path, told: Set[str]) -> set[str]:
    """Say which jobs will not start by themselves, once for each reason; return the reasons."""
    found = held(engine)
    for why, jobs in found.items():
        if why not in told:
            print(
                f"the scheduler lets {len(jobs)} jobs wait that will not start by themselves ({why}): "
                f"{', '.join(sorted(jobs)[:SHOWN])}. `make launch-check` shows what jobs ask for; Ctrl-C cancels them.",
                flush=True,
            )
    return set(found)


def _run_jobs(
    engine: Path, launch: Mapping[str, Any], root: Path, watch: Callable[[], None], received: Sequence[int]
) -> None:
    """Start Snakemake until each job of a scheduler has its verdict: one that died says nothing about them."""
    queued = unsubmitted = 0
    for start in range(1, STARTS + 1):
        child = _spawn(engine, launch, root)
        _follow(child, engine, launch, watch, received)
        refused = bool(batch.refusal(engine))
        queued, unsubmitted = (0, 0) if received or refused else undecided(engine)
        if received:  # perhaps while the scheduler was asked
            _end_jobs(child, engine, launch)
        elif refused:
            _end_submissions(child)
        if received or not queued + unsubmitted:
            return
        if start < STARTS:
            print(f"Snakemake ended before the jobs: started again, {start + 1} of {STARTS}", flush=True)
            _wait(float(launch["poll"]), received)
    raise StoppedError(
        f"Snakemake ended {STARTS} times before the jobs did, see {(engine / LOG).relative_to(root)}. Tasks in the "
        f"queue or running: {queued}; not submitted: {unsubmitted}. Nothing was cancelled and nothing judged; the same "
        "command continues."
    )


def _wait(seconds: float, received: Sequence[int]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not received:
        time.sleep(POLL)


def write_plan(
    tasks: Sequence[Task], scale: str, engine: Path, launch: Mapping[str, Any], root: Path
) -> None:
    """Write every job's specification, tasks.json for the Snakefile, and what a scheduler will be asked for."""
    (engine / "logs").mkdir(parents=True, exist_ok=True)
    packs = packed(tasks, launch)
    planned = {pack.name: _planned(pack, scale, root) for pack in packs}
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.stage, []).append(task)
    stages = {
        stage: {
            "threads": _threads(group[0], launch),
            "memory_mb": int(max(task.jobs[0].resources.memory_gb for task in group) * 1000),
            "gpus": group[0].jobs[0].resources.gpus,
            "nodes": group[0].jobs[0].resources.nodes,
            "start": shlex.join(_start(group[0].jobs[0].resources)),
        }
        for stage, group in groups.items()
    }
    if launch["executor"] == "batch":
        asks = {pack.name: asdict(pack.ask) for pack in packs if pack.ask}
        noted = {"launch": dict(launch), "root": str(root), "asks": asks, "began": time.time()}
        write_json(engine / LAUNCH, noted)
    plan = {"engine": str(engine.relative_to(root)), "tasks": planned, "stages": stages}
    write_json(engine / PLAN, plan)


def _threads(task: Task, launch: Mapping[str, Any]) -> int:
    """Cores that a process occupies; on this machine a measurement has all, so that nothing runs beside it."""
    if task.alone and launch["executor"] == "local":
        return cores(launch)
    threads = int(task.jobs[0].parts["environment"]["threads"])
    return threads * (task.jobs[0].resources.processes if launch["executor"] == "local" else 1)


def _start(resources: Resources) -> list[str]:
    """How the interpreter is started on this machine: torchrun for several processes of one training."""
    if resources.processes == 1:
        return [sys.executable]
    processes = ["--nproc-per-node", str(resources.processes)]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", *processes]


def _planned(pack: Pack, scale: str, root: Path) -> dict[str, Any]:
    programs = [
        [str(write_spec(job, scale, root).relative_to(root)) for job in task.jobs] for task in pack.tasks
    ]
    return {"stage": pack.stage, "needs": list(pack.needs), "programs": programs}


def output_of(folder: Path, root: Path) -> str:
    """The last lines that the process of a job printed when it was run last; empty when it never was."""
    name = str(folder.relative_to(root))
    plans = sorted(folder.parents[1].glob(f".engine/*/{PLAN}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(plans):
        for task, planned in read_json(path)["tasks"].items():
            numbers = [number for number, folders in enumerate(planned["programs"]) if name in folders]
            logs = [
                path.parent / "logs" / f"{task}{suffix}" for n in numbers for suffix in (".log", f".{n}.log")
            ]
            for log in (one for one in logs if one.is_file()):
                text = spoken(folder, log.read_text(encoding="utf-8", errors="replace"))
                return "\n".join(text.splitlines()[-LINES:])
    return ""


def command(engine: Path, launch: Mapping[str, Any]) -> list[str]:
    """The Snakemake command line of a launch profile.

    Batch systems all go through cluster-generic with our commands: Snakemake's slurm executor submits by itself,
    so it can neither adopt a job that runs already nor ask about all jobs without sacct.
    """
    snakemake = [sys.executable, "-m", "snakemake", *FLAGS]
    config = ["--config", f"tasks={engine / PLAN}"]
    if launch["executor"] == "local":
        return [*snakemake, "--cores", str(cores(launch)), *config]
    chosen = profile(launch)
    python, place = shlex.quote(sys.executable), shlex.quote(str(engine))
    job = "{wildcards.task} {params.programs}"  # filled in by Snakemake
    status = shlex.quote(str(Path(__file__).with_name("status.sh")))
    return [
        *snakemake, "--executor", "cluster-generic", "--jobs", str(chosen.jobs), "--retries", str(chosen.retries),
        "--seconds-between-status-checks", str(max(1, round(chosen.poll))),
        "--cluster-generic-submit-cmd", f"{python} -m common.study.batch submit {place} {job}",
        "--cluster-generic-status-cmd", f"sh {status} {place} {chosen.poll} {python}", *config,
    ]  # fmt: skip


def _default_signals() -> None:
    # nohup and make may have left SIGINT ignored, and Snakemake would pass that on to the jobs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(child: Child) -> None:
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


def _end_submissions(child: Child) -> None:
    """End Snakemake alone, so that a submission under way gets its id written down."""
    child.kill()
    deadline = time.monotonic() + SUBMISSION
    while time.monotonic() < deadline and _alive(child):
        time.sleep(0.05)


def _end_jobs(child: Child, engine: Path, launch: Mapping[str, Any]) -> None:
    """Submit no more and cancel every job."""
    batch.halt(engine)
    _end_submissions(child)
    try:
        print(f"cancelled {batch.cancel(engine, profile(launch))} jobs", flush=True)
    except (RethesisError, OSError) as error:
        print(f"not all jobs could be cancelled: {error} Their ids: {engine / REGISTRY}", flush=True)


def _alive(child: Child) -> bool:
    child.poll()  # reap, or the leader itself would count as alive
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True
