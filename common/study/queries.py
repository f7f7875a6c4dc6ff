"""Questions about a study that start nothing: plan, status, why, logs, clean. None of them imports torch."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import read_json
from common.study import engine
from common.study.batch import refusal
from common.study.collect import status as status_of
from common.study.config import projects, scales
from common.study.jobs import Job, seed_values
from common.study.launch import cores, packed
from common.study.model import Study
from common.study.progress import duration
from common.study.reproduce import Request, prepare
from common.study.store import FAILED, SPEC, failure, is_done, read_index, stopped, study_fingerprint
from common.study.tasks import Task, plan_tasks
from common.study.unborn import last_words
from common.tracking.redact import redact_text


def plan(request: Request) -> None:
    """Print jobs, processes, minutes, disk, replicates and power of a study; start nothing."""
    study, cfg, jobs = prepare(request)
    tasks = plan_tasks(jobs, request.root)
    packs, number = packed(tasks, cfg["launch"]), cores(cfg["launch"])
    print(f"{study.name} at scale {request.label}: {len(jobs)} jobs")
    print(f"{'stage':<14}{'jobs':>6}{'done':>6}{'processes':>11}{'minutes':>9}{'MB':>8}")
    for stage in study.stages:
        mine = [job for job in jobs if job.stage.name == stage.name]
        done = sum(is_done(job.folder(request.root)) for job in mine)
        left = [pack for pack in packs if pack.stage == stage.name]
        minutes = sum(task.minutes for pack in left for task in pack.tasks)
        size = sum(job.megabytes for job in mine)
        print(f"{stage.name:<14}{len(mine):>6}{done:>6}{len(left):>11}{minutes:>9.1f}{size:>8.0f}")
    local = cfg["launch"]["executor"] == "local"
    where = (
        f"{number} cores" if local else f"{min(number, len(tasks))} at once, without the time in the queue"
    )
    time = f"about {duration(engine.minutes(tasks, cfg['launch']))} on {where}" if tasks else "nothing to run"
    print(f"{time}; disk {sum(job.megabytes for job in jobs):.0f} MB")
    _print_power(study, request, len(seed_values(cfg, "seeds")))


def status(request: Request) -> None:
    """Print, for each stage and arm, how many jobs are done, failed or open."""
    _, _, jobs = prepare(request)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for job in jobs:
        arm = " ".join(str(value) for axis, value in job.axes.items() if axis != "seed")
        counts[job.stage.name, arm][status_of(job.folder(request.root))] += 1
    for (stage, arm), count in counts.items():
        print(
            f"{stage:<12} {arm:<48} "
            + ", ".join(f"{number} {name}" for name, number in sorted(count.items()))
        )
    claims = request.result / "claims.json"
    if claims.is_file():
        print(f"report: {(request.result / 'report.html').relative_to(request.root)}")


def why(request: Request) -> None:
    """Print what changed since each open job's stage and axes last ran."""
    _, _, jobs = prepare(request)
    latest: dict[str, Mapping[str, Any]] = {}
    for entry in read_index(request.runs):
        latest[_key(entry["stage"], entry["axes"])] = entry
        latest[_key(entry["stage"], entry["axes"], entry["scale"])] = entry
    reasons: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if is_done(job.folder(request.root)):
            continue
        before = latest.get(_key(job.stage.name, job.axes, request.scale)) or latest.get(
            _key(job.stage.name, job.axes)
        )
        if before and before["scale"] != request.scale and before["parts"]["config"] != job.parts["config"]:
            before = None  # scales differ by configuration: that is no change
        reasons["; ".join(_changes(before["parts"], job.parts)) if before else "never ran"].append(job)
    if not reasons:
        print(f"nothing to do: all {len(jobs)} jobs are done")
    for reason, found in reasons.items():
        names = Counter(task.stage + " " + task.arm for task in (Task("", (job,), ()) for job in found))
        print(f"{reason}:")
        for name, count in names.items():
            print(f"  {name} ({count} jobs)")


def logs(request: Request) -> None:
    """Print a scheduler's refusal, and the last failed job's traceback and how to run it alone.

    Where no job of this study failed, it is another study's of the project.
    """
    words = refusal(request.engine)
    if words:
        print(
            f"{redact_text(words)}\nNothing more was submitted. `make launch-check` shows what jobs ask for.\n"
        )
    found = [path for path in request.runs.glob(f"*/*/{FAILED}") if (path.parent / SPEC).is_file()]
    if not found:
        if not words:
            _print_unfinished(request)
        return
    last = _last(found, request)
    failed, spec = failure(last), read_json(last / SPEC)
    axes = " ".join(f"{axis}={value}" for axis, value in spec["axes"].items())
    print(f"{spec['stage']} {axes} failed with code {failed['exit_code']} ({failed['attempts']} attempts)\n")
    print(failed["traceback"])
    print(f"{failed['message']}\n")
    _print_alone(last, request)


def _print_unfinished(request: Request) -> None:
    """The job that ended last without DONE and FAILED: stopped, or killed before it could say why."""
    ended = [path.parent for path in request.runs.glob("*/*/provenance.json") if not is_done(path.parent)]
    if not ended:
        done = all(is_done(job.folder(request.root)) for job in prepare(request)[2])
        words = "" if done else last_words(request.engine)
        print(redact_text(words) if words else f"no job of {request.project} has failed")
        return
    last = _last([folder / "provenance.json" for folder in ended], request)
    print(redact_text(engine.output_of(last, request.root)))
    reason = stopped(last) or "it ended without a word: running still, killed, or out of memory"
    print(f"{last.relative_to(request.root)}: {reason}\nThe same `make reproduce` continues it.\n")
    _print_alone(last, request)


def _last(files: Sequence[Path], request: Request) -> Path:
    """The folder of the newest, of this study's jobs if there are any; says so where there are none."""
    named = {job.folder(request.root) for job in prepare(request)[2]}
    own = [path for path in files if path.parent in named]
    if not own:
        print(f"Nothing of {request.label}; this is of another scale, or of other overrides:\n")
    return max(own or files, key=lambda path: path.stat().st_mtime).parent


def _print_alone(folder: Path, request: Request) -> None:
    print(f"alone: .venv/bin/python -m common.study.job {folder.relative_to(request.root)}")


def clean(request: Request, yes: bool) -> None:
    """List the job folders that no current study of the project names; remove them when `yes`."""
    named: set[Path] = set()
    for scale in scales(request.project, request.root):
        _, _, jobs = prepare(Request(request.project, scale, root=request.root))
        named |= {job.folder(request.root) for job in jobs}
    found = sorted(path.parent for path in request.runs.glob("*/*/job.json") if path.parent not in named)
    for folder in found:
        print(f"{_megabytes(folder):8.1f} MB  {folder.relative_to(request.root)}")
    if not found:
        print("nothing to clean")
    elif yes:
        for folder in found:
            shutil.rmtree(folder)
        print(f"removed {len(found)} folders")
    else:
        print(
            f"{len(found)} folders that no current study names; "
            f"`make clean PROJECT={request.project} YES=1` removes them"
        )


def stale(root: Path) -> dict[tuple[str, str], str]:
    """(project, scale) -> why a written result is not of today's code; fresh results are left out."""
    found: dict[tuple[str, str], str] = {}
    for project in projects(root):
        for scale in scales(project, root):
            path = root / "results" / project / scale / "claims.json"
            if path.is_file():
                written = read_json(path)  # on whatever CPU model: the code is what may be older
                _, _, jobs = prepare(Request(project, scale, root=root), written.get("cpu"))
                if written["fingerprint"] != study_fingerprint(jobs):
                    moved = "the code or configuration moved on since this evidence was made"
                    found[project, scale] = f"{moved}{_repeated(path.parent)}"
    return found


def _repeated(folder: Path) -> str:
    """What the last `make repeat` found, to stand behind a sentence."""
    from common.study.report.data import load

    entries = load(folder).repeated
    if not entries:
        return ""
    last = entries[-1]
    commit = str(last["commit"])[:7]
    return f"; at {commit}, {last['equal']} of {last['jobs']} jobs run again gave the same numbers"


def _print_power(study: Study, request: Request, replicates: int) -> None:
    from common.study.power import check_family, detectable, level
    from common.study.verdict import family as family_of

    family = family_of(study.claims, request.scale)
    print(f"{replicates} replicates; primary claims at this scale: {len(family)}")
    if not family:
        return
    check_family(replicates, len(family))
    first, last = detectable(replicates, level(1, len(family))), detectable(replicates, level())
    both = f"{first:.2f} SD for the first of {len(family)}, {last:.2f} SD for the last"
    print(f"80 % power needs a paired effect of {both if len(family) > 1 else f'{last:.2f} SD'}")


def _key(stage: str, axes: Mapping[str, Any], scale: str = "") -> str:
    return f"{scale}|{stage}|{sorted(axes.items())}"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints' parts, in words."""
    words: list[str] = []
    nouns = {"code": "module", "config": "config key", "environment": "environment"}
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for kind, name in sorted(before.keys() | after.keys()):
        if before.get((kind, name)) == after.get((kind, name)):
            continue
        verb = (
            "added" if (kind, name) not in before else "removed" if (kind, name) not in after else "changed"
        )
        words.append(f"{nouns.get(kind, kind)} {name} {verb}".replace("  ", " "))
    causes = [word for word in words if not word.startswith("inputs")]
    return causes or words or ["the stage's function"]


def _leaves(parts: Mapping[str, Any]) -> list[tuple[tuple[str, str], Any]]:
    return [
        ((kind, name), leaf)
        for kind, value in parts.items()
        for name, leaf in (value.items() if isinstance(value, Mapping) else [("", value)])  # pyright: ignore
    ]


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
