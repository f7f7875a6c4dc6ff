"""Stage `gains`: from the layers' times to the gain of each precision, one row a precision, for the claims.

"f32" is the fp32 kernel against its own second copy: the noise between equal kernels. "swapped" sets the network's gain
of its fastest half precision against the layers of fp16 storage: a sum that must not agree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.study.model import Member, Metrics
from projects.fp16_cnn import layers, machine, networks, roofline
from projects.fp16_cnn.machine import Machine
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import PRECISIONS

TWO = (1.6, 2.2)  # where arithmetic of twice the width should bring a compute-bound layer
LARGE = 1 << 28  # bytes of fp32 weights that no cache holds
SWAPPED = "swapped"
Lines = Sequence[Mapping[str, Any]]


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics of a precision in one fresh process, all gains over fp32 in the same process:

    `compute_gain` (geometric mean over compute-bound layers, hot), `compute_worst` (largest |log gain| of one),
    `compute_off_two` (|log| from the middle of 1.6 to 2.2), `dram_gain` (fully connected layers whose weights no cache
    holds), `network_gain`, `sum_gain` (of all layers' times together), `network_off_sum` (|log| of their ratio),
    `peak_share` (median over convolutions of the speed over the peak), `two_threads` (geometric mean speed-up),
    `compile_ms` (slowest kernel), `hot_ms`, `cold_ms`, `network_ms`, `noisy`, `drift`, `available` (0: the CPU cannot).

    A noisy machine leaves `noisy` and `drift` alone; a precision that the CPU lacks those and `available`.
    """
    first = members[0]
    job = first.inputs["layers"][0]
    folder = first.inputs["machine"][0].folder
    watched = {"noisy": job.metrics["noisy"], "drift": job.metrics["drift"]}
    if watched["noisy"]:
        return [watched for _ in members]
    cells = {cell.label: cell for cell in networks.load(folder, str(first.axes["net"]))}
    lines, found = layers.read(job.folder), machine.load(folder)
    rows: list[Metrics] = []
    for member in members:
        made = metrics(lines, cells, found, str(member.axes["precision"]))
        rows.append({**watched, "available": float(bool(made)), **made})
    return rows


def metrics(
    lines: Lines, cells: Mapping[str, Cell], found: Machine, precision: str
) -> dict[str, float]:  # fmt: skip
    """The metrics of one precision; those that it lacks are left out."""
    if precision == SWAPPED:
        fastest = next((name for name in ("f16", "bf16") if name in lines[0]["hot"]), "")
        return network(lines, fastest, "f16s") if fastest else {}
    if precision not in lines[0]["hot"]:
        return {}
    return {
        **compute(lines, cells, found, precision),
        **weights_from_memory(lines, cells, precision),
        **network(lines, precision, precision),
        **speed(lines, cells, found, precision),
    }


def gain(line: Mapping[str, Any], precision: str, state: str = "hot") -> float:
    """Time in fp32 over time in the precision; of fp32 itself, over its second copy."""
    times = line[state]
    return times["f32"] / times[layers.AGAIN if precision == "f32" else precision]


def compute(
    lines: Lines, cells: Mapping[str, Cell], found: Machine, precision: str
) -> dict[str, float]:  # fmt: skip
    """Gains of the layers that are compute-bound in fp32 and in the precision."""
    gains = [
        gain(line, precision)
        for line in lines
        if line["label"] in cells
        and all(roofline.compute_bound(found, cells[line["label"]], name) for name in ("f32", precision))
    ]
    if not gains:
        return {}
    mean = geometric(gains)
    return {
        "compute_gain": mean,
        "compute_worst": max(abs(math.log(each)) for each in gains),
        "compute_off_two": abs(math.log(mean / math.sqrt(math.prod(TWO)))),
        "compute_layers": float(len(gains)),
    }


def weights_from_memory(lines: Lines, cells: Mapping[str, Cell], precision: str) -> dict[str, float]:
    """Gain of the fully connected layers that read their weights from memory on every call."""
    gains = [
        gain(line, precision)
        for line in lines
        if line["kind"] == "dense" and 4 * cells[line["label"]].shape.weights > LARGE
    ]
    return {"dram_gain": geometric(gains)} if gains else {}


def network(lines: Lines, precision: str, of_layers: str) -> dict[str, float]:
    """The gain of the whole network beside that of the sum of its layers' hot times."""
    whole = [line for line in lines if line["kind"] == "network"]
    parts = [line for line in lines if line["count"] and line["kind"] != "network"]
    if not whole or precision not in whole[0]["hot"]:
        return {}
    times = whole[0]["hot"]
    summed = total(parts, "f32") / total(parts, of_layers)
    found = {"network_gain": times["f32"] / times[precision], "sum_gain": summed}
    found["network_off_sum"] = abs(math.log(found["network_gain"] / summed))
    return {
        **found,
        "network_ms": 1e3 * times[precision],
        "network_over_sum": times[precision] / total(parts, precision),
    }


def speed(lines: Lines, cells: Mapping[str, Cell], found: Machine, precision: str) -> dict[str, float]:
    """How fast the kernels are: against the peak, on two threads, in all."""
    parts = [line for line in lines if line["label"] in cells]
    peak = found.peak(PRECISIONS[precision])
    shares = [
        cells[line["label"]].shape.flops / line["hot"][precision] / peak
        for line in parts
        if line["kind"] == "conv"
    ]
    two = [
        line["two"][precision]
        for line in parts
        if precision in line.get("two", {}) and roofline.compute_bound(found, cells[line["label"]], precision)
    ]
    return {
        **({"peak_share": statistics.median(shares)} if shares else {}),
        **({"two_threads": geometric(two)} if two else {}),
        "compile_ms": 1e3 * max(line["compile"][precision] for line in parts),
        "hot_ms": 1e3 * total(parts, precision),
        "cold_ms": 1e3 * total(parts, precision, "cold"),
    }


def total(lines: Iterable[Mapping[str, Any]], precision: str, state: str = "hot") -> float:
    """Seconds of all layers, each as often as it occurs."""
    return math.fsum(line["count"] * line[state][precision] for line in lines)


def geometric(values: Sequence[float]) -> float:
    """Geometric mean of positive numbers."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))
