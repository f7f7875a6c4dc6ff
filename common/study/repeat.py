"""`make repeat`: run some seeds of a study again and compare their numbers with the committed evidence."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import BadInputError
from common.files import read_json, sha256, write_json
from common.study.collect import REPEATED, csv_text, environment_of, rows_of
from common.study.jobs import Job, seed_values
from common.study.model import Study
from common.study.report import render
from common.study.report.data import Result, load
from common.study.report.numbers import count
from common.study.report.repeated import metric_told, told
from common.study.reproduce import Request, prepare, run_missing
from common.study.store import FIXED, locked
from common.study.tasks import plan_tasks

LISTED = 20  # differing metrics that an entry holds

Key = tuple[str, ...]
Cells = Mapping[str, str]
Json = dict[str, Any]
Found = Mapping[Job, Mapping[str, float | None]]  # per job what differs, see `difference`


def repeat(request: Request) -> int:
    """Run the first seeds of every arm again and compare; return 0 where every number is equal, else 1.

    Raises:
        BadInputError: there is no evidence, the study is modified, or nothing can be repeated here.
    """
    if request.only or request.changes:
        raise BadInputError("make repeat takes the study as it is: without ONLY and ARGS.")
    wanted = 1 if request.seeds is None else request.seeds
    request = replace(request, seeds=None, track="off")
    files = [request.result / name for name in ("table.csv", "environment.json", "claims.json")]
    if not all(file.is_file() for file in files):
        place = request.result.relative_to(request.root)
        raise BadInputError(f"no evidence at {place}; make reproduce makes it.")
    study, cfg, jobs = prepare(request)
    seeds = seed_values(cfg, "seeds")
    if not 1 <= wanted <= len(seeds):
        raise BadInputError(f"SEEDS={wanted}: this study has {len(seeds)} seeds; choose 1 to {len(seeds)}.")
    with locked(request.runs / f".{request.label}.lock", f"{request.project} at scale {request.label}"):
        return _repeat(request, study, cfg, jobs, seeds[:wanted])


def choose(
    jobs: Sequence[Job], seeds: Sequence[int], evidence: Mapping[Key, Cells]
) -> tuple[list[Job], Counter[str]]:
    """The jobs of `seeds` with all they need, producers first; and of the others, why they are left out.

    Args:
        jobs: a whole study, producers first.
        seeds: study seeds. What reads another one, as a mean over seeds does, would pull the whole study in.
        evidence: the rows that there is something to compare with.
    """
    times: set[str] = set()
    others: set[str] = set()
    reasons: dict[str, str] = {}
    for job in jobs:
        needs = {need.fingerprint for each in job.inputs.values() for need in each}
        other = job.role == "study" and "seed" in job.axes and job.axes["seed"] not in seeds
        if job.stage.measures_host or needs & times:
            times.add(job.fingerprint)
        if other or needs & others:
            others.add(job.fingerprint)
        reasons[job.fingerprint] = (
            "of other seeds" if other
            else "that measure times or read them" if job.fingerprint in times
            else "that read other seeds" if job.fingerprint in others
            else "of validation seeds that none of these reads" if job.role == "validation"
            else "that the evidence has no row of" if key_of(job) not in evidence
            else ""
        )  # fmt: skip
    keep = {fingerprint for fingerprint, reason in reasons.items() if not reason}
    for job in reversed(jobs):
        if job.fingerprint in keep:
            keep |= {need.fingerprint for needs in job.inputs.values() for need in needs}
    left = Counter(reasons[job.fingerprint] for job in jobs if job.fingerprint not in keep)
    return [job for job in jobs if job.fingerprint in keep], left


def key_of(job: Job) -> Key:
    """Stage and axes of a job, as text: what finds its row in any table of the study."""
    return (job.stage.name, *(str(value) for value in job.axes.values()))


def rows_by_key(study: Study, text: str) -> dict[Key, Cells]:
    """The rows of a table.csv by stage and axes; every cell is the text that was written, empty ones are absent."""
    axes = {stage.name: stage.axes for stage in study.stages}
    return {
        (row["stage"], *(row.get(axis, "") for axis in axes[row["stage"]])): {
            name: cell for name, cell in row.items() if cell and name not in axes[row["stage"]]
        }
        for row in csv.DictReader(io.StringIO(text))
        if row["stage"] in axes
    }


def difference(before: Cells, now: Cells) -> dict[str, float | None]:
    """Metric -> relative difference ``|a - b| / max(|a|, |b|)``, of those metrics of `before` that differ now.

    None where there is no number to compare: the metric is gone, or (under ``status``) the job ended otherwise.
    """
    if before["status"] != now["status"]:
        return {"status": None}
    found: dict[str, float | None] = {}
    for name in (name for name in before if name not in FIXED):
        if name not in now:
            found[name] = None
        elif (a := float(before[name])) != (b := float(now[name])):
            largest = max(abs(a), abs(b))
            found[name] = abs(a / largest - b / largest)  # a - b may be too large for a float
    return found


def _repeat(
    request: Request, study: Study, cfg: Mapping[str, Any], jobs: Sequence[Job], seeds: Sequence[int]
) -> int:
    result, table = load(request.result), request.result / "table.csv"
    evidence = rows_by_key(study, table.read_text(encoding="utf-8"))
    chosen, left = choose(jobs, seeds, evidence)
    reasons = ", ".join(f"{number} {reason}" for reason, number in left.items())
    print(
        f"{len(chosen)} of the {len(jobs)} jobs of {request.project} at scale {request.label} are repeated, with "
        f"seed {', '.join(map(str, seeds))}" + (f"; left out: {reasons}" if left else "")
    )
    tasks = plan_tasks(chosen, request.root)
    started = {job.fingerprint for task in tasks for job in task.jobs} | _started(request, table)
    # A fingerprint that the table does not name cannot be the run that the table was written from.
    rows = {job: evidence[key_of(job)] for job in chosen if key_of(job) in evidence}
    again = {
        job: row
        for job, row in rows.items()
        if job.fingerprint in started or job.fingerprint != row["fingerprint"]
    }
    if not again:
        raise _nothing(request, chosen)
    if len(again) < len(rows):
        kept = f"{count(len(rows) - len(again))} of them were done before"
        print(f"{kept}, perhaps when the evidence was made: they do not count")
    if tasks:
        write_json(_record(request), {"table": sha256(table), "jobs": sorted(started)})
        ended, _ = run_missing(request, cfg, chosen, tasks)
        if ended is not None:
            return ended
    return _compare(request, study, result, again, seeds)


def _compare(
    request: Request, study: Study, result: Result, again: Mapping[Job, Cells], seeds: Sequence[int]
) -> int:
    """Hold the jobs against their rows of the evidence, write what was found, and return the exit code."""
    now = rows_by_key(study, csv_text(rows_of(list(again), request.scale, request.root), FIXED))
    found = {job: difference(row, now[key_of(job)]) for job, row in again.items()}
    entry = {
        **_circumstances(request, study, result, list(found)),
        **_comparison(found),
        "table": sha256(request.result / "table.csv"),
        "seeds": list(seeds),
        "changed": sum(job.fingerprint != row["fingerprint"] for job, row in again.items()),
    }
    same = (entry["commit"], entry["cpu"])
    others = [each for each in result.repeated if (each["commit"], each["cpu"]) != same]
    write_json(request.result / REPEATED, [*others, entry])
    render(study, request.result)
    _print(request, result, found, entry)
    return 0 if entry["equal"] == entry["jobs"] else 1


def _nothing(request: Request, chosen: Sequence[Job]) -> BadInputError:
    if not chosen:
        return BadInputError(f"{request.project} has no job at scale {request.label} that could be repeated.")
    clone, runs = f"../repeat-{request.project}", request.runs.relative_to(request.root)
    return BadInputError(
        f"these jobs are done already in {runs}, and may be the very runs that the evidence was written from. Repeat "
        f"in a fresh clone: git clone . {clone} && cd {clone} && make repeat PROJECT={request.project} "
        f"SCALE={request.scale}"
    )


def _record(request: Request) -> Path:
    return request.runs / f".{request.label}.repeat.json"


def _started(request: Request, table: Path) -> set[str]:
    """What earlier calls started: none of it once the table changed, which may hold their numbers now."""
    path = _record(request)
    record: Json = read_json(path) if path.is_file() else {}
    return set(record["jobs"]) if record.get("table") == sha256(table) else set()


def _circumstances(request: Request, study: Study, result: Result, jobs: Sequence[Job]) -> Json:
    """Commit, machine, and the packages that have other versions than those of the evidence."""
    from common.tracking.provenance import cpu_model, git_state

    here, git = environment_of(study, jobs, request.root), git_state(request.root)
    versions = {**here["packages"], **({"python": here["python"]} if here["python"] else {})}
    before = {**result.environment.get("packages", {}), "python": result.environment.get("python")}
    return {
        "scale": request.scale,
        "commit": git["commit"],
        "dirty": bool(git["dirty"] or here["dirty"]),
        "cpu": " and ".join(here["cpus"] or [cpu_model()]),
        "gpus": here["gpus"],
        "packages": {
            name: [before[name], version]
            for name, version in versions.items()
            if name in before and version != before[name]
        },
    }


def _comparison(found: Found) -> Json:
    """How many jobs are equal, and the metrics that differ: those without a number first, then the largest."""
    sizes: dict[tuple[str, str], list[float | None]] = {}
    for job, differences in found.items():
        for name, size in differences.items():
            sizes.setdefault((job.stage.name, name), []).append(size)
    differing: list[Json] = [
        {
            "stage": stage,
            "metric": name,
            "jobs": len(each),
            "largest": max((size for size in each if size is not None), default=None),
        }
        for (stage, name), each in sizes.items()
    ]
    differing.sort(key=lambda each: float("-inf") if each["largest"] is None else -each["largest"])
    return {
        "jobs": len(found),
        "equal": sum(not differences for differences in found.values()),
        "differing": differing[:LISTED],
        "more": max(0, len(differing) - LISTED),
    }


def _print(request: Request, result: Result, found: Found, entry: Json) -> None:
    stages = Counter(job.stage.name for job in found)
    equal = Counter(job.stage.name for job, differences in found.items() if not differences)
    print(f"{'stage':<14}{'jobs':>6}{'equal':>7}")
    for stage, number in stages.items():
        print(f"{stage:<14}{number:>6}{equal[stage]:>7}")
    for each in entry["differing"]:
        print(f"differs: {metric_told(each)}")
    if entry["more"]:
        print(f"and {entry['more']} more metrics")
    print(told({**entry, "differing": []}))
    cpus = result.environment.get("cpus") or [result.environment.get("cpu")]
    if entry["differing"] and entry["cpu"] not in cpus:
        print(
            f"The evidence is of {' and '.join(map(str, cpus))}: another CPU model or version of a library explains "
            "differences in the last digits."
        )
    print(f"written: {(request.result / REPEATED).relative_to(request.root)}, and the report beside it")
