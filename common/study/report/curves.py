"""Learning curves: one value per replicate and step in, mean and 95 % t band out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.study.model import Curves
from common.study.report.data import Row, natural

GRID_POINTS = 80
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """The mean curve of `n` replicates.

    Attributes:
        x: (points,) abscissa.
        mean: (points,) mean over the replicates that reach x.
        low, high: (points,) 95 % Student t band; NaN where fewer than two replicates reach x.
        n: number of replicates.
        fewest: the fewest replicates at any x.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    n: int
    fewest: int


def select(rows: Iterable[Row], spec: Curves) -> dict[str, dict[str, dict[str, tuple[Floats, Floats]]]]:
    """panel -> line -> replicate -> (x, y), averaged over axes that are neither panel, line nor seed.

    An x other than ``step`` is itself a recorded key, joined to y by step.
    """
    wanted = {spec.y, spec.x}
    found: dict[tuple[str, str, str], dict[float, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        mine = all(row.get(axis) == value for axis, value in {"stage": spec.stage, **spec.where}.items())
        if mine and row.get("key") in wanted and _finite(row.get("value")):
            where = (str(row.get(spec.panel, "")), str(row.get(spec.line, "")), str(row.get("seed", "0")))
            found[where][float(row["step"])][str(row["key"])].append(float(row["value"]))
    panels: dict[str, dict[str, dict[str, tuple[Floats, Floats]]]] = {}
    for (panel, line, seed), steps in sorted(found.items(), key=lambda item: [natural(k) for k in item[0]]):
        points = [
            (step if spec.x == "step" else float(np.mean(keys[spec.x])), float(np.mean(keys[spec.y])))
            for step, keys in sorted(steps.items())
            if spec.y in keys and (spec.x == "step" or spec.x in keys)
        ]
        if points:
            x, y = np.array(sorted(points), dtype=np.float64).T
            panels.setdefault(panel, {}).setdefault(line, {})[seed] = (x, y)
    return panels


def band(replicates: Sequence[tuple[Floats, Floats]]) -> Band:
    """Mean and 95 % t interval at each x; replicates with other abscissae are interpolated linearly.

    A replicate counts only between its own first and last x: nothing is extrapolated. An x that fewer than half of
    the replicates reach is left out: a band of two of eight would only set the axis.
    """
    xs = [x for x, _ in replicates]
    if all(len(x) == len(xs[0]) and np.array_equal(x, xs[0]) for x in xs):
        grid = np.array(xs[0], dtype=np.float64)
    else:
        ends = (float(min(x[0] for x in xs)), float(max(x[-1] for x in xs)))
        grid = np.linspace(*ends, GRID_POINTS, dtype=np.float64)
    values = np.stack([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in replicates])
    n = np.sum(~np.isnan(values), axis=0)
    keep = 2 * n >= len(replicates)
    keep = keep if keep.any() else n > 0
    grid, values, n = grid[keep], values[:, keep], n[keep]
    mean = np.nanmean(values, axis=0)
    half = _half_width(values, mean, n)
    return Band(grid, mean, mean - half, mean + half, len(replicates), int(n.min()))


def thin(x: Sequence[float], y: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """At most `most` points of a curve, ends and the extremes of each stretch kept."""
    if len(x) <= most:
        return list(x), list(y)
    edges = np.linspace(0, len(x), max(1, most // 2 - 1) + 1).astype(int)
    keep = {0, len(x) - 1}
    for start, end in pairwise(edges):
        stretch = np.asarray(y[start:end])
        keep |= {int(start + stretch.argmin()), int(start + stretch.argmax())}
    chosen = sorted(keep)
    return [x[i] for i in chosen], [y[i] for i in chosen]


def _half_width(values: Floats, mean: Floats, n: NDArray[np.int64]) -> Floats:
    from scipy.special import stdtrit

    squares = np.nansum((values - mean) ** 2, axis=0)
    half = np.full(len(mean), np.nan)
    many = n > 1
    freedom = n[many] - 1
    half[many] = stdtrit(freedom, 0.975) * np.sqrt(squares[many] / freedom / n[many])
    return half


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
