"""From the rows of table.csv to one number a replicate for every series of a claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.study.model import Arm, Best, Claim, Metric, Mix, Scaled, Series
from common.study.statistics import theil_sen
from common.study.store import FIXED

Row = Mapping[str, Any]
WorstOf = Callable[[Row, Metric], float]
Values = dict[str, float]  # replicate -> value


class UnusableError(Exception):
    """The rows cannot answer the claim: it is invalid, for the reason in the message."""


@dataclass(frozen=True)
class Sample:
    """A series of a claim, measured.

    Attributes:
        label: the series' label.
        values: replicate -> value, in the replicates' natural order.
        runs: arm label -> jobs read.
        diverged: arm label -> those that stopped on a non-finite number.
        late: arm label -> those that never arrived, i.e. ended at a worst value that depends on the run
            itself (twice its step cap). A constant worst value, such as 0 % success, can be an honest result.
        tasks: the tasks averaged inside each replicate, as values of `claim.tasks`.
        choice: how the best of several arms was chosen, "" if none was.
    """

    label: str
    values: Values
    runs: dict[str, int]
    diverged: dict[str, int]
    late: dict[str, int]
    tasks: frozenset[tuple[str, ...]]
    choice: str = ""


def measure(series: Series, claim: Claim, rows: Sequence[Row], worst_of: WorstOf) -> Sample:
    """One value of the claim's metric a replicate: tasks averaged, or the slope over `claim.axis`.

    Where logarithms are compared (log ratios, exponents) tasks are averaged geometrically, so that none
    outweighs the others by its unit.

    Args:
        series: an arm, the best of arms, or a linear combination of them.
        claim: names metric, pairing, tasks and axis.
        rows: every job of the study, each with stage, status, role, its axes and its metrics.
        worst_of: the worst value that this row takes if it diverged.

    Raises:
        UnusableError: runs are missing, failed, ambiguous, or lack a finite metric.
    """
    terms = series.terms if isinstance(series, Mix) else ((1.0, series),)
    chosen = [(weight, *_settle(part, claim, rows, worst_of)) for weight, part in terms]
    read = [_read(arm, claim, rows, worst_of) for _, arm, _ in chosen]
    points = [
        _averaged(arm.label, cells, claim) for (_, arm, _), (cells, *_) in zip(chosen, read, strict=True)
    ]
    for other in points[1:]:
        _same_replicates(series.label, points[0], other)
    weights = [weight for weight, _, _ in chosen]
    values = {
        replicate: _collapse(
            claim,
            {
                x: sum(
                    weight * part[replicate].get(x, math.nan)
                    for weight, part in zip(weights, points, strict=True)
                )
                for x in sorted({x for part in points for x in part[replicate]})
            },
        )
        for replicate in sorted(points[0], key=natural)
    }
    if not all(math.isfinite(value) for value in values.values()):
        raise UnusableError(
            f"{series.label!r}: the combined arms do not cover the same {claim.axis or 'runs'}"
        )
    labels = [arm.label for _, arm, _ in chosen]
    return Sample(
        series.label,
        values,
        {label: len(cells) for label, (cells, _, _) in zip(labels, read, strict=True)},
        {label: diverged for label, (_, diverged, _) in zip(labels, read, strict=True)},
        {label: late for label, (_, _, late) in zip(labels, read, strict=True)},
        frozenset(key[2:] for cells, _, _ in read for key in cells),
        "; ".join(note for _, _, note in chosen if note),
    )


def effects(claim: Claim, method: Sample, other: Sample | None) -> Values:
    """Replicate -> paired effect, positive where the method is better; without `other` the values themselves.

    Raises:
        UnusableError: a replicate has no partner, the tasks differ, or a log ratio of a number that is not positive.
    """
    if other is None:
        return method.values
    _same_replicates(f"{method.label} against {other.label}", method.values, other.values)
    if method.tasks != other.tasks:
        raise UnusableError(
            f"{method.label} and {other.label} were not run on the same {', '.join(claim.tasks)}"
        )
    sign = 1.0 if claim.metric.better == "higher" else -1.0
    pairs = {replicate: (value, other.values[replicate]) for replicate, value in method.values.items()}
    if claim.effect == "difference":
        return {replicate: sign * (a - b) for replicate, (a, b) in pairs.items()}
    for replicate, (a, b) in pairs.items():
        if min(a, b) <= 0:
            raise UnusableError(
                f"{method.label} against {other.label}: a log ratio needs positive numbers, and {claim.metric.name} "
                f"is {min(a, b):g} in {_replicate(claim, replicate)}"
            )
    return {replicate: sign * math.log(a / b) for replicate, (a, b) in pairs.items()}


def natural(text: str) -> tuple[float, str]:
    """Sort key: numbers by size, then words."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _settle(part: Arm | Best, claim: Claim, rows: Sequence[Row], worst_of: WorstOf) -> tuple[Arm, str]:
    """The arm itself; of several, the best on seeds that decide nothing, and a sentence that says so."""
    if isinstance(part, Arm):
        return part, ""
    metric = replace(claim.metric, name=part.metric)
    scores: list[float] = []
    cells: set[frozenset[tuple[str, ...]]] = set()
    for arm in part.arms:
        found = {
            _key(row, (claim.pairing, *claim.tasks, claim.axis)): _number(arm.label, row, metric, worst_of)
            for row in matching(arm, rows, part.seeds)
        }
        if not found:
            raise UnusableError(f"{part.label!r} cannot be chosen: {arm.label!r} has no {part.seeds} rows")
        cells.add(frozenset(found))
        scores.append(math.fsum(found.values()) / len(found))
    if len(cells) > 1:
        raise UnusableError(
            f"{part.label!r} cannot be chosen: its arms were not run on the same {part.seeds} seeds"
        )
    best = scores.index(max(scores) if metric.better == "higher" else min(scores))
    table = ", ".join(f"{arm.label} {score:.4g}" for arm, score in zip(part.arms, scores, strict=True))
    seeds = (
        "validation seeds" if part.seeds == "validation" else "the very seeds of the test, which flatters it"
    )
    note = f"{part.label} is {part.arms[best].label}, by mean {part.metric} on {seeds} ({table})"
    return replace(part.arms[best], label=part.label), note


def _read(
    arm: Arm, claim: Claim, rows: Sequence[Row], worst_of: WorstOf
) -> tuple[dict[tuple[str, ...], float], int, int]:
    """(replicate, x, tasks...) -> value of one job; jobs diverged; jobs that never arrived."""
    cells: dict[tuple[str, ...], float] = {}
    diverged = late = 0
    for row in matching(arm, rows, "study"):
        key = _key(row, (claim.pairing, claim.axis, *claim.tasks))
        if key in cells:
            raise UnusableError(
                f"{arm.label!r} has several runs for {_replicate(claim, key[0])}: pin the axis that tells them "
                f"apart in `where`, or name it in `tasks`"
            )
        cells[key] = value = _number(arm.label, row, claim.metric, worst_of)
        if row["status"] == "diverged":
            diverged += 1
        elif isinstance(claim.metric.worst, Scaled) and math.isclose(value, worst_of(row, claim.metric)):
            late += 1
    if not cells:
        raise UnusableError(f"{arm.label!r} has no runs")
    return cells, diverged, late


def _averaged(label: str, cells: Mapping[tuple[str, ...], float], claim: Claim) -> dict[str, Values]:
    """Replicate -> x -> mean over tasks; x is "" unless the claim is about an exponent."""
    grouped: dict[str, dict[str, dict[tuple[str, ...], float]]] = {}
    for (replicate, x, *tasks), value in cells.items():
        grouped.setdefault(replicate, {}).setdefault(x, {})[tuple(tasks)] = value
    shapes = {frozenset((x, task) for x, at in points.items() for task in at) for points in grouped.values()}
    if len(shapes) > 1:
        raise UnusableError(f"{label!r}: its replicates do not have the same runs")
    logs = claim.effect == "log_ratio" or claim.kind == "exponent"
    return {
        replicate: {x: _mean(label, claim, at.values(), logs=logs) for x, at in points.items()}
        for replicate, points in grouped.items()
    }


def _mean(label: str, claim: Claim, values: Iterable[float], *, logs: bool) -> float:
    numbers = list(values)
    if len(numbers) == 1:
        return numbers[0]
    if not logs:
        return math.fsum(numbers) / len(numbers)
    if min(numbers) <= 0:
        raise UnusableError(
            f"{label!r}: a logarithm needs positive numbers, {claim.metric.name} is {min(numbers):g}"
        )
    return math.exp(math.fsum(map(math.log, numbers)) / len(numbers))


def _collapse(claim: Claim, points: Values) -> float:
    """The only value, or the Theil–Sen slope of log value on log size."""
    import numpy as np

    if claim.kind != "exponent":
        return points[""]
    try:
        sizes = [float(x) for x in points]
    except ValueError as error:
        raise UnusableError(f"the axis {claim.axis!r} of an exponent needs numbers ({error})") from error
    if len(sizes) < 2 or min(sizes) <= 0 or min(points.values()) <= 0:
        raise UnusableError(
            f"an exponent needs two sizes and positive numbers, {claim.metric.name} has {points}"
        )
    return theil_sen(np.log(sizes), np.log(list(points.values())))


def matching(arm: Arm, rows: Sequence[Row], role: str) -> list[Row]:
    """The rows of an arm, in the role "study" or "validation"."""
    return [
        row
        for row in rows
        if row["stage"] == arm.stage
        and (row.get("role") or "study") == role
        and all(axis in row and same(row[axis], value) for axis, value in arm.where.items())
    ]


def same(cell: Any, value: Any) -> bool:
    """Whether a table's cell is that axis value, however the table was read (1000, 1000.0, "1000")."""
    return str(cell) == str(value) or natural(str(cell))[0] == natural(str(value))[0] != math.inf


def _number(label: str, row: Row, metric: Metric, worst_of: WorstOf) -> float:
    """The row's metric, or its worst value if the run diverged."""
    status = row["status"]
    if status not in ("done", "diverged"):
        raise UnusableError(f"{label!r}: a run is {status} ({_where(row)})")
    cell = worst_of(row, metric) if status == "diverged" else row.get(metric.name)
    try:
        value = float(cell)  # pyright: ignore[reportArgumentType] -- None and "" raise below
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        what = f"worst value of {metric.name}" if status == "diverged" else metric.name
        raise UnusableError(f"{label!r}: a run has no finite {what} ({_where(row)})")
    return value


def _key(row: Row, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(_text(row.get(axis, "")) if axis else "" for axis in axes)


def _text(cell: Any) -> str:
    """Axis value as text, a whole number without its point: 3, 3.0 and "3" are one replicate."""
    number = natural(str(cell))[0]
    return str(int(number)) if math.isfinite(number) and number.is_integer() else str(cell)


def _same_replicates(label: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    alone = sorted(a.keys() ^ b.keys(), key=natural)
    if alone:
        raise UnusableError(f"{label!r}: replicates without a partner: {', '.join(alone)}")


def _replicate(claim: Claim, value: str) -> str:
    return f"{claim.pairing} {value}" if claim.pairing else "the measurement"


def _where(row: Row) -> str:
    axes = [f"{key} {value}" for key, value in row.items() if key not in FIXED and value not in ("", None)]
    return ", ".join([f"stage {row['stage']}", *axes[:4]])
