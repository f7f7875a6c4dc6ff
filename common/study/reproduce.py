"""`make reproduce`: from names to a report. One study at one scale is run by one front door at a time."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import EXIT_NON_FINITE, EXIT_STOPPED, BadInputError, DamagedError
from common.study import batch, engine
from common.study.collect import environment_of, overrides_label, status, write_result
from common.study.config import ROOT, compose
from common.study.contrast import check_claims
from common.study.jobs import Job, expand, load_study, select
from common.study.launch import cores, packed
from common.study.launch_check import require
from common.study.model import Study
from common.study.progress import Watch, duration, state
from common.study.store import failure, locked, stopped, study_fingerprint
from common.study.tasks import Task, plan_tasks


@dataclass(frozen=True)
class Request:
    """What the user asked for: names, overrides and narrowing."""

    project: str
    scale: str = "laptop"
    launch: str = "local"
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    seeds: int | None = None
    track: str = "offline"
    root: Path = field(default=ROOT)

    @property
    def label(self) -> str:
        """The result folder's name: the scale, or scale+hash when the study was modified."""
        return overrides_label(self.scale, self.changes, self.only, self.seeds)

    @property
    def changes(self) -> tuple[str, ...]:
        """The overrides that change the study; how its jobs are launched is no part of it."""
        return tuple(override for override in self.overrides if not override.startswith("launch."))

    @property
    def result(self) -> Path:
        """results/<project>/<label>/."""
        return self.root / "results" / self.project / self.label

    @property
    def runs(self) -> Path:
        """results/.runs/<project>/, shared by all scales."""
        return self.root / "results" / ".runs" / self.project

    @property
    def engine(self) -> Path:
        """The engine's scratch folder of this study."""
        return self.runs / ".engine" / self.label


def prepare(request: Request, cpu: str | None = None) -> tuple[Study, dict[str, Any], list[Job]]:
    """Study, configuration and jobs of a request; measurements as on another CPU model where one is given.

    Raises:
        BadInputError: an unknown name, key, stage or arm.
    """
    overrides = list(request.overrides)
    if request.seeds is not None:
        if request.seeds < 1:
            raise BadInputError(f"SEEDS={request.seeds}: at least 1.")
        overrides.append(f"seeds.count={request.seeds}")
    cfg = compose(request.project, request.scale, overrides, request.launch, request.root)
    study = load_study(request.project)
    check_claims(study.claims)
    jobs = expand(study, cfg, request.root, cpu)
    chosen = select(jobs, request.only) if request.only else jobs
    if not chosen:
        why = f"ONLY={','.join(request.only)} names none of them" if request.only else "see seeds and grid"
        raise BadInputError(f"{request.project} at scale {request.label} has no job: {why}.")
    return study, cfg, chosen


def reproduce(request: Request) -> int:
    """Run what is missing, judge the claims, write the report; return the exit code."""
    study, cfg, jobs = prepare(request)
    with locked(request.runs / f".{request.label}.lock", f"{request.project} at scale {request.label}"):
        return _reproduce(request, study, cfg, jobs)


def _reproduce(request: Request, study: Study, cfg: Mapping[str, Any], jobs: Sequence[Job]) -> int:
    tasks = plan_tasks(jobs, request.root)
    report = request.result / "report.html"
    if not tasks and _current(request, jobs) and not _judge_again(request, study):
        print(f"nothing to do: all {len(jobs)} jobs are done. Report: {_relative(report, request)}")
        return _exit_code(jobs, request.root, ())
    ended, ran = run_missing(request, cfg, jobs, tasks)
    if ended is not None:
        return ended
    finish(request, study, jobs)
    return _exit_code(jobs, request.root, ran)


def run_missing(
    request: Request, cfg: Mapping[str, Any], jobs: Sequence[Job], tasks: Sequence[Task]
) -> tuple[int | None, set[str]]:
    """Run `tasks`, what is missing of `jobs`; return the exit code of an early end, or None, and what was started.

    Raises:
        BadInputError: the scheduler refused a job.
        StoppedError: jobs of a scheduler were left without a verdict.
    """
    require(tasks, cfg["launch"], request.root)
    _announce(request, jobs, tasks, cfg)
    ran: set[str] = set()
    failed: set[str] = set()
    while tasks:
        began = time.time()
        ran |= {job.fingerprint for task in tasks for job in task.jobs}
        signal = _run(request, tasks, cfg)
        if signal is not None:
            print("stopped; the same command continues")
            return 128 + signal, ran
        if words := _refused(request):
            raise BadInputError(words)
        reasons = [
            reason for task in tasks for job in task.jobs if (reason := stopped(job.folder(request.root)))
        ]
        if reasons:
            print(f"{len(reasons)} jobs stopped: {reasons[0]}\nThe same command continues.")
            return EXIT_STOPPED, ran
        # What only waited for another task of its producers' process, and the members of a stack that diverged.
        failed |= {job.fingerprint for task in tasks for job in _lost(task, request.root, began)}
        before, tasks = {task.name for task in tasks}, plan_tasks(jobs, request.root, without=failed)
        if before == {task.name for task in tasks}:
            break
    return None, ran


def _refused(request: Request) -> str:
    """What to tell a person after a run that a refusal of the scheduler ended; empty after any other."""
    words = batch.refusal(request.engine)
    if not words:
        return ""
    check = _command(request, f"launch-check LAUNCH={request.launch}", request.overrides)
    return (
        f"{words}\nNothing more was submitted, and nothing was cancelled or judged: what was submitted before goes on. "
        f'`{check}` shows what the jobs ask for; RETHESIS_ACCOUNT and ARGS="launch.…" change it. Then the same command '
        "continues."
    )


def finish(request: Request, study: Study, jobs: Sequence[Job]) -> None:
    """Write table, claims and report of a result, export to W&B, and say where the report is."""
    from common.study.report import render
    from common.tracking.provenance import git_state

    git = git_state(request.root)
    environment = environment_of(study, jobs, request.root, **_circumstances(request, git))
    environment["dirty"] = bool(environment["dirty"] or git["dirty"])
    # Without it the result does not count as current, so a figure that fails now is drawn by the next command.
    (request.result / "report.html").unlink(missing_ok=True)
    write_result(study, jobs, request.result, scale=request.scale, environment=environment, root=request.root)
    render(study, request.result)
    if request.track != "off":
        _export(request, jobs)
    print(f"report: {_relative(request.result / 'report.html', request)}")


def _circumstances(request: Request, git: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scale": request.scale,
        "commit": git["commit"],
        "overrides": [*request.changes, *_narrowed(request)],
        "command": _command(request, "reproduce", request.changes),
    }


def _narrowed(request: Request) -> list[str]:
    narrowed = [f"ONLY={','.join(request.only)}"] if request.only else []
    return narrowed + ([f"SEEDS={request.seeds}"] if request.seeds is not None else [])


def _command(request: Request, target: str, overrides: Sequence[str]) -> str:
    """A command of the Makefile about this study."""
    words = [f"make {target} PROJECT={request.project} SCALE={request.scale}", *_narrowed(request)]
    text = " ".join(overrides)
    if text:
        words.append(f"ARGS={shlex.quote(text)}" if '"' in text else f'ARGS="{text}"')
    return " ".join(words)


def _run(request: Request, tasks: Sequence[Task], cfg: Mapping[str, Any]) -> int | None:
    with Watch(tasks, request.root, cores(cfg["launch"])) as watch, _live(request):
        return engine.run(
            tasks,
            scale=request.scale,
            engine=request.engine,
            launch=cfg["launch"],
            root=request.root,
            watch=watch,
        )


def _announce(request: Request, jobs: Sequence[Job], tasks: Sequence[Task], cfg: Mapping[str, Any]) -> None:
    launch = cfg["launch"]
    number, minutes = cores(launch), engine.minutes(tasks, launch)
    local = launch["executor"] == "local"
    where = f"{number} cores" if local else f"{request.launch}, {min(number, len(tasks))} processes at once"
    open_jobs, packs = sum(len(task.jobs) for task in tasks), len(packed(tasks, launch))
    cost = f"{sum(task.minutes for task in tasks) / 60:.2f} hours of processes"
    print(
        f"{request.project} at scale {request.label}: {open_jobs} of {len(jobs)} jobs to run in "
        f"{packs} {'processes' if local else 'jobs of the scheduler'}, about {duration(minutes)} on {where}"
        f"{'' if local else ', without the time in the queue'} ({cost}"
        f"{'' if local else '; `make launch-check` counts nodes and points'})",
        flush=True,
    )


def _current(request: Request, jobs: Sequence[Job]) -> bool:
    """Whether the written result is of exactly these jobs, with every file in place."""
    from common.files import read_json

    claims = request.result / "claims.json"
    files = [
        claims,
        *(request.result / name for name in ("report.md", "report.html", "table.csv", "curves.csv")),
    ]
    if not all(file.is_file() for file in files):
        return False
    try:
        return read_json(claims)["fingerprint"] == study_fingerprint(jobs)
    except DamagedError:
        return False  # it is written anew


def _judge_again(request: Request, study: Study) -> bool:
    """Whether claims were edited since the result was written, and no verdict stands that the edit came after.

    A verdict on a claim that was edited after the runs is not replaced: the report marks it superseded.
    """
    from common.files import read_json
    from common.study.report import render
    from common.study.verdict import claim_hash

    entries = read_json(request.result / "claims.json")["claims"]
    now = [(claim.id, claim_hash(claim)) for claim in study.claims]
    if [(entry["id"], entry["hash"]) for entry in entries] == now:
        return False
    modified = request.label != request.scale
    if modified or all(entry["verdict"] in ("not assessed", "invalid") for entry in entries):
        return True
    render(study, request.result)
    print(
        "The claims of study.py were edited after these runs; the report marks what is superseded. Fresh runs "
        f"decide the new ones: remove {_relative(request.runs, request)} and run the same command."
    )
    return False


def _lost(task: Task, root: Path, began: float) -> list[Job]:
    """The jobs of a process that ended without DONE since `began`; a stack that diverged is run one by one instead."""
    folders = {job: job.folder(root) for job in task.jobs}
    if len(folders) > 1 and any(
        failure(folder).get("exit_code") == EXIT_NON_FINITE for folder in folders.values()
    ):
        return []
    return [job for job, folder in folders.items() if state(folder, began) in ("failed", "running")]


def _exit_code(jobs: Sequence[Job], root: Path, ran: Sequence[str] | set[str]) -> int:
    states = {job.fingerprint: status(job.folder(root)) for job in jobs}
    diverged = [job for job in jobs if states[job.fingerprint] == "diverged"]
    lost = [job for job in jobs if states[job.fingerprint] in ("failed", "missing")]
    for name, found in (
        ("diverged (the claims count them at the worst value)", diverged),
        ("not done", lost),
    ):
        if found:
            print(f"{len(found)} jobs {name}, the first: {found[0].label}. `make logs` shows why.")
    if lost:
        return 1
    return EXIT_NON_FINITE if any(job.fingerprint in ran for job in diverged) else 0


def _export(request: Request, jobs: Sequence[Job]) -> None:
    from common.study.views import export_offline

    export_offline(request.project, request.label, jobs, request.track, request.root)


def _live(request: Request) -> Any:
    from common.study.views import live

    return live(request.project, request.label, request.track)


def _relative(path: Path, request: Request) -> Path:
    return path.relative_to(request.root)
