"""The figures of the report that are this study's own, from the rows of the stage `shown`.

Images are rendered again from the seed and the index; photographs are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from common.study.config import compose
from common.study.jobs import expand
from projects.proxy_isa.claims import NAMES
from projects.proxy_isa.diagnostics import EDGES
from projects.proxy_isa.examples import CLASSES, IMAGES, NEIGHBOURS, QUERIES
from projects.proxy_isa.images import InMemory
from projects.proxy_isa.letters import task
from projects.proxy_isa.study import STUDY

Row = Mapping[str, Any]
LETTERS = ("cub_like", "sop_like")
MOMENTS = (("weights_half", "half of the training", "#9db4d0"), ("weights_end", "its end", "#3465a4"))
ACROSS = 1 + NEIGHBOURS
RIGHT, WRONG = "#23845a", "#c4531d"
COLOURS = ("#3465a4", "#c4531d", "#23845a", "#8a5ab0", "#a37a00", "#5b6470")
MARKS = "os^Dvp"


def gallery(rows: Sequence[Row], scale: str) -> Figure:
    """Queries of the worst and of the best class under Proxy-ISA on each data set, with what lies nearest."""
    names = [f"{kind}_{number}" for kind in ("worst", "best") for number in range(QUERIES)]
    lines = [
        (row, name)
        for data in LETTERS
        for name in names
        for row in _shown(rows, data, "proxy_isa", name)
        if "place_0" in row
    ]
    figure = Figure(figsize=(6.4, max(1, len(lines)) * 0.98 + 0.4), layout="constrained")
    if not lines:
        return _nothing(figure)
    tests = {data: _test(rows, data, scale) for data in {str(row["data"]) for row, _ in lines}}
    grid = figure.subplots(len(lines), ACROSS, squeeze=False)
    for line, (row, name) in zip(grid, lines, strict=True):
        test = tests[str(row["data"])]
        chosen = [int(row[f"place_{place}"]) for place in range(ACROSS) if f"place_{place}" in row]
        for axes in line[len(chosen) :]:
            axes.set_axis_off()
        for place, (axes, index) in enumerate(zip(line, chosen, strict=False)):
            _image(axes, test, index, None if place == 0 else bool(test.y[index] == test.y[chosen[0]]))
        line[0].set_ylabel(f"{_title(row['data'])}\n{name.partition('_')[0]} class", fontsize=7)
    for place, axes in enumerate(grid[0]):
        axes.set_title(f"nearest {place}" if place else "query", fontsize=8)
    return figure


def embedding_map(rows: Sequence[Row], scale: str) -> Figure:
    """Some test classes on two principal components: a row of panels for each data set, a panel for each loss."""
    losses = [loss for loss in NAMES if any(_shown(rows, data, loss, "class_0") for data in LETTERS)]
    sets = [data for data in LETTERS if any(_shown(rows, data, loss, "class_0") for loss in losses)]
    figure = Figure(figsize=(7.2, max(1, len(sets)) * 3.1), layout="constrained")
    if not sets:
        return _nothing(figure)
    parts = figure.subfigures(len(sets), len(losses), squeeze=False)
    for line, data in zip(parts, sets, strict=True):
        test = _test(rows, data, scale)
        for part, loss in zip(line, losses, strict=True):
            _map(part, rows, data, loss, test)
    return figure


def pair_weights(rows: Sequence[Row], scale: str) -> Figure:
    """Histograms of the pairs' weights: a row for each training, positives left and negatives right."""
    sets = dict.fromkeys(str(row["data"]) for row in rows if row["stage"] == "shown")
    trainings = [(data, loss) for data in sets for loss in NAMES if _shown(rows, data, loss, "weights_end")]
    figure = Figure(figsize=(6.8, max(1, len(trainings)) * 1.75 + 0.4), layout="constrained")
    if not trainings:
        return _nothing(figure)
    grid = figure.subplots(len(trainings), 2, squeeze=False, sharex=True, sharey=True)
    for line, (data, loss) in zip(grid, trainings, strict=True):
        for axes, sign in zip(line, ("positive", "negative"), strict=True):
            for offset, (part, label, colour) in zip((-0.2, 0.2), MOMENTS, strict=True):
                for row in _shown(rows, data, loss, part):
                    shares = [float(row[f"{sign}_weight_{edge:g}"]) for edge in EDGES[:-1]]
                    places = [place + offset for place in range(len(shares))]
                    axes.bar(places, shares, 0.4, color=colour, label=label)
        line[0].set_ylabel(f"{NAMES[loss]}\n{_title(data)}", fontsize=7)
    for axes, sign in zip(grid[0], ("positive", "negative"), strict=True):
        axes.set_title(f"share of the {sign} pairs", fontsize=8)
    for axes in grid[-1]:
        bins = [f"{low:g}–{high:g}" for low, high in pairwise(EDGES)]
        bins[EDGES.index(0.999)] = "1"
        axes.set_xticks(range(len(bins)), bins, rotation=90, fontsize=6)
        axes.set_xlabel("weight", fontsize=7)
    grid[0, 0].legend(fontsize=7, frameon=False)
    return figure


def _map(part: SubFigure, rows: Sequence[Row], data: str, loss: str, test: InMemory) -> None:
    grid = part.add_gridspec(CLASSES, 2, width_ratios=(CLASSES, 1))
    axes = part.add_subplot(grid[:, 0])
    explained = 0.0
    for number in range(CLASSES):
        for row in _shown(rows, data, loss, f"class_{number}"):
            held = [k for k in range(IMAGES) if f"x_{k}" in row]
            if not held:
                continue
            explained = float(row["explained"])
            x, y = ([float(row[f"{name}_{k}"]) for k in held] for name in "xy")
            axes.scatter(
                x, y, s=22, color=COLOURS[number], marker=MARKS[number], edgecolors="white", linewidths=0.5
            )
            picture = part.add_subplot(grid[number, 1])
            _image(picture, test, int(row["image_0"]), None)
            picture.set_title(f"{number + 1}", fontsize=7, pad=1, color=COLOURS[number])
            picture.scatter(
                [-0.35], [0.5], s=22, color=COLOURS[number], marker=MARKS[number],
                transform=picture.transAxes, clip_on=False,
            )  # fmt: skip
    axes.set_title(f"{NAMES[loss]}, {_title(data)}", fontsize=8)
    axes.set_xlabel(f"{explained:.0%} of the variance shown", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")


def _shown(rows: Sequence[Row], data: str, loss: str, part: str) -> list[Row]:
    wanted = {"stage": "shown", "data": data, "loss": loss, "part": part}
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _nothing(figure: Figure) -> Figure:
    figure.text(0.5, 0.5, "not run at this scale", ha="center", va="center", fontsize=8)
    return figure


def _title(data: object) -> str:
    return str(data).replace("_", "-")


def _test(rows: Sequence[Row], data: str, scale: str) -> InMemory:
    """The test images of the seed that is shown."""
    seed = next(int(row["of_seed"]) for row in rows if row["stage"] == "shown" and row["data"] == data)
    cfg = compose(STUDY.name, scale.partition("+")[0])
    job = next(job for job in expand(STUDY, cfg) if job.stage.name == "learn" and job.axes["data"] == data)
    test = task(seed, job.config["data"]).test
    assert isinstance(test, InMemory)
    return test


def _image(axes: Axes, images: InMemory, index: int, right: bool | None) -> None:
    axes.imshow(images.x[index, 0].numpy(), cmap="Greys_r")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(right is not None)
        spine.set_color(RIGHT if right else WRONG)
        spine.set_linewidth(2.0)
    if right is False:
        axes.plot([0.04, 0.18], [0.04, 0.18], color=WRONG, transform=axes.transAxes)
        axes.plot([0.04, 0.18], [0.18, 0.04], color=WRONG, transform=axes.transAxes)
