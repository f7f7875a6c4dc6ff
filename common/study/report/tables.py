"""The tables of a report that belong to no single claim: results by arm, cost, environment, comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.study.model import Study
from common.study.report.data import Result, Row, evidence_rows, natural
from common.study.report.numbers import NONE, count, duration, number
from common.study.report.style import VERDICTS, badge
from common.study.report.view import claim_view, mean_sd

FIXED = {"project", "scale", "stage", "status", "role", "fingerprint", "seed"}


def stage_tables(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per stage: a row for each arm (every axis but the seed) with mean ± SD of each metric and n."""
    tables: list[dict[str, Any]] = []
    for stage in study.stages:
        mine = [row for row in evidence_rows(rows) if row.get("stage") == stage.name]
        axes = [axis for axis in stage.axes if axis != "seed"]
        metrics = list(
            dict.fromkeys(
                key
                for row in mine
                for key, value in row.items()
                if key not in FIXED and key not in stage.axes and isinstance(value, int | float)
            )
        )
        if not mine or not metrics:
            continue
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in mine:
            groups.setdefault(tuple(str(row.get(axis, NONE)) for axis in axes), []).append(row)
        body = [
            _arm_row(arm, group, metrics)
            for arm, group in sorted(groups.items(), key=lambda item: [natural(value) for value in item[0]])
        ]
        tables.append(
            {
                "stage": stage.name,
                "axes": len(axes),
                "columns": [*axes, "n", "diverged", *(name.replace("_", " ") for name in metrics)],
                "rows": body,
            }
        )
    return tables


def facts(result: Result) -> list[tuple[str, str]]:
    """What was run, where and at which cost: name and value, those known."""
    known = result.environment
    seeds = [str(seed) for seed in known.get("seeds") or []]
    commit = str(known.get("commit") or result.head.get("commit") or "")
    found = [
        ("Scale", result.scale),
        ("Commit", commit + (" with uncommitted changes" if known.get("dirty") else "")),
        ("Study fingerprint", str(result.head.get("fingerprint") or "")),
        ("Seeds", f"{', '.join(seeds)} ({count(len(seeds))})" if seeds else ""),
        ("CPU", str(known.get("cpu") or result.head.get("cpu") or "")),
        ("Cores", count(known["cores"]) if known.get("cores") else ""),
        ("GPU", ", ".join(str(gpu) for gpu in known.get("gpus") or [])),
        ("Python", str(known.get("python") or "")),
        ("Wall time", duration(known.get("wall_minutes")) if known.get("wall_minutes") else ""),
        ("CPU time", duration(60 * known["cpu_hours"]) if known.get("cpu_hours") is not None else ""),
        ("Overrides", ", ".join(str(each) for each in known.get("overrides") or [])),
        ("Started", str(known.get("started") or "")),
        ("Finished", str(known.get("finished") or "")),
    ]
    return [(name, text) for name, text in found if text and text != NONE]


def command(result: Result) -> str:
    """The one command that repeats the study."""
    return str(
        result.environment.get("command")
        or f"make reproduce PROJECT={result.project} SCALE={result.scale.partition('+')[0]}"
    )


def cost(result: Result) -> list[list[str]]:
    """Per stage: jobs, CPU time, and the total."""
    stages: dict[str, Any] = result.environment.get("cost") or {}
    rows = [
        [name, count(each.get("jobs")), duration(each.get("cpu_minutes"))] for name, each in stages.items()
    ]
    if len(rows) > 1:
        rows.append(
            [
                "all",
                count(sum(each.get("jobs") or 0 for each in stages.values())),
                duration(sum(each.get("cpu_minutes") or 0 for each in stages.values())),
            ]
        )
    return rows


def interactions(result: Result) -> list[list[str]]:
    """Counted interactions with the environment, if the study counts them: what, how many."""
    counted: dict[str, Any] = result.environment.get("interactions") or {}
    return [
        [name.replace("_", " "), count(value) if isinstance(value, int | float) else str(value)]
        for name, value in sorted(counted.items())
    ]


def packages(result: Result) -> list[list[str]]:
    """Package and version, by name."""
    return [
        [name, str(version)] for name, version in sorted((result.environment.get("packages") or {}).items())
    ]


def tally(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    """How many claims got each verdict, the decided ones first."""
    counts = Counter(verdicts)
    order = [*VERDICTS, *sorted(set(counts) - set(VERDICTS))]
    return [(verdict, counts[verdict]) for verdict in order if counts[verdict]]


def tally_text(verdicts: Sequence[str]) -> str:
    """The same as one line: ``3 supported, 1 inconclusive``."""
    return ", ".join(f"{times} {verdict}" for verdict, times in tally(verdicts)) or "no claims"


def comparison(result: Result, base: Result | None, study: Study) -> list[list[str]]:
    """For a changed study: each claim's verdict, effect and interval here and in the unchanged one."""
    if base is None:
        return []
    declared = {claim.id: claim for claim in study.claims}
    before = {
        str(claim.get("id")): claim_view(claim, declared.get(str(claim.get("id")))) for claim in base.claims
    }
    rows: list[list[str]] = []
    for claim in result.claims:
        now = claim_view(claim, declared.get(str(claim.get("id"))))
        then = before.get(now["id"])
        old = [badge(then["verdict"]), f"{then['effect']} {then['ci']}"] if then else [NONE, NONE]
        rows.append([now["id"], *old, badge(now["verdict"]), f"{now['effect']} {now['ci']}"])
    return rows


def _arm_row(arm: tuple[str, ...], group: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    cells = [*arm, count(len(group)), count(sum(row.get("status") == "diverged" for row in group))]
    for metric in metrics:
        values = [float(row[metric]) for row in group if isinstance(row.get(metric), int | float)]
        if not values:
            cells.append(NONE)
            continue
        mean, sd = mean_sd(values)
        text = mean if sd == NONE else f"{mean} ± {sd}"
        # Diverged runs have no final value: say when a mean stands on fewer runs than the row counts.
        cells.append(text if len(values) == len(group) else f"{text} (n = {number(len(values))})")
    return cells
