"""The standard figures: a forest plot for each claim, and learning curves. SVG, the same bytes every time."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.study.model import Claim, Curves
from common.study.report import curves as learning
from common.study.report.data import Json, Row, replicates
from common.study.report.numbers import count, effect, number
from common.study.report.style import GRID, INK, MUTED, PAPER, SHADE, Colours
from common.study.report.words import axis_label, holds_between, names, with_bracket

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, LABELS, RIGHT = 6.8, 1.75, 0.25  # inches: figure, label column, right margin
RUN_ROW, EFFECT_ROW = 0.34, 0.62
Range = tuple[float, float]


def forest(claim: Json, declared: Claim | None, colours: Colours) -> Figure | None:
    """Above, every run of every arm; below, the paired effect with its interval and one dot a replicate.

    The range where the claim holds is shaded. None when the claim has no effect to draw.
    """
    from matplotlib.figure import Figure

    if claim.get("effect") is None:
        return None
    arms = [(str(name), replicates(values)) for name, values in dict(claim.get("values") or {}).items()]
    arms = [(name, values) for name, values in arms if values]
    rows = 2 if _control(claim) else 1
    runs_height = RUN_ROW * len(arms) + 0.12
    effect_height = EFFECT_ROW * rows + 0.16
    height = (runs_height + 0.62 if arms else 0) + effect_height + 0.74
    figure = Figure(figsize=(WIDTH, height))

    def axes(bottom: float, tall: float) -> Axes:
        return figure.add_axes(
            (LABELS / WIDTH, bottom / height, (WIDTH - LABELS - RIGHT) / WIDTH, tall / height)
        )

    if arms:
        top = axes(height - runs_height - 0.08, runs_height)
        _runs(top, arms, colours, with_bracket(str(claim.get("metric", "")), str(claim.get("unit") or "")))
    _effects(axes(0.5, effect_height), claim, declared, colours)
    return figure


def learning_curves(
    spec: Curves, rows: Sequence[Row], colours: Colours, arm_names: Mapping[tuple[str, str], str]
) -> tuple[Figure, str] | None:
    """Mean curves with 95 % t bands, a panel for each value of the panel axis; and a sentence for its alt text.

    None when no run recorded the curve.
    """
    from matplotlib.figure import Figure

    panels = learning.select(rows, spec)
    if not panels:
        return None
    lines = list(dict.fromkeys(line for panel in panels.values() for line in panel))
    colour = colours.lines(spec.line, lines)
    columns = min(3, len(panels))
    down = math.ceil(len(panels) / columns)
    tall = 2.5 if columns == 1 else 1.95
    figure = Figure(
        figsize=(WIDTH, tall * down + 0.32 * math.ceil(len(lines) / 3) + 0.1), layout="constrained"
    )
    grid = np.atleast_2d(np.asarray(figure.subplots(down, columns, squeeze=False)))
    ends: dict[str, Any] = {}
    counts: dict[str, set[int]] = {}
    told: list[str] = []
    for index, (panel, by_line) in enumerate(panels.items()):
        ax: Axes = grid[index // columns][index % columns]
        for line, by_seed in by_line.items():
            mean = learning.band(list(by_seed.values()))
            ax.fill_between(mean.x, mean.low, mean.high, color=colour[line], alpha=0.16, linewidth=0)
            (ends[line],) = ax.plot(mean.x, mean.mean, color=colour[line], linewidth=1.5)
            counts.setdefault(line, set()).update({mean.n, mean.fewest})
            told.append(f"{line}{f' in {panel}' if panel else ''} ends at {number(float(mean.mean[-1]))}")
        _curve_axes(ax, spec, panel, first=index % columns == 0, last=index + columns >= len(panels))
    for index in range(len(panels), down * columns):
        grid[index // columns][index % columns].set_axis_off()
    texts = [f"{arm_names.get((spec.line, line), line)} (n = {_range(counts[line])})" for line in lines]
    figure.legend(
        [ends[line] for line in lines],
        texts,
        loc="outside lower left",
        ncols=min(3, len(lines)),
        handlelength=1.4,
        columnspacing=1.6,
    )
    return figure, "; ".join(told) + "."


def _runs(
    ax: Axes, arms: Sequence[tuple[str, list[tuple[str, float]]]], colours: Colours, title: str
) -> None:
    for row, (name, values) in enumerate(arms):
        y, x = len(arms) - 1 - row, np.array([value for _, value in values])
        colour = colours.label(name)
        ax.plot(
            x,
            y + _spread(x, 0.2),
            "o",
            color=colour,
            markersize=4.6,
            alpha=0.8,
            markeredgecolor=PAPER,
            markeredgewidth=0.5,
            zorder=3,
        )
        ax.plot(
            [x.mean()] * 2, [y - 0.34, y + 0.34], color=colour, linewidth=2, solid_capstyle="butt", zorder=4
        )
    _row_labels(ax, [name for name, _ in arms])
    ax.set_ylim(-0.6, len(arms) - 0.4)
    _pad(ax, (float(min(v for _, vs in arms for _, v in vs)), float(max(v for _, vs in arms for _, v in vs))))
    _value_axis(ax, f"{title}, every run; bar: mean")


def _effects(ax: Axes, claim: Json, declared: Claim | None, colours: Colours) -> None:
    who, kind = names(claim, declared), str(claim.get("effect_kind") or "difference")
    control = _control(claim)
    pairs = np.array(
        [float(pair["effect"]) for pair in claim.get("pairs") or [] if pair.get("effect") is not None]
    )
    low, high = holds_between(claim, declared)
    reach = [float(claim["effect"]), *pairs, *_known(claim.get("ci")), 0.0, *_known((low, high))]
    if control:
        reach += [float(control["effect"]), *_known(control.get("ci"))]
    _pad(ax, (min(reach), max(reach)))
    ax.set_ylim(-0.62 if not control else -1.5, 0.62)
    left, right = ax.get_xlim()
    if not math.isnan(low):
        ax.axvspan(max(low, left), min(high, right), color=SHADE, linewidth=0, zorder=0)
        for edge in {low, high} - {-math.inf, math.inf, 0.0}:
            ax.axvline(edge, color=MUTED, linewidth=0.9, dashes=(4, 3), zorder=1)
    if left <= 0 <= right and claim.get("kind") not in ("bound", "exponent"):
        ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
    colour = colours.label(who["method"])
    if len(pairs):
        ax.plot(
            pairs,
            -0.3 + _spread(pairs, 0.13),
            "o",
            color=colour,
            markersize=4,
            alpha=0.75,
            markeredgecolor=PAPER,
            markeredgewidth=0.5,
            zorder=3,
        )
    _interval(ax, 0.14, float(claim["effect"]), claim.get("ci"), colour, "D")
    labels = [f"{who['method']} against {who['baseline']}" if who["baseline"] else who["method"]]
    if control:
        _interval(ax, -1.0, float(control["effect"]), control.get("ci"), MUTED, "^")
        labels.append(
            f"against the control, {who['control']}"
            if claim.get("kind") in ("superior", "ordering")
            else f"control: {who['control']} in the method’s place"
        )
    _row_labels(ax, labels, spots=[0.0, -1.0][: len(labels)])
    _value_axis(ax, axis_label(claim, declared))
    if kind == "log_ratio":
        _ratio_ticks(ax)


def _interval(ax: Axes, y: float, centre: float, ci: Any, colour: str, marker: str) -> None:
    left, right = ax.get_xlim()
    low, high = (None, None) if not ci else (ci[0], ci[1])
    ends = (left if low is None else float(low), right if high is None else float(high))
    if ci:
        ax.plot(ends, (y, y), color=colour, linewidth=2.2, solid_capstyle="butt", zorder=4)
    ax.plot(
        [centre],
        [y],
        marker,
        color=colour,
        markersize=7.5,
        markeredgecolor=PAPER,
        markeredgewidth=0.9,
        markerfacecolor=PAPER if marker == "^" else colour,
        zorder=5,
    )
    if marker == "^":
        ax.plot([centre], [y], marker, color=colour, markersize=6.2, markerfacecolor=PAPER, zorder=6)


def _curve_axes(ax: Axes, spec: Curves, panel: str, *, first: bool, last: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if panel:
        ax.set_title(panel, loc="left", fontsize=8.5, fontweight="bold", color=INK)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)
    ax.set_xlabel((spec.x_label or with_bracket(spec.x, "")) if last else "")
    ax.set_ylabel((spec.y_label or with_bracket(spec.y, "")) if first else "")


def _row_labels(ax: Axes, labels: Sequence[str], spots: Sequence[float] | None = None) -> None:
    spots = spots or [float(len(labels) - 1 - row) for row in range(len(labels))]
    ax.set_yticks(spots, ["\n".join(textwrap.wrap(label, 26)[:4]) for label in labels], fontsize=8)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)


def _value_axis(ax: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(round(value, 12))))
    ax.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    ax.set_xlabel(title, loc="left", fontsize=8, color=MUTED)


def _ratio_ticks(ax: Axes) -> None:
    left, right = ax.get_xlim()
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ratios = [
            step * 10.0**power
            for power in range(math.floor(left / math.log(10)) - 1, math.ceil(right / math.log(10)) + 1)
            for step in steps
        ]
        ticks = [math.log(ratio) for ratio in ratios if left <= math.log(ratio) <= right]
        if len(ticks) >= 4:
            break
    else:
        ticks = [tick for tick in ax.get_xticks() if left <= tick <= right]
    ax.set_xticks(ticks, [effect(tick, "log_ratio") for tick in ticks])


def _control(claim: Json) -> Json | None:
    control: Any = claim.get("control")
    return control if isinstance(control, dict) and control.get("effect") is not None else None  # pyright: ignore


def _spread(x: Any, room: float) -> Any:
    """Offsets that keep dots apart: each dot takes the first free of five lanes."""
    lanes = np.array([0.0, 0.5, -0.5, 1.0, -1.0]) * room
    width = max(float(np.ptp(x)), 1e-12) / 45
    offsets, last = np.zeros(len(x)), np.full(len(lanes), -np.inf)
    for i in np.argsort(x, kind="stable"):
        lane = next((k for k in range(len(lanes)) if x[i] - last[k] > width), int(np.argmin(last)))
        offsets[i], last[lane] = lanes[lane], x[i]
    return offsets


def _pad(ax: Axes, reach: Range) -> None:
    low, high = reach
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.5
    ax.set_xlim(low - room, high + room)


def _known(ends: Any) -> list[float]:
    return [float(end) for end in ends or () if end is not None and math.isfinite(end)]


def _range(values: set[int]) -> str:
    return count(min(values)) if len(values) == 1 else f"{count(min(values))}–{count(max(values))}"
