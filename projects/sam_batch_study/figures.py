"""The figures of the report that are this study's own; each reads the table's rows and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from common.study.report.style import ARM_COLOURS, MUTED, Colours
from common.study.statistics import t_interval
from projects.sam_batch_study.arms import NAMES
from projects.sam_batch_study.study import STUDY

Row = Mapping[str, Any]
WIDTH = 6.8
COLOURS = Colours(STUDY).lines("method", NAMES)
TASKS = {
    "clean": ("test_error", "clean labels"),
    "noisy": ("stopped_error", "a fifth wrong, best step"),
    "small_resnet": ("test_error", "small ResNet, clean"),
    "resnet": ("test_error", "ResNet, clean"),
}  # test_error: each trained to a loss of 0.01 or less


def error_by_batch(rows: Sequence[Row], scale: str) -> Figure:
    """Test error against B, a panel for each task."""
    shown = [task for task in TASKS if _stage(rows, "retrain", task=task)]
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, max(1, len(shown)))))
    for axes, task in zip(panels, shown, strict=False):
        metric, title = TASKS[task]
        _lines(axes, _stage(rows, "retrain", task=task), metric)
        axes.set(xlabel="batch size B", ylabel="test error", title=title)
        _batches(axes, _stage(rows, "retrain", task=task))
    _legend(figure, panels)
    return figure


def rho_by_batch(rows: Sequence[Row], scale: str) -> Figure:
    """Validation error over (B, rho) as a heat map, and each seed's best rho: a row a task, a column a method."""
    swept = _stage(rows, "sweep")
    tasks = [task for task in TASKS if any(row["task"] == task for row in swept)]
    methods = [method for method in NAMES if any(row["method"] == method for row in swept)]
    down, across = max(1, len(tasks)), max(1, len(methods))
    figure = Figure(figsize=(WIDTH, 0.3 + 2.8 * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    shown: set[float] = set()
    for line, task in zip(panels, tasks, strict=False):
        for axes, method in zip(line, methods, strict=True):
            mine = _stage(rows, "sweep", task=task, method=method)
            if mine:
                shown |= set(_heat(figure, axes, mine, COLOURS[method]))
            axes.set(xlabel="batch size B", title=f"{NAMES[method]}\n{TASKS[task][1]}")
        line[0].set_ylabel("rho")
    panels[0, 0].set_yticks(np.log2(sorted(shown)), [f"{rho:g}" for rho in sorted(shown)])  # of all panels
    return figure


def _heat(figure: Figure, axes: Axes, mine: Sequence[Row], colour: str) -> list[float]:
    """Draw one panel; return its values of rho."""
    batches = sorted({int(row["batch"]) for row in mine})
    keys = [key for key in mine[0] if key.startswith("error_at_") and mine[0][key] not in (None, "")]
    rhos = sorted(float(key.removeprefix("error_at_")) for key in keys)
    error = np.array(
        [[np.mean(_column(mine, f"error_at_{rho:g}", batch=batch)) for batch in batches] for rho in rhos]
    )
    top = float(np.min(error) + 2 * (np.median(error) - np.min(error)) + 1e-9)
    drawn = axes.pcolormesh(
        range(len(batches)), np.log2(rhos), error, cmap="Greys", vmax=top, shading="nearest", alpha=0.6
    )
    for place, batch in enumerate(batches):
        best = np.log2(_column(mine, "best_rho", batch=batch))
        spread = np.linspace(-0.18, 0.18, len(best))
        axes.plot(place + spread, best, "o", color=colour, markersize=3.5, fillstyle="none")
    middle = [float(np.median(np.log2(_column(mine, "best_rho", batch=batch)))) for batch in batches]
    axes.plot(range(len(batches)), middle, color=colour)
    axes.set_xticks(range(len(batches)), [f"{batch:,}" for batch in batches])
    figure.colorbar(drawn, ax=axes, label="validation error")
    return rhos


def rho_law(rows: Sequence[Row], scale: str) -> Figure:
    """rho* of each seed and batch size against ‖g_m‖/λ, both logarithmic; the dashed line has slope one."""
    swept = _stage(rows, "sweep", method="sam_batch")
    tasks = [task for task in TASKS if any(row["task"] == task for row in swept)]
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(tasks)), squeeze=False)[0]
    colours = dict(zip(sorted({int(row["batch"]) for row in swept}), ARM_COLOURS, strict=False))
    for axes, task in zip(panels, tasks, strict=False):
        _law(axes, rows, task, colours)
        axes.set_title(TASKS[task][1])
    for axes in panels:
        axes.set(
            xlabel="norm of the normalised gradient / lambda_max",
            ylabel="best rho",
            xscale="log",
            yscale="log",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    shown = {
        label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if shown:
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), frameon=False
        )
    return figure


def _law(axes: Axes, rows: Sequence[Row], task: str, colours: Mapping[int, str]) -> None:
    arm = {"task": task, "method": "sam_batch"}
    tuned = {(row["seed"], int(row["batch"])): row for row in _stage(rows, "sweep", **arm)}
    curved = {(row["seed"], int(row["batch"])): row for row in _stage(rows, "probe", **arm)}
    points: list[tuple[float, float]] = []
    for batch, colour in colours.items():
        keys = [key for key in tuned if key[1] == batch and key in curved]
        keys = [key for key in keys if _known(tuned[key], "norm") and _known(curved[key], "middle_lambda")]
        x = [float(tuned[key]["norm"]) / float(curved[key]["middle_lambda"]) for key in keys]
        y = [float(tuned[key]["best_rho"]) for key in keys]
        points += zip(x, y, strict=True)
        if not keys:
            continue
        axes.loglog(x, y, "o", color=colour, markersize=4, fillstyle="none", label=f"B = {batch:,}")
    if points:
        x, y = np.array(points).T
        ends = np.array([np.nanmin(x), np.nanmax(x)])
        axes.loglog(ends, ends * np.exp(np.nanmean(np.log(y / x))), "--", color=MUTED, label="slope 1")


def sharpness(rows: Sequence[Row], scale: str) -> Figure:
    """λ_max and the trace at the last weights against B, of clean labels: trained to a loss of 0.01 or less."""
    probed = _stage(rows, "probe", task="clean")
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric, label in zip(panels, ("lambda_max", "trace"), ("lambda_max", "trace"), strict=True):
        _lines(axes, probed, metric)
        axes.set_yscale("log")
        axes.set(xlabel="batch size B", ylabel=label)
        _batches(axes, rows)
    _legend(figure, panels)
    return figure


def step_cost(rows: Sequence[Row], scale: str) -> Figure:
    """Mean step ratio of each method with its dots."""
    timed = _stage(rows, "cost")
    methods = [method for method in NAMES if any(row["method"] == method for row in timed)]
    figure = Figure(figsize=(WIDTH * 0.8, 0.5 + 0.32 * max(1, len(methods))), layout="constrained")
    axes = figure.subplots()
    for place, method in enumerate(methods):
        values = _column([row for row in timed if row["method"] == method], "step_ratio")
        axes.barh(place, np.mean(values), color=COLOURS[method], alpha=0.5, height=0.6)
        axes.plot(values, [place] * len(values), "o", color=COLOURS[method], markersize=3.5, fillstyle="none")
    axes.axvline(1.0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(methods)), [NAMES[method] for method in methods])
    axes.invert_yaxis()
    axes.set(xlabel="times the CPU time of a step of SGD")
    return figure


def _lines(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    """Means with intervals; where some nets did not fit (chance's error counts for them), a cross at the top."""
    for method, name in NAMES.items():
        mine = [row for row in rows if row["method"] == method]
        batches = sorted({int(row["batch"]) for row in mine})
        unfit = [each for each in batches if min(_column(mine, "fitted", batch=each), default=1.0) < 1.0]
        shown = [each for each in batches if metric != "test_error" or each not in unfit]
        shown = [each for each in shown if _column(mine, metric, batch=each)]
        if shown:
            values = [_column(mine, metric, batch=each) for each in shown]
            axes.errorbar(
                shown,
                [float(np.mean(each)) for each in values],
                yerr=np.array([_half(each) for each in values]),
                color=COLOURS[method],
                marker="o",
                markersize=3.5,
                capsize=2,
                label=name,
            )
        for batch in set(batches) - set(shown):
            axes.plot(
                batch, 0.98, "x", color=COLOURS[method], transform=axes.get_xaxis_transform(), markersize=5
            )


def _half(values: Sequence[float]) -> float:
    """Half of the 90 % interval of the mean."""
    if len(values) < 2:
        return 0.0
    low, high = t_interval(np.array(values))
    return (high - low) / 2


def _batches(axes: Axes, rows: Iterable[Row]) -> None:
    found = sorted(
        {
            int(row["batch"])
            for row in rows
            if row.get("batch") not in (None, "") and row["stage"] == "retrain"
        }
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(found, [f"{batch:,}" for batch in found])
    axes.minorticks_off()


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower left", ncols=3, frameon=False)


def _stage(rows: Iterable[Row], stage: str, **where: str) -> list[Row]:
    return [
        row
        for row in rows
        if row["stage"] == stage
        and row.get("role", "study") == "study"
        and all(row.get(axis) == value for axis, value in where.items())
    ]


def _known(row: Row, metric: str) -> bool:
    return row.get(metric) not in (None, "")


def _column(rows: Iterable[Row], metric: str, **where: int) -> list[float]:
    values = [
        float(row[metric])
        for row in rows
        if _known(row, metric) and all(int(row[axis]) == value for axis, value in where.items())
    ]
    return [value for value in values if math.isfinite(value)]
