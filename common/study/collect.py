"""From finished jobs to the files of a result: table.csv, curves.csv, environment.json, claims.json."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import EXIT_NON_FINITE
from common.files import digest, read_json, write_json, write_text
from common.study.config import lookup
from common.study.jobs import Job
from common.study.model import Metric, Scaled, Study
from common.study.store import FIXED, HISTORY, failure, is_done, read_metrics, study_fingerprint

POINTS = 60  # of one curve kept for the report
CPUS = "cpus"  # folder of a result: claims and environment of the same study's runs on other CPU models
REPEATED = "repeated.json"  # what `make repeat` found: it speaks about one table.csv

Row = dict[str, Any]


def rows_of(jobs: Sequence[Job], scale: str, root: Path) -> list[Row]:
    """One row a job: what it was, how it ended, its metrics."""
    rows: list[Row] = []
    for job in jobs:
        folder = job.folder(root)
        row: Row = {
            "project": job.project,
            "scale": scale,
            "stage": job.stage.name,
            "status": status(folder),
            "role": job.role,
            "fingerprint": job.fingerprint,
            **job.axes,
        }
        rows.append(row | (read_metrics(folder) if row["status"] == "done" else {}))
    return rows


def status(folder: Path) -> str:
    """done, diverged (stopped on a non-finite number), failed or missing."""
    if is_done(folder):
        return "done"
    failed = failure(folder)
    if not failed:
        return "missing"
    return "diverged" if failed["exit_code"] == EXIT_NON_FINITE else "failed"


def worst_of(jobs: Sequence[Job]) -> Callable[[Mapping[str, Any], Metric], float]:
    """(row, metric) -> the worst value that the row's job takes if it diverged; NaN where its config has no say."""
    known = {job.fingerprint: job for job in jobs}
    return lambda row, metric: _worst(metric.worst, known[row["fingerprint"]])


def write_result(
    study: Study, jobs: Sequence[Job], folder: Path, *, scale: str, environment: Mapping[str, Any], root: Path
) -> list[dict[str, Any]]:
    """Write the four files of a result and return the claims' entries."""
    from common.study.verdict import judge, to_json

    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(jobs, scale, root)
    table, text = folder / "table.csv", csv_text(rows, FIXED)
    if not table.is_file() or table.read_bytes() != text.encode():
        (folder / REPEATED).unlink(missing_ok=True)  # it was about other numbers
        write_text(table, text)
    if any(stage.measures_host for stage in study.stages):
        _keep_other_cpu(folder, str(environment["cpu"]))
    write_text(folder / "curves.csv", csv_text(curve_rows(jobs, root), ("stage",)))
    write_json(folder / "environment.json", dict(environment))
    findings = judge(study.claims, rows, scale, worst_of(jobs))
    entries = [to_json(claim, finding) for claim, finding in zip(study.claims, findings, strict=True)]
    claims = {
        "project": study.name,
        "scale": scale,
        "commit": environment["commit"],
        "fingerprint": study_fingerprint(jobs),
        "cpu": environment["cpu"],
        "claims": entries,
    }
    write_json(folder / "claims.json", claims)
    return entries


def _keep_other_cpu(folder: Path, cpu: str) -> None:
    """Before measurements on another CPU model are replaced, set claims and environment aside, by the CPU's name."""
    from common.study.report.view import slug

    shutil.rmtree(folder / CPUS / slug(cpu), ignore_errors=True)  # the run at hand is newer
    files = [folder / "claims.json", folder / "environment.json"]
    before = str(read_json(files[0])["cpu"]) if all(file.is_file() for file in files) else cpu
    if before != cpu:
        aside = folder / CPUS / slug(before)
        aside.mkdir(parents=True, exist_ok=True)
        for file in files:
            write_text(aside / file.name, file.read_text(encoding="utf-8"))


def environment_of(study: Study, jobs: Sequence[Job], root: Path, **extra: Any) -> dict[str, Any]:
    """Machine, versions and cost of a result, from the provenance of its jobs; no path, no host name."""
    records = [_provenance(job, root) for job in jobs if is_done(job.folder(root))]
    cost: dict[str, dict[str, float]] = {}
    used: dict[tuple[str, str], float] = {}  # CPU seconds by stage and process: members of a stack share one
    for job, record in zip((job for job in jobs if is_done(job.folder(root))), records, strict=True):
        entry = cost.setdefault(job.stage.name, {"jobs": 0, "cpu_minutes": 0.0})
        entry["jobs"] += 1
        used[job.stage.name, record.get("process", job.fingerprint)] = record["cpu_seconds"] or 0.0
    for (stage, _), seconds in used.items():
        cost[stage]["cpu_minutes"] += seconds / 60
    for entry in cost.values():
        entry["cpu_minutes"] = round(entry["cpu_minutes"], 3)
    first: Mapping[str, Any] = records[0] if records else {}
    commits = sorted({str(record["git"]["commit"]) for record in records})
    return {
        "project": study.name,
        "commits_of_jobs": commits,
        "cpus": sorted({record["cpu"]["model"] for record in records}),
        "cpu": records[0]["cpu"]["model"] if records else "unknown",
        "cores": first.get("usable_cores"),
        "python": first.get("python"),
        "packages": first.get("packages", {}),
        "gpus": sorted({gpu for record in records for gpu in record["gpus"]}),
        "seeds": sorted(
            {int(job.axes["seed"]) for job in jobs if "seed" in job.axes and job.role == "study"}
        ),
        "cost": cost,
        "cpu_hours": round(sum(used.values()) / 3600, 3),
        "dirty": any(record["git"]["dirty"] for record in records),
        "wall_minutes": round(_busy_seconds(records) / 60, 2),
        "ran": [_day(pick(moments)) for pick in (min, max)] if (moments := _moments(records)) else [],
        **extra,
    }


def csv_text(rows: Sequence[Row], first: Sequence[str]) -> str:
    """Rows as CSV; columns in order of first appearance after `first`; floats by repr, missing cells empty."""
    columns = list(dict.fromkeys([*first, *(key for row in rows for key in row)]))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Rows of a table or of curves: numbers as int or float, empty cells left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: _number(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)
        ]


def curve_rows(jobs: Sequence[Job], root: Path) -> list[Row]:
    """history.jsonl of every finished job in long form, at most 60 points a curve."""
    rows: list[Row] = []
    for job in jobs:
        path = job.folder(root) / HISTORY
        if not is_done(job.folder(root)) or not path.is_file():
            continue
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        keep = lines[:: max(1, -(-len(lines) // POINTS))]
        keep += [] if not lines or keep[-1] is lines[-1] else [lines[-1]]
        rows += [
            {"stage": job.stage.name, **job.axes, "step": line["step"], "key": key, "value": value}
            for line in keep
            for key, value in line.items()
            if key != "step" and value is not None
        ]
    return rows


def overrides_label(scale: str, overrides: Sequence[str], only: Sequence[str], seeds: int | None) -> str:
    """Folder name of a result: the scale, with a hash behind it when the study was modified."""
    if not overrides and not only and seeds is None:
        return scale
    return f"{scale}+{digest([sorted(overrides), sorted(only), seeds])[:8]}"


def _worst(worst: float | Scaled, job: Job) -> float:
    if not isinstance(worst, Scaled):
        return float(worst)
    section = worst.key.partition(".")[0]
    return worst.times * float(lookup(job.config, worst.key)) if section in job.config else float("nan")


def _moments(records: Sequence[Mapping[str, Any]]) -> list[float]:
    return [moment for record in records for moment in (record["started"], record["ended"])]


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _busy_seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Seconds in which at least one job ran: a pause between two runs of the same study does not count."""
    busy, end = 0.0, 0.0
    for start, stop in sorted((record["started"], record["ended"]) for record in records):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy


def _provenance(job: Job, root: Path) -> dict[str, Any]:
    return read_json(job.folder(root) / "provenance.json")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
