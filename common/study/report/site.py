"""The dashboard: a static site over all results that opens from disk."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import write_text
from common.study.model import Study
from common.study.report.curves import thin
from common.study.report.data import Result, natural
from common.study.report.numbers import count, duration
from common.study.report.overview import Stale, find
from common.study.report.page import template
from common.study.report.style import ARM_COLOURS, Colours
from common.study.report.tables import tally_text
from common.study.report.view import claim_view

POINTS_OF_A_PAGE = 300_000  # a page of this many points stays under 5 MB
POINTS_OF_A_CURVE = 200


def build(
    results: Path, site: Path, studies: Sequence[Study], runs: Path | None = None, stale: Stale | None = None
) -> Path:
    """Write the site and return its index.html.

    Args:
        results: the folder ``results``.
        site: where to write; pages of earlier builds are replaced.
        studies: every study; one without results is listed too.
        runs: the jobs' folder ``results/.runs``, to say how many are done on this machine.
        stale: (project, scale) -> why its result is older than the code.
    """
    site.mkdir(parents=True, exist_ok=True)
    projects = [_project(study, find(results, study.name), site, runs, stale or {}) for study in studies]
    verdicts = [claim["verdict"] for project in projects for claim in project["headline"]]
    text = template("index.html.j2").render(
        projects=projects,
        results=sum(len(project["scales"]) for project in projects),
        total=tally_text(verdicts) if verdicts else "",
    )
    write_text(site / "index.html", text)
    return site / "index.html"


def run_data(study: Study, result: Result) -> dict[str, Any]:
    """The curves of one result as the script reads them: stages, their axes, and (x, y) of every run and key."""
    colours, stages = Colours(study), []
    for name in dict.fromkeys(str(row["stage"]) for row in result.curves if "stage" in row):
        rows = [row for row in result.curves if row.get("stage") == name]
        known = study.stage(name).axes if any(stage.name == name for stage in study.stages) else ()
        fixed = {"stage", "step", "key", "value"}
        axes = list(
            dict.fromkeys(
                [axis for axis in known if any(axis in row for row in rows)]
                + [axis for row in rows for axis in row if axis not in fixed]
            )
        )
        stages.append(_stage_data(name, axes, rows, colours))
    return {"project": result.project, "scale": result.scale, "stages": stages}


def _stage_data(name: str, axes: list[str], rows: list[dict[str, Any]], colours: Colours) -> dict[str, Any]:
    points: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in rows:
        if isinstance(row.get("value"), int | float) and isinstance(row.get("step"), int | float):
            where = (str(row.get("key")), *(str(row.get(axis, "")) for axis in axes))
            points.setdefault(where, []).append((row["step"], row["value"]))
    values = [sorted({where[i + 1] for where in points}, key=natural) for i in range(len(axes))]
    keys = sorted({where[0] for where in points})
    most = max(20, min(POINTS_OF_A_CURVE, POINTS_OF_A_PAGE // max(1, len(points))))
    shared: dict[tuple[float, ...], int] = {}
    curves: list[list[Any]] = []
    for (key, *where), pairs in sorted(points.items()):
        xs, ys = thin(*zip(*sorted(pairs), strict=True), most)
        x = shared.setdefault(tuple(xs), len(shared))
        place = [each.index(value) for each, value in zip(values, where, strict=True)]
        curves.append([keys.index(key), place, x, [float(f"{y:.5g}") for y in ys]])
    return {
        "name": name, "keys": keys, "xs": list(shared), "curves": curves,
        "axes": [{"name": axis, "values": each, "colours": [
            ARM_COLOURS.index(colour) for colour in colours.lines(axis, each).values()]}
            for axis, each in zip(axes, values, strict=True)],
    }  # fmt: skip


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _project(
    study: Study, found: list[Result], site: Path, runs: Path | None, stale: Stale
) -> dict[str, Any]:
    declared = {claim.id: claim for claim in study.claims}
    scales = [_scale(study, result, site, stale) for result in found]
    views = [
        {
            str(claim.get("id")): claim_view(claim, declared.get(str(claim.get("id"))))
            for claim in result.claims
        }
        for result in found
    ]
    ids = list(dict.fromkeys([*declared, *(id_ for each in views for id_ in each)]))
    rows = [
        {
            "id": id_,
            "statement": next(
                (each[id_]["statement"] for each in reversed(views) if id_ in each),
                declared[id_].statement if id_ in declared else "",
            ),
            "cells": [each.get(id_) for each in views],
        }
        for id_ in ids
    ]
    # One claim counts once in the totals: at the largest scale that ran the unmodified study.
    whole = [each for each, result in zip(views, found, strict=True) if not result.changed]
    return {
        "study": study,
        "scales": scales,
        "rows": rows,
        "headline": list(whole[-1].values()) if whole else [],
        "jobs": _jobs(runs / study.name) if runs else [],
    }


def _scale(study: Study, result: Result, site: Path, stale: Stale) -> dict[str, Any]:
    folder = site / study.name / result.scale
    folder.mkdir(parents=True, exist_ok=True)
    report = result.folder / "report.html"
    if report.is_file():
        shutil.copyfile(report, folder / "report.html")
    if result.curves:
        page = template("runs.html.j2").render(
            study=study, scale=result.scale, project=study.name, data=script_json(run_data(study, result))
        )
        write_text(folder / "runs.html", page)
    known, seeds = result.environment, result.environment.get("seeds") or []
    return {
        "name": result.scale, "changed": result.changed, "path": f"{study.name}/{result.scale}",
        "report": report.is_file(), "runs": bool(result.curves), "stale": stale.get((study.name, result.scale), ""),
        "cost": duration(60 * known["cpu_hours"]) if known.get("cpu_hours") is not None else "",
        "wall": duration(known.get("wall_minutes")) if known.get("wall_minutes") else "",
        "seeds": count(len(seeds)) if seeds else "",
        "commit": str(known.get("commit") or result.head.get("commit") or "")[:10],
    }  # fmt: skip


def _jobs(folder: Path) -> list[str]:
    """Per stage, how many job folders on this machine are done, failed or unfinished."""
    told: list[str] = []
    for stage in sorted(path for path in folder.glob("*") if path.is_dir()):
        states = Counter(
            "done" if (job / "DONE").exists() else "failed" if (job / "FAILED").exists() else "unfinished"
            for job in stage.iterdir()
            if job.is_dir()
        )
        parts = [
            f"{count(states[state])} {state}" for state in ("done", "failed", "unfinished") if states[state]
        ]
        told += [f"{stage.name}: {', '.join(parts)}"] if parts else []
    return told
