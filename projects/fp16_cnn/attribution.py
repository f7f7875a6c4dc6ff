"""Stage `attribution`: one row a layer, medians over the fresh processes: what the report's table and figures show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import unknown
from common.study.model import Member, Metrics
from projects.fp16_cnn import layers, machine, networks, roofline
from projects.fp16_cnn.machine import Machine
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import PRECISIONS, TIMED
from projects.fp16_cnn.roofline import State

STATES: tuple[State, ...] = ("hot", "cold")


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics of a layer: `count`, `mflop`, `kb` (fp32), `<precision>_<state>_us`, `<precision>_<state>_gain`,
    `<precision>_<state>_model` (predicted gain), and of the hot time of a precision, by leaving parts out,
    `<precision>_memory_us`, `<precision>_convert_us`. Where the machine counts, for each event of `counters` also
    `<precision>_<state>_<event>`, of one call.

    Raises:
        BadInputError: the network has no such layer.
    """
    first = members[0]
    folder = first.inputs["machine"][0].folder
    cells = {cell.label: cell for cell in networks.load(folder, str(first.axes["net"]))}
    quiet = [job for job in first.inputs["layers"] if not job.metrics["noisy"]]
    lines = [{line["label"]: line for line in layers.read(job.folder)} for job in quiet]
    found = machine.load(folder)
    rows: list[Metrics] = []
    for member in members:
        label = str(member.axes["layer"])
        if label not in cells:
            raise unknown("layer", label, cells)
        rows.append(row([each[label] for each in lines], cells[label], found))
    return rows


def row(lines: Sequence[Mapping[str, Any]], cell: Cell, found: Machine) -> dict[str, float]:
    """The metrics of one layer from its line in every quiet process."""
    size = roofline.bytes_of(cell, PRECISIONS["f32"])
    metrics = {"count": float(cell.count), "mflop": cell.shape.flops / 1e6, "kb": size / 1e3}
    for name in (name for name in TIMED if lines and name in lines[0]["hot"]):
        for state in STATES:
            metrics[f"{name}_{state}_us"] = 1e6 * median(lines, state, name)
            if name != "f32":
                gains = [line[state]["f32"] / line[state][name] for line in lines]
                metrics[f"{name}_{state}_gain"] = statistics.median(gains)
                metrics[f"{name}_{state}_model"] = roofline.gain(found, cell, name, state)
        for part, ablation in (("memory", "l1"), ("convert", "noconvert")):
            without = f"{name}:{ablation}"
            lost = [line["hot"][name] - line["hot"][without] for line in lines if without in line["hot"]]
            if lost:
                metrics[f"{name}_{part}_us"] = 1e6 * max(0.0, statistics.median(lost))
        metrics |= counts(lines, name)
    return metrics


def counts(lines: Sequence[Mapping[str, Any]], precision: str) -> dict[str, float]:
    """Median of each event that every process counted."""
    found: dict[str, float] = {}
    for state in STATES:
        events = [line.get("counted", {}).get(state, {}).get(precision, {}) for line in lines]
        for event in (name for name in events[0] if all(name in each for each in events)):
            found[f"{precision}_{state}_{event}"] = statistics.median(each[event] for each in events)
    return found


def median(lines: Sequence[Mapping[str, Any]], state: str, kernel: str) -> float:
    """Median seconds of a kernel over the processes."""
    return statistics.median(line[state][kernel] for line in lines)
