"""The tables of a report that belong to no single claim: results by arm, cost, environment, comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.study.model import Scaled, Stage, Study
from common.study.report.data import Result, Row, evidence_rows, mapping, natural, texts
from common.study.report.numbers import NONE, count, duration, number
from common.study.report.standing import stated
from common.study.report.style import VERDICTS, arms, badge, claim_series
from common.study.report.view import claim_view, mean_sd
from common.study.store import FIXED

WIDE = 12  # metrics that a page of text can show beside one another


def stage_tables(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per stage that is not for figures alone: its arms and their table, whole and as a page of text can show it."""
    told = (stage for stage in study.stages if stage.name not in study.drawn)
    tables = (_stage_table(study, stage, evidence_rows(rows)) for stage in told)
    return [table for table in tables if table]


def _stage_table(study: Study, stage: Stage, rows: Sequence[Row]) -> dict[str, Any]:
    mine = [row for row in rows if row.get("stage") == stage.name]
    axes = [axis for axis in stage.axes if axis != "seed"]
    numbers = (key for row in mine for key, value in row.items() if isinstance(value, int | float))
    metrics = list(dict.fromkeys(key for key in numbers if key not in (*FIXED, *stage.axes)))
    if not metrics:
        return {}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in mine:
        groups.setdefault(tuple(str(row.get(axis, NONE)) for axis in axes), []).append(row)
    sets = sorted(groups.items(), key=lambda item: [natural(value) for value in item[0]])
    asked = claimed_metrics(study, stage.name)
    few = metrics
    if len(metrics) > WIDE and len(sets) > 1:
        few = [name for name in metrics if name in asked]
    notes = [
        f"{_words(name)}: a run that never arrived, or diverged, counts as {worst}."
        for name, worst in asked.items()
        if worst and name in metrics
    ]
    left_out = [_words(name) for name in metrics if name not in few]
    return {
        "stage": stage.name,
        "arms": len(sets),
        "notes": notes,
        "whole": _table(axes, sets, metrics),
        "short": {**_table(axes, sets, few), "left_out": left_out},
    }


def claimed_metrics(study: Study, stage: str) -> dict[str, str]:
    """The metrics of a stage that claims read -> what a run that never arrived counts as, "" for a plain number."""
    found: dict[str, str] = {}
    for claim in study.claims:
        if not any(arm.stage == stage for series in claim_series(claim) for arm in arms(series)):
            continue
        worst = claim.metric.worst
        words = f"{number(worst.times)} times its own {worst.key}" if isinstance(worst, Scaled) else ""
        found[claim.metric.name] = found.get(claim.metric.name) or words
    return found


def _table(
    axes: Sequence[str], sets: Sequence[tuple[tuple[str, ...], Sequence[Row]]], metrics: Sequence[str]
) -> dict[str, Any]:
    """A row for each arm (every axis but the seed) with n and mean ± SD of each metric; one wide row stands upright."""
    columns = [*axes, "n", "diverged", *map(_words, metrics)]
    body = [_arm_row(arm, group, metrics) for arm, group in sets] if metrics else []
    if len(body) == 1 and len(metrics) > WIDE:
        return {
            "columns": ["", "value"],
            "rows": [list(pair) for pair in zip(columns, body[0], strict=True)],
            "text": 1,
        }
    return {"columns": columns, "rows": body, "text": len(axes)}


def facts(result: Result) -> list[tuple[str, str]]:
    """What was run, where and at which cost: name and value, those known."""
    known = result.environment
    seeds, gpus, overrides = (texts(known.get(key)) for key in ("seeds", "gpus", "overrides"))
    commit = str(known.get("commit") or result.head.get("commit") or "")
    earlier = [each for each in texts(known.get("commits_of_jobs")) if each != commit]
    wall, cpu_hours = known.get("wall_minutes"), known.get("cpu_hours")
    ran = dict.fromkeys(texts(known.get("ran")))
    found = [
        ("Scale", result.scale),
        ("Commit", commit + (" with uncommitted changes" if known.get("dirty") else "")),
        ("Jobs kept from", ", ".join(earlier)),
        ("Study fingerprint", str(result.head.get("fingerprint") or "")),
        ("Seeds", f"{', '.join(seeds)} ({count(len(seeds))})" if seeds else ""),
        ("CPU", ", ".join(result.cpus)),
        ("Cores", count(known.get("cores"))),
        ("GPU", ", ".join(gpus)),
        ("Python", str(known.get("python") or "")),
        ("Run on", " to ".join(ran)),
        ("Wall time", duration(wall)),
        ("CPU time", duration(None if cpu_hours is None else 60 * cpu_hours)),
        ("Overrides", ", ".join(overrides)),
    ]
    return [(name, text) for name, text in found if text and text != NONE]


def command(result: Result) -> str:
    """The one command that repeats the study."""
    plain = f"make reproduce PROJECT={result.project} SCALE={result.scale.partition('+')[0]}"
    return str(result.environment.get("command") or plain)


def cost(study: Study, result: Result) -> list[list[str]]:
    """Per stage, in the study's order: jobs, CPU time, and the total."""
    found = mapping(result.environment.get("cost"))
    order = dict.fromkeys([*(stage.name for stage in study.stages), *found])
    stages = {name: mapping(found[name]) for name in order if name in found}
    if len(stages) > 1:
        total = {key: sum(each.get(key) or 0 for each in stages.values()) for key in ("jobs", "cpu_minutes")}
        stages = {**stages, "all": total}
    return [
        [name, count(each.get("jobs")), duration(each.get("cpu_minutes"))] for name, each in stages.items()
    ]


def packages(result: Result) -> list[list[str]]:
    """Package and version, by name."""
    return [
        [name, str(version)] for name, version in sorted(mapping(result.environment.get("packages")).items())
    ]


def tally(verdicts: Sequence[str]) -> list[tuple[str, int]]:
    """How many claims got each verdict, the decided ones first."""
    counts = Counter(verdicts)
    order = [*VERDICTS, *sorted(set(counts) - set(VERDICTS))]
    return [(verdict, counts[verdict]) for verdict in order if counts[verdict]]


def tally_text(verdicts: Sequence[str]) -> str:
    """The same as one line: ``3 supported, 1 inconclusive``."""
    return ", ".join(f"{times} {verdict}" for verdict, times in tally(verdicts)) or "no claims"


def elsewhere(result: Result, study: Study) -> list[tuple[str, list[list[str]]]]:
    """For each run on another CPU model: its name and commit, and the table of its claims beside those here."""
    return [
        (
            f"{', '.join(other.cpus)}, commit {str(other.head.get('commit'))[:7]}",
            comparison(result, other, study),
        )
        for other in result.elsewhere
    ]


def comparison(result: Result, base: Result, study: Study) -> list[list[str]]:
    """Each claim's verdict, effect and interval in another result of the study, and here."""

    def told(of: Result) -> dict[str, list[str]]:
        declared = stated(study, of)
        views = [claim_view(claim, declared.get(str(claim.get("id")))) for claim in of.claims]
        return {view["id"]: [badge(view["verdict"]), _effect(view)] for view in views}

    before, now = told(base), told(result)
    return [[name, *before.get(name, [NONE, NONE]), *cells] for name, cells in now.items()]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _effect(view: dict[str, Any]) -> str:
    return f"{view['effect']} {view['ci']}" if view["facts"] else NONE


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
        cells.append(text if len(values) == len(group) else f"{text} (n = {count(len(values))})")
    return cells
