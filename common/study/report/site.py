"""The dashboard: a static site over all results that opens from disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import write_text
from common.study.model import Study
from common.study.report.curves import thin
from common.study.report.data import Result, Row, natural, texts, validation_seeds
from common.study.report.numbers import count, duration
from common.study.report.overview import Stale, find
from common.study.report.page import template
from common.study.report.standing import stated, superseded
from common.study.report.style import ARM_COLOURS, Colours
from common.study.report.tables import tally_text
from common.study.report.view import claim_view

LONG_FORM = ("stage", "step", "key", "value")  # the columns of curves.csv that are no axes
POINTS_OF_A_PAGE = 300_000  # a page of this many points stays under 5 MB
POINTS_OF_A_CURVE = 200


def build(results: Path, site: Path, studies: Sequence[Study], stale: Stale | None = None) -> Path:
    """Write the site and return its index.html; pages of an earlier build that are not in it are removed.

    Args:
        results: the folder ``results``.
        site: where to write.
        studies: every study; one without results is listed too.
        stale: (project, scale) -> why its result is older than the code.
    """
    made: dict[Path, str] = {}
    projects = [_project(study, find(results, study.name), made, stale or {}) for study in studies]
    verdicts = [claim["verdict"] for project in projects for claim in project["headline"]]
    made[Path("index.html")] = template("index.html.j2").render(
        projects=projects,
        results=sum(len(project["scales"]) for project in projects),
        total=tally_text(verdicts) if verdicts else "",
    )
    for name, text in made.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(site / name, text)
    for path in site.rglob("*.html"):
        if path.relative_to(site) not in made:
            path.unlink()
    return site / "index.html"


def run_data(study: Study, result: Result) -> dict[str, Any]:
    """The curves of one result as the script reads them: stages, their axes, and (x, y) of every run and key."""
    colours, stages = Colours(study), list[dict[str, Any]]()
    declared = {stage.name: stage.axes for stage in study.stages}
    off = {str(seed) for seed in validation_seeds(result)}
    for name in dict.fromkeys(str(row["stage"]) for row in result.curves if "stage" in row):
        rows = [row for row in result.curves if row.get("stage") == name]
        found = dict.fromkeys(axis for row in rows for axis in row if axis not in LONG_FORM)
        axes = [*(axis for axis in declared.get(name, ()) if axis in found)]
        stages.append(
            _stage_data(name, [*axes, *(axis for axis in found if axis not in axes)], rows, colours, off)
        )
    shown = [stage for stage in stages if stage["curves"]]
    start = {"stage": study.curves[0].stage, "key": study.curves[0].y} if study.curves else {}
    return {"project": result.project, "scale": result.scale, "stages": shown, "start": start}


def _stage_data(
    name: str, axes: list[str], rows: list[Row], colours: Colours, off: set[str]
) -> dict[str, Any]:
    points: dict[tuple[str, ...], list[tuple[float, float]]] = {}
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
        pairs.sort()
        xs, ys = thin([x for x, _ in pairs], [y for _, y in pairs], most)
        x = shared.setdefault(tuple(xs), len(shared))
        place = [each.index(value) for each, value in zip(values, where, strict=True)]
        curves.append([keys.index(key), place, x, [float(f"{y:.5g}") for y in ys]])
    return {
        "name": name, "keys": keys, "xs": list(shared), "curves": curves,
        "axes": [
            {"name": axis, "values": each,
             "colours": [ARM_COLOURS.index(colour) for colour in colours.lines(axis, each).values()],
             "off": [value for value in each if axis == "seed" and value in off]}
            for axis, each in zip(axes, values, strict=True)
        ],
    }  # fmt: skip


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _project(study: Study, found: list[Result], made: dict[Path, str], stale: Stale) -> dict[str, Any]:
    declared = {claim.id: claim for claim in study.claims}
    scales = [_scale(study, result, made, stale) for result in found]
    views = [_views(study, result) for result in found]
    statements = {name: view["statement"] for each in views for name, view in each.items()}
    statements |= {name: claim.statement for name, claim in declared.items()}
    ids = [*declared, *(name for name in statements if name not in declared)]
    rows = [
        {"id": name, "statement": statements[name], "cells": [each.get(name) for each in views]}
        for name in ids
    ]
    # One claim counts once in the totals: at the largest scale that ran the unmodified study.
    whole = [each for each, result in zip(views, found, strict=True) if not result.changed]
    return {
        "study": study,
        "scales": scales,
        "rows": rows,
        "headline": list(whole[-1].values()) if whole else [],
    }


def _views(study: Study, result: Result) -> dict[str, dict[str, Any]]:
    known = stated(study, result)
    views = [claim_view(claim, known.get(str(claim.get("id")))) for claim in result.claims]
    return {view["id"]: view for view in views}


def _scale(study: Study, result: Result, made: dict[Path, str], stale: Stale) -> dict[str, Any]:
    folder, report = Path(study.name, result.scale), result.folder / "report.html"
    if report.is_file():
        made[folder / "report.html"] = report.read_text(encoding="utf-8")
    if result.curves:
        data = script_json(run_data(study, result))
        page = template("runs.html.j2").render(study=study, scale=result.scale, project=study.name, data=data)
        made[folder / "runs.html"] = page
    known, seeds = result.environment, texts(result.environment.get("seeds"))
    cpu_hours = known.get("cpu_hours")
    return {
        "name": result.scale, "changed": result.changed, "path": f"{study.name}/{result.scale}",
        "report": report.is_file(), "runs": bool(result.curves), "stale": stale.get((study.name, result.scale), ""),
        "superseded": superseded(study, result),
        "cost": duration(60 * cpu_hours) if cpu_hours is not None else "",
        "wall": duration(known.get("wall_minutes")) if known.get("wall_minutes") else "",
        "seeds": count(len(seeds)) if seeds else "",
        "commit": str(known.get("commit") or result.head.get("commit") or "")[:10],
    }  # fmt: skip
