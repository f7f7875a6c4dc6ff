"""Learning curves, and how an axis of any figure is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from common.study.model import Curves
from common.study.report import curves as learning
from common.study.report.data import Row
from common.study.report.numbers import count, number
from common.study.report.style import GRID, INK, Colours
from common.study.report.words import with_bracket

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 6.8  # inches, of every figure
LETTER, HANDLE = 0.067, 0.5  # inches of a legend's letter, and of what stands beside its text
COLUMNS = 3
Dashes = Literal["-", "--", ":"]
DASHES: tuple[Dashes, ...] = ("-", "--", ":")


def learning_curves(
    spec: Curves, rows: Sequence[Row], colours: Colours, arm_names: Mapping[tuple[str, str], str]
) -> tuple[Figure, str] | None:
    """Mean curves with 95 % t bands, a panel for each value of the panel axis; and a sentence for its alt text.

    None when no run recorded the curve.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = learning.select(rows, spec)
    if not panels:
        return None
    lines = list(dict.fromkeys(line for panel in panels.values() for line in panel))
    looks = _looks(colours.lines(spec.line, lines))
    columns = min(COLUMNS, len(panels))
    down = math.ceil(len(panels) / columns)
    tall = (3.1, 2.3, 1.95)[columns - 1]
    names = {line: arm_names.get((spec.line, line), line.replace("_", " ")) for line in lines}
    across = _legend_columns(names.values())
    figure = Figure(
        figsize=(WIDTH, tall * down + 0.2 * math.ceil(len(lines) / across) + 0.15), layout="constrained"
    )
    grid = np.atleast_2d(np.asarray(figure.subplots(down, columns, squeeze=False)))
    counts: dict[str, set[int]] = {line: set() for line in lines}
    told: list[str] = []
    for index, (panel, by_line) in enumerate(panels.items()):
        ax: Axes = grid[index // columns][index % columns]
        for line, by_seed in by_line.items():
            mean = learning.band(list(by_seed.values()))
            colour, dashes = looks[line]
            ax.fill_between(mean.x, mean.low, mean.high, color=colour, alpha=0.16, linewidth=0)
            ax.plot(mean.x, mean.mean, color=colour, linestyle=dashes)
            counts[line] |= {mean.n, mean.fewest}
            told.append(f"{line}{f' in {panel}' if panel else ''} ends at {number(float(mean.mean[-1]))}")
        _dress(ax, spec, panel, first=index % columns == 0, last=index + columns >= len(panels))
        number_axis(ax.yaxis, 5)
        if spec.x_linear:
            ax.set_xscale("symlog", linthresh=spec.x_linear, linscale=0.4)
            decades = math.floor(math.log10(max(ax.dataLim.x1 / spec.x_linear, 1.0)))
            ax.set_xticks([0.0, *(spec.x_linear * 10.0**power for power in range(decades + 1))])
            ax.set_xticks([], minor=True)
            _written(ax.xaxis)
        else:
            number_axis(ax.xaxis, 5 if columns == 1 else 3)
    for index in range(len(panels), down * columns):
        grid[index // columns][index % columns].set_axis_off()
    figure.legend(
        [Line2D([], [], color=looks[line][0], linestyle=looks[line][1]) for line in lines],
        [plain(f"{names[line]} (n = {_range(counts[line])})") for line in lines],
        loc="outside lower left",
        ncols=across,
        handlelength=1.6,
        columnspacing=1.6,
    )
    return figure, "; ".join(told) + "."


def number_axis(axis: Axis, most: int) -> None:
    """About `most` ticks, written as the report writes numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most))
    _written(axis)


def _written(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter

    def written(value: float, _position: int) -> str:
        return number(round(value, 12) if abs(value) > 1e-9 else value)

    form: Callable[[float, int], str] = written
    axis.set_major_formatter(FuncFormatter(form))


def plain(text: str) -> str:
    """A label as it stands: no dollar sign in it begins a formula."""
    return text.replace("$", r"\$")


def _legend_columns(names: Collection[str]) -> int:
    """As many columns as the longest name allows within the figure's width."""
    longest = max(map(len, names)) + len(" (n = 88)")
    return max(1, min(COLUMNS, len(names), int(WIDTH / (longest * LETTER + HANDLE))))


def _looks(colours: Mapping[str, str]) -> dict[str, tuple[str, Dashes]]:
    """Colour and line style; where more lines than colours are drawn, the second of a colour is dashed."""
    used: list[str] = []
    looks: dict[str, tuple[str, Dashes]] = {}
    for line, colour in colours.items():
        looks[line] = (colour, DASHES[min(2, used.count(colour))])
        used.append(colour)
    return looks


def _dress(ax: Axes, spec: Curves, panel: str, *, first: bool, last: bool) -> None:
    if panel:
        ax.set_title(plain(panel), loc="left", fontsize=8.5, fontweight="bold", color=INK)
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.margins(x=0.01)
    ax.set_xlabel(plain(spec.x_label or with_bracket(spec.x, "")) if last else "")
    ax.set_ylabel(plain(spec.y_label or with_bracket(spec.y, "")) if first else "")


def _range(values: set[int]) -> str:
    return count(min(values)) if len(values) == 1 else f"{count(min(values))}–{count(max(values))}"
