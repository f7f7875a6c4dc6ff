"""The figures of the report that are this study's own; each reads the table's rows and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from common.study.report.style import ARM_COLOURS, GRID, INK, MUTED
from projects.fp16_cnn.precision import PRECISIONS, TIMED

Row = Mapping[str, Any]
WIDTH = 6.8
ACROSS = 3  # panels
COLOURS: dict[str, str] = dict(
    zip(TIMED, (ARM_COLOURS[0], ARM_COLOURS[4], ARM_COLOURS[1], ARM_COLOURS[2], ARM_COLOURS[3]), strict=True)
)
MARKERS = {"conv": "o", "depthwise": "^", "dense": "s"}
KINDS = {"conv": "convolution", "depthwise": "depthwise", "dense": "fully connected"}
PARTS = {"compute": ARM_COLOURS[0], "memory": ARM_COLOURS[2], "conversion": ARM_COLOURS[1], "rest": "#b8bfc7"}
ROOFS = {"read_16k_gb": "L1", "read_8m_gb": "L3", "read_memory_gb": "memory"}
EDGES = (0.45, 3.6)  # gains beyond them are drawn at the edge
HALVED = {"f32": 1.0, "f16w": 1.0, "f16s": 0.5, "bf16": 0.5, "f16": 0.5}  # of the bytes, about
PEAKS = {"f32": "peak_float32_gflops", "bf16": "peak_bfloat16_gflops", "f16": "peak_float16_gflops"}
RAN = {"ran_f32": "fp32", "ran_bf16": "bf16", "ran_f16": "fp16"}


def rooflines(rows: Sequence[Row], scale: str) -> Figure:
    """Every layer of a network, hot: operations a second against operations a byte, in fp32 and in half precision."""
    nets = _nets(rows)
    figure, panels = _panels(max(1, len(nets)), 3.2)
    machine = next(iter(_stage(rows, "machine")), {})
    for axes, net in zip(panels, nets, strict=False):
        found = _layers(rows, net)
        shown = [name for name in ("f32", "bf16", "f16") if any(f"{name}_hot_us" in row for row in found)]
        for name in shown:
            for row in (row for row in found if f"{name}_hot_us" in row):
                intensity = 1e3 * row["mflop"] / row["kb"] / HALVED[name]
                axes.plot(
                    intensity, 1e3 * row["mflop"] / row[f"{name}_hot_us"],
                    MARKERS[kind_of(row)], color=COLOURS[name], markersize=4.5, fillstyle="none",
                )  # fmt: skip
        _roofs(axes, machine, shown)
        axes.set(xscale="log", yscale="log", xlabel="operations / byte")
        _title(axes, net)
    for axes in panels[::ACROSS]:
        axes.set_ylabel("Gflop/s")
    _legend(figure, _looks(rows, ("f32", "bf16", "f16")))
    return figure


def time_lost(rows: Sequence[Row], scale: str) -> Figure:
    """What each layer's hot time goes to, as a multiple of its fp32 time, found by leaving parts out of its kernel."""
    nets = _nets(rows)
    counts = [len(_layers(rows, net)) for net in nets] or [1]
    shown = [name for name in ("f32", "f16s", "bf16", "f16") if _has(rows, f"{name}_hot_us")] or ["f32"]
    longest = max(
        (row[f"{name}_hot_us"] / row["f32_hot_us"] for net in nets for row in _layers(rows, net) for name in shown
         if f"{name}_hot_us" in row), default=1.0,
    )  # fmt: skip
    figure = Figure(figsize=(WIDTH, 1.2 + 0.15 * sum(counts) + 0.4 * len(counts)), layout="constrained")
    grid = figure.subplots(
        len(counts), len(shown), squeeze=False, sharey="row", sharex="row", height_ratios=counts
    )
    for line, net in zip(grid, nets, strict=False):
        found = _layers(rows, net)
        for axes, name in zip(line, shown, strict=True):
            parts = [spent(row, name, _peak(rows, row, name)) for row in found]
            left = np.zeros(len(found))
            for part, colour in PARTS.items():
                wide = np.array(
                    [each[part] / row["f32_hot_us"] for each, row in zip(parts, found, strict=True)]
                )
                axes.barh(np.arange(len(found)), wide, 0.75, left=left, color=colour, linewidth=0)
                left = left + wide
            _title(axes, f"{net}\n{PRECISIONS[name].words}" if name == shown[0] else PRECISIONS[name].words)
            axes.set_xlim(0.0, 1.03 * longest)
            axes.axvline(1.0, color=MUTED, linewidth=0.8)
            axes.grid(axis="x", color=GRID, linewidth=0.6)
            axes.set_axisbelow(True)
        labels = [f"{row['layer']} ×{int(row['count'])}: {row['f32_hot_us'] / 1e3:.2g} ms" for row in found]
        line[0].set_yticks(range(len(found)), labels, fontsize=5.5)
        line[0].invert_yaxis()
        line[0].margins(y=0.01)
    grid[-1][len(shown) // 2].set_xlabel("time, fp32's time of the layer = 1 (beside its name)")
    handles = [Patch(color=colour, label=part) for part, colour in PARTS.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    return figure


def spent(row: Row, name: str, peak: float) -> dict[str, float]:
    """The hot time of a layer (microseconds) cut into parts, in this order, none beyond what is left.

    Args:
        peak: of the precision's arithmetic, in Gflop/s.
    """
    left = float(row.get(f"{name}_hot_us", 0.0))
    wanted = {
        "compute": 1e3 * row["mflop"] / peak if peak else 0.0,
        "memory": float(row.get(f"{name}_memory_us", 0.0)),
        "conversion": float(row.get(f"{name}_convert_us", 0.0)),
    }
    found: dict[str, float] = {}
    for part, seconds in wanted.items():
        found[part] = min(left, seconds)
        left -= found[part]
    return {**found, "rest": left}


def predicted(rows: Sequence[Row], scale: str) -> Figure:
    """Predicted against measured gain of every layer of every network; between the dashed lines: within 15 %."""
    figure, panels = _panels(2, 3.4)
    shown = [name for name in TIMED if name != "f32" and _has(rows, f"{name}_hot_gain")]
    for axes, state in zip(panels, ("hot", "cold"), strict=True):
        for name in shown:
            for row in _stage(rows, "attribution"):
                measured, model = (row.get(f"{name}_{state}_{what}") for what in ("gain", "model"))
                if measured is None or model is None:
                    continue
                axes.plot(
                    np.clip(measured, *EDGES),
                    np.clip(model, *EDGES),
                    MARKERS[kind_of(row)],
                    color=COLOURS[name],
                    markersize=4,
                    fillstyle="none",
                )
        line = np.array([0.97 * EDGES[0], 1.03 * EDGES[1]])
        for factor, dashes in ((1 / 1.15, "--"), (1.0, "-"), (1.15, "--")):
            axes.plot(line, factor * line, dashes, color=MUTED, linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="measured gain over fp32", xlim=line, ylim=line)
        _title(axes, state)
        _plain_ticks(axes, (0.5, 0.7, 1.0, 1.5, 2.0, 3.0))
    panels[0].set_ylabel("predicted gain")
    _legend(figure, _looks(rows, shown))
    return figure


def gains_by_layer(rows: Sequence[Row], scale: str) -> Figure:
    """Gain of every layer in every precision: hot filled, cold hollow."""
    nets = _timed(rows)
    counts = [len(_layers(rows, net)) for net in nets] or [1]
    shown = [name for name in TIMED if name != "f32" and _has(rows, f"{name}_hot_gain")]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.16 * sum(counts) + 0.3 * len(counts)), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(len(counts), 1, height_ratios=counts, sharex=True)))
    for axes, net in zip(panels, nets, strict=False):
        found = _layers(rows, net)
        for name in shown:
            for state, fill in (("hot", "full"), ("cold", "none")):
                values = [(row.get(f"{name}_{state}_gain"), place) for place, row in enumerate(found)]
                points = [(gain, place) for gain, place in values if gain is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(
                        np.clip(x, *EDGES),
                        y,
                        "o",
                        color=COLOURS[name],
                        markersize=3.5,
                        fillstyle=fill,
                        linestyle="",
                    )
        axes.axvline(1.0, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(found)), [str(row["layer"]) for row in found], fontsize=6)
        axes.set_xscale("log")
        _plain_ticks(axes, (0.5, 0.7, 1.0, 1.5, 2.0, 3.0), only="x")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        _title(axes, net)
        axes.set_ylim(max(1, len(found)) - 0.5, -0.5)
    panels[-1].set_xlabel("times as fast as fp32 (filled: hot, hollow: cold)")
    _legend(figure, [Line2D([], [], color=COLOURS[name], marker="o", linestyle="", markersize=4,
                            label=PRECISIONS[name].words) for name in shown])  # fmt: skip
    return figure


def peers(rows: Sequence[Row], scale: str) -> Figure:
    """Time of every tool, and in which type its multiplying layers really ran."""
    found = _stage(rows, "compare")
    cells = sorted({(str(row["net"]), int(row["batch"])) for row in found})
    tools = list(dict.fromkeys(str(row["tool"]) for row in found if "one_ms" in row))
    across = min(2, max(1, len(cells)))
    down = max(1, -(-len(cells) // across))
    size = (WIDTH, down * (0.7 + 0.19 * max(1, len(tools))) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = np.asarray(figure.subplots(down, across, squeeze=False, sharey=True)).ravel()
    for axes in grid[len(cells) :]:
        axes.set_axis_off()
    for axes, (net, batch) in zip(grid, cells, strict=False):
        mine = {
            tool: [row for row in found if (row["net"], row["batch"], row["tool"]) == (net, batch, tool)]
            for tool in tools
        }
        for place, tool in enumerate(tools):
            for shift, threads, alpha in ((-0.19, "one", 1.0), (0.19, "all", 0.45)):
                values = [row[f"{threads}_ms"] for row in mine[tool] if f"{threads}_ms" in row]
                if values:
                    colour = ARM_COLOURS[0] if tool.startswith("own") else MUTED
                    axes.barh(place + shift, statistics.median(values), 0.36, color=colour, alpha=alpha)
            if mine[tool]:
                axes.text(0.99, place, ran(mine[tool][0]), transform=axes.get_yaxis_transform(), ha="right",
                          va="center", fontsize=6, color=INK)  # fmt: skip
        _title(axes, f"{net}, batch {batch}")
        axes.set_yticks(range(len(tools)), [tool.replace("_", " ") for tool in tools], fontsize=7)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.25)
        axes.set_xlabel("ms (dark: one thread, light: all)")
    grid[0].invert_yaxis()
    return figure


def ran(row: Row) -> str:
    """In which types a tool's layers ran: "bf16", or "75 % bf16, 25 % fp32"."""
    shares = sorted(((float(row.get(key, 0.0)), words) for key, words in RAN.items()), reverse=True)
    kept = [(share, words) for share, words in shares if share > 0]
    if len(kept) == 1:
        return f"ran {kept[0][1]}"
    return ", ".join(f"{100 * share:.0f} % {words}" for share, words in kept)


def kind_of(row: Row) -> str:
    """Kind of the layer that a row is about, from its label."""
    words = str(row["layer"]).split()
    return "depthwise" if "dw" in words else "dense" if "fc" in words else "conv"


def _roofs(axes: Axes, machine: Row, shown: Sequence[str]) -> None:
    low, high = axes.get_xlim()
    x = np.geomspace(max(low, 0.3), max(high, 300.0), 200)
    top = max([float(machine[PEAKS[name]]) for name in shown if PEAKS[name] in machine] or [0.0])
    if not top:
        return
    named: dict[float, str] = {}
    for key, words in ROOFS.items():
        axes.plot(x, np.minimum(top, x * machine[key]), color=MUTED, linewidth=0.8)
        near = next((other for other in named if 0.5 < other / machine[key] < 2.0), machine[key])
        named[near] = f"{named[near]}, {words}" if near in named else words
    for bandwidth, words in named.items():
        axes.text(
            0.36, 0.36 * bandwidth, words, fontsize=6.5, color=MUTED, va="bottom",
            rotation=math.degrees(math.atan(bandwidth)), rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip
    for name in (name for name in shown if PEAKS[name] in machine):
        axes.axhline(machine[PEAKS[name]], color=COLOURS[name], linewidth=0.8, linestyle="--")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=8.5, fontweight="bold", color=INK)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of at most `ACROSS`, each row `height` inches high."""
    across, down = min(count, ACROSS), -(-count // ACROSS)
    figure = Figure(figsize=(WIDTH, down * height), layout="constrained")
    panels = list(np.asarray(figure.subplots(down, across, squeeze=False, sharey=True)).ravel())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _looks(rows: Sequence[Row], names: Iterable[str]) -> list[Line2D]:
    """Legend entries: a colour for each precision, a marker for each kind."""
    shown = [name for name in names if _has(rows, f"{name}_hot_us")]
    kinds = {kind_of(row) for row in _stage(rows, "attribution")}
    colours = [
        Line2D([], [], color=COLOURS[name], linewidth=3, label=PRECISIONS[name].words) for name in shown
    ]
    markers = [
        Line2D(
            [], [], color=INK, marker=MARKERS[kind], linestyle="", fillstyle="none", markersize=5, label=words
        )
        for kind, words in KINDS.items()
        if kind in kinds
    ]
    return colours + markers


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    if handles:
        figure.legend(handles=list(handles), loc="outside lower left", ncols=4, frameon=False)


def _plain_ticks(axes: Axes, values: Sequence[float], only: str = "xy") -> None:
    for axis in [getattr(axes, f"{letter}axis") for letter in only]:
        axis.set_ticks(values, [f"{value:g}" for value in values])
        axis.set_minor_locator(NullLocator())


def _peak(rows: Sequence[Row], row: Row, name: str) -> float:
    """Of what multiplies, in Gflop/s: a depthwise layer has no pairs of channels, and multiplies bf16 as fp32."""
    machine = next(iter(_stage(rows, "machine")), {})
    pairs = PRECISIONS[name].multiplies == "bfloat16" and kind_of(row) == "depthwise"
    arithmetic = "float32" if pairs else PRECISIONS[name].multiplies
    return float(machine.get(f"peak_{arithmetic}_gflops", 0.0))


def _nets(rows: Sequence[Row]) -> list[str]:
    """The networks that are shown layer by layer: those with convolutions."""
    return [net for net in _timed(rows) if any(kind_of(row) == "conv" for row in _layers(rows, net))]


def _timed(rows: Sequence[Row]) -> list[str]:
    """The networks with measured layers: none where the machine was noisy all the time."""
    nets = sorted({str(row["net"]) for row in _stage(rows, "attribution")})
    return [net for net in nets if _layers(rows, net)]


def _layers(rows: Sequence[Row], net: str) -> list[Row]:
    """A network's layers in the table's order, those that were measured."""
    return [row for row in _stage(rows, "attribution") if row["net"] == net and "f32_hot_us" in row]


def _has(rows: Sequence[Row], key: str) -> bool:
    return any(key in row for row in _stage(rows, "attribution"))


def _stage(rows: Iterable[Row], stage: str) -> list[Row]:
    return [row for row in rows if row["stage"] == stage and row.get("role", "study") == "study"]
