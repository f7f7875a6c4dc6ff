"""The figures of the report that are this study's own; images are rendered again from the seed and the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.study.config import compose
from common.study.jobs import expand
from projects.proxy_isa.images import InMemory
from projects.proxy_isa.letters import task
from projects.proxy_isa.study import STUDY

Row = Mapping[str, Any]
ACROSS = 6  # a query and five neighbours
RIGHT, WRONG = "#23845a", "#c4531d"


def gallery(rows: Sequence[Row], scale: str) -> Figure:
    """Worst and best query of the first seed's Proxy-ISA on each data set, with what it found nearest."""
    found = [
        row
        for row in rows
        if row["stage"] == "learn" and row["loss"] == "proxy_isa" and row.get("worst_0") not in (None, "")
    ]
    firsts = [min(group, key=lambda row: int(row["seed"])) for group in _by_data(found).values()]
    lines = [(row, kind) for row in firsts for kind in ("worst", "best")]
    figure = Figure(figsize=(6.8, max(1, len(lines)) * 1.15), layout="constrained")
    grid = figure.subplots(max(1, len(lines)), ACROSS, squeeze=False)
    for line, (row, kind) in zip(grid, lines, strict=False):
        test = _test(row, scale)
        chosen = [int(float(row[f"{kind}_{place}"])) for place in range(ACROSS)]
        for place, (axes, index) in enumerate(zip(line, chosen, strict=True)):
            _image(axes, test, index, None if place == 0 else bool(test.y[index] == test.y[chosen[0]]))
        line[0].set_ylabel(f"{str(row['data']).replace('_', '-')}\n{kind}", fontsize=8)
    if not lines:
        for axes in grid.flat:
            axes.set_axis_off()
    return figure


def _by_data(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["data"]), []).append(row)
    return groups


def _test(row: Row, scale: str) -> InMemory:
    cfg = compose(STUDY.name, scale.partition("+")[0])
    job = next(
        job
        for job in expand(STUDY, cfg)
        if job.stage.name == "learn" and job.axes["data"] == row["data"] and job.axes["loss"] == row["loss"]
    )
    test = task(int(row["seed"]), job.config["data"]).test
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
