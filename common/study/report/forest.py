"""The forest plot of a claim: every run of every arm, and the effects with their intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.study.contrast import BEATEN
from common.study.model import Claim
from common.study.report.data import Json, mapping, objects
from common.study.report.figures import WIDTH, number_axis, plain
from common.study.report.numbers import effect
from common.study.report.style import GRID, INK, MUTED, PAPER, SHADE, Colours
from common.study.report.words import arm_values, axis_label, holds_between, names, slope_label, with_bracket

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS, RIGHT = 1.75, 0.25  # inches: label column, right margin
RUN_ROW, EFFECT_ROW, DOTS = 0.34, 0.5, 0.46  # how far below an interval its dots lie, in rows
Arms = Sequence[tuple[str, list[tuple[str, float]]]]


@dataclass(frozen=True)
class Interval:
    """One row of the lower plot."""

    label: str
    effect: float
    ci: Sequence[float | None] | None
    colour: str
    marker: str = "D"
    dots: tuple[float, ...] = ()


def forest(claim: Json, declared: Claim | None, colours: Colours) -> Figure | None:
    """Above, every run of every arm; below, the effect with its interval and one dot a replicate.

    The range where the claim holds is shaded. None when the claim has no effect to draw.
    """
    from matplotlib.figure import Figure

    if claim.get("effect") is None:
        return None
    arms = list(arm_values(claim, declared).items())
    rows = intervals(claim, colours)
    upper = RUN_ROW * len(arms) + 0.12
    lower = EFFECT_ROW * (len(rows) + DOTS * any(row.dots for row in rows)) + 0.1
    height = (upper + 0.62 if arms else 0) + lower + 0.74
    figure = Figure(figsize=(WIDTH, height))

    def axes(bottom: float, tall: float) -> Axes:
        box = (LABELS / WIDTH, bottom / height, (WIDTH - LABELS - RIGHT) / WIDTH, tall / height)
        return figure.add_axes(box)

    if arms:
        metric = with_bracket(str(claim.get("metric", "")), str(claim.get("unit") or ""))
        title = slope_label(claim, declared) if claim.get("kind") == "exponent" else metric
        _runs(axes(height - upper - 0.08, upper), arms, colours, f"{title}, every run; bar: mean")
    _effects(axes(0.5, lower), claim, declared, rows)
    return figure


def intervals(claim: Json, colours: Colours) -> list[Interval]:
    """The rows of the lower plot: the effect, the pairs of an ordering, the control."""
    who, control = names(claim), mapping(claim.get("control"))
    colour = colours.label(who["method"])
    dots = tuple(
        float(pair["effect"]) for pair in objects(claim.get("pairs")) if pair.get("effect") is not None
    )
    parts = [part for part in objects(claim.get("parts")) if part.get("effect") is not None]
    if parts:
        rows = [
            Interval(str(part.get("label")), float(part["effect"]), part.get("ci"), colour) for part in parts
        ]
    else:
        label = f"{who['method']} against {who['baseline']}" if who["baseline"] else who["method"]
        rows = [Interval(label, float(claim["effect"]), claim.get("ci"), colour, dots=dots)]
    if control.get("effect") is not None:
        beaten = claim.get("kind") in BEATEN
        label = (
            f"against the control, {who['control']}"
            if beaten
            else f"control: {who['control']} in the method’s place"
        )
        rows.append(Interval(label, float(control["effect"]), control.get("ci"), MUTED, "^"))
    return rows


def _runs(ax: Axes, arms: Arms, colours: Colours, title: str) -> None:
    for row, (name, values) in enumerate(arms):
        y, x = len(arms) - 1 - row, np.array([value for _, value in values])
        colour = colours.label(name)
        _dots(ax, x, y, colour, size=4.6, room=0.2)
        ax.plot(
            [x.mean()] * 2, [y - 0.34, y + 0.34], color=colour, linewidth=2, solid_capstyle="butt", zorder=4
        )
    _labels(ax, [name for name, _ in arms], [len(arms) - 1.0 - row for row in range(len(arms))])
    ax.set_ylim(-0.6, len(arms) - 0.4)
    _pad(ax, [value for _, values in arms for _, value in values])
    _value_axis(ax, title)


def _effects(ax: Axes, claim: Json, declared: Claim | None, rows: Sequence[Interval]) -> None:
    holds = holds_between(declared)
    zero = claim.get("kind") not in ("bound", "exponent")
    reach = [0.0] * zero + [edge for edge in holds or () if math.isfinite(edge)]
    for row in rows:
        reach += [row.effect, *row.dots, *(end for end in row.ci or () if end is not None)]
    _pad(ax, reach)
    left, right = ax.get_xlim()
    if holds:
        low, high = holds
        ax.axvspan(max(low, left), min(high, right), color=SHADE, linewidth=0, zorder=0)
        for edge in sorted({low, high} - {-math.inf, math.inf, 0.0}):
            ax.axvline(edge, color=MUTED, linewidth=0.9, dashes=(4, 3), zorder=1)
    if zero:
        ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
    y, spots = 0.0, list[float]()
    for row in rows:
        _interval(ax, y, row)
        if row.dots:
            _dots(ax, np.array(row.dots), y - DOTS, row.colour, size=4, room=0.13)
        spots.append(y - DOTS / 2 * bool(row.dots))
        y -= 1 + DOTS * bool(row.dots)
    ax.set_ylim(y + 0.5, 0.5)
    _labels(ax, [row.label for row in rows], spots)
    _value_axis(ax, axis_label(claim, declared))
    if claim.get("effect_kind") == "log_ratio":
        _ratio_ticks(ax)


def _interval(ax: Axes, y: float, row: Interval) -> None:
    if row.ci:
        left, right = ax.get_xlim()
        low, high = row.ci
        ends = (left if low is None else low, right if high is None else high)
        ax.plot(ends, (y, y), color=row.colour, linewidth=2.2, solid_capstyle="butt", zorder=4)
    look: dict[str, Any] = {
        "color": row.colour,
        "markersize": 7.5,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.9,
    }
    if row.marker == "^":
        look |= {
            "markerfacecolor": PAPER,
            "markeredgecolor": row.colour,
            "markeredgewidth": 1.2,
            "markersize": 6.5,
        }
    ax.plot([row.effect], [y], row.marker, zorder=5, **look)


def _dots(ax: Axes, x: NDArray[np.float64], y: float, colour: str, *, size: float, room: float) -> None:
    ax.plot(
        x, y + _spread(x, room), "o", color=colour, markersize=size, alpha=0.8, markeredgecolor=PAPER,
        markeredgewidth=0.5, zorder=3,
    )  # fmt: skip


def _spread(x: NDArray[np.float64], room: float) -> NDArray[np.float64]:
    """Offsets that keep dots apart: each dot takes the first free of five lanes."""
    lanes = np.array([0.0, 0.5, -0.5, 1.0, -1.0]) * room
    width = max(float(np.ptp(x)), 1e-12) / 45
    offsets, last = np.zeros(len(x)), np.full(len(lanes), -np.inf)
    for i in np.argsort(x, kind="stable"):
        lane = next((k for k in range(len(lanes)) if x[i] - last[k] > width), int(np.argmin(last)))
        offsets[i], last[lane] = lanes[lane], x[i]
    return offsets


def _labels(ax: Axes, labels: Sequence[str], spots: Sequence[float]) -> None:
    ax.set_yticks(spots, [plain("\n".join(textwrap.wrap(label, 26)[:4])) for label in labels], fontsize=8)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)


def _value_axis(ax: Axes, title: str) -> None:
    number_axis(ax.xaxis, 6)
    ax.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    ax.set_xlabel(plain(title), loc="left", fontsize=8, color=MUTED)


def _ratio_ticks(ax: Axes) -> None:
    """Ticks at round factors; where none of the sets gives four in view, the plain ticks written as factors."""
    left, right = ax.get_xlim()
    powers = range(math.floor(left / math.log(10)) - 1, math.ceil(right / math.log(10)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [math.log(step) + power * math.log(10) for power in powers for step in steps]
        ticks = [tick for tick in ticks if left <= tick <= right]
        if len(ticks) >= 4:
            break
    else:
        ticks = [float(tick) for tick in ax.get_xticks() if left <= tick <= right]
    ax.set_xticks(ticks, [effect(tick, "log_ratio") for tick in ticks])


def _pad(ax: Axes, reach: Sequence[float]) -> None:
    low, high = min(reach), max(reach)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.5
    ax.set_xlim(low - room, high + room)
