"""Stage `predict`: predicted against measured gains, one row a model, over all networks of one seed.

pipes      ours (see `roofline`)
roofline   max(F / P, B / BW, N / C)
constant   the median gain of each precision, fitted on these very gains: the strongest predictor that knows no layer
permuted   ours, with the layers exchanged inside each precision and kind of measurement
noconvert  ours, on a machine whose conversions cost nothing
memory     bytes alone
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import unknown
from common.study.model import JobRef, Member, Metrics
from projects.fp16_cnn import layers, machine, networks, roofline
from projects.fp16_cnn.machine import Machine
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.precision import TIMED
from projects.fp16_cnn.roofline import State

WITHIN = math.log(1.15)
PREDICTED = tuple(name for name in TIMED if name != "f32")
MODELS = (*roofline.MODELS, "constant", "permuted")
STATES: tuple[State, ...] = ("hot", "cold")
CONVOLUTIONS = ("conv", "dense")
LAYERS = (*CONVOLUTIONS, "depthwise")
MOVING = ("depthwise", "stream")


@dataclass(frozen=True)
class Point:
    """One measured gain.

    Attributes:
        kind: conv, dense, depthwise, or stream (a residual sum of `numbers`).
        cell: None for a stream.
    """

    kind: str
    precision: str
    state: State
    measured: float
    cell: Cell | None
    numbers: int = 0


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics of a model:

    `within_hot`, `within_cold`: share of convolutions and fully connected layers predicted within 15 %;
    `error_hot`, `error_cold`: median |log(predicted / measured)| over these and depthwise layers;
    `error_streaming`: the same over depthwise layers and residual sums, hot, where conversions matter;
    `within_depthwise`: share of depthwise layers within 15 %, hot; `points`, `noisy`.

    If one of the processes met a noisy machine, only `noisy` is left.
    """
    first = members[0]
    folder = first.inputs["machine"][0].folder
    jobs = first.inputs["layers"]
    noisy = {"noisy": max(job.metrics["noisy"] for job in jobs)}
    if noisy["noisy"]:
        return [noisy for _ in members]
    points = [point for job in jobs for point in points_of(job, networks.load(folder, str(job.axes["net"])))]
    found, seed = machine.load(folder), int(first.axes["seed"])
    return [{**noisy, **score(points, predictor(points, found, str(m.axes["model"]), seed))} for m in members]


def points_of(job: JobRef, cells: Sequence[Cell]) -> list[Point]:
    """The measured gains of one process."""
    known = {cell.label: cell for cell in cells}
    found: list[Point] = []
    for line in layers.read(job.folder):
        cell = known.get(line["label"])
        if cell is None and line["kind"] != "stream":
            continue
        found += [
            Point(
                line["kind"],
                name,
                state,
                line[state]["f32"] / line[state][name],
                cell,
                int(line.get("numbers", 0)),
            )
            for state in STATES
            for name in PREDICTED
            if name in line[state]
        ]
    return found


def predictor(points: Sequence[Point], found: Machine, model: str, seed: int) -> Callable[[int], float]:
    """Index of a point -> predicted gain.

    Raises:
        BadInputError: an unknown model.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    groups = _groups(points)
    if model == "constant":
        medians = {
            key: statistics.median(points[place].measured for place in places)
            for key, places in groups.items()
        }
        return lambda place: medians[_key(points[place])]
    if model == "permuted":
        generator = np.random.default_rng(seed)
        other = {}
        for places in groups.values():
            other |= dict(zip(places, generator.permutation(places), strict=True))
        return lambda place: modelled(points[other[place]], found, "pipes")
    return lambda place: modelled(points[place], found, model)


def modelled(point: Point, found: Machine, model: str) -> float:
    """The gain that a model of `roofline` predicts."""
    if point.cell is not None:
        return roofline.gain(found, point.cell, point.precision, point.state, model)  # type: ignore[arg-type]
    if model == "memory":
        return roofline.stream_bytes(found, point.numbers, "f32", point.state) / roofline.stream_bytes(
            found, point.numbers, point.precision, point.state
        )
    convert = model != "noconvert"
    fp32, half = (
        roofline.stream(found, point.numbers, name, point.state, convert) for name in ("f32", point.precision)
    )
    return fp32 / half


def score(points: Sequence[Point], predicted: Callable[[int], float]) -> dict[str, float]:
    """Shares and errors of one predictor."""
    errors = [abs(math.log(predicted(place) / point.measured)) for place, point in enumerate(points)]

    def of(state: State, kinds: Sequence[str]) -> list[float]:
        pairs = zip(points, errors, strict=True)
        return [error for point, error in pairs if point.state == state and point.kind in kinds]

    chosen: Mapping[str, tuple[list[float], Callable[[list[float]], Any]]] = {
        "within_hot": (of("hot", CONVOLUTIONS), _within),
        "within_cold": (of("cold", CONVOLUTIONS), _within),
        "within_depthwise": (of("hot", ("depthwise",)), _within),
        "error_hot": (of("hot", LAYERS), statistics.median),
        "error_cold": (of("cold", LAYERS), statistics.median),
        "error_depthwise": (of("hot", ("depthwise",)), statistics.median),
        "error_streaming": (of("hot", MOVING), statistics.median),
    }
    found = {name: float(value(values)) for name, (values, value) in chosen.items() if values}
    return {**found, "points": float(len(points))}


def _within(errors: Sequence[float]) -> float:
    return sum(error < WITHIN for error in errors) / len(errors)


def _key(point: Point) -> tuple[str, State, bool]:
    return point.precision, point.state, point.cell is None


def _groups(points: Sequence[Point]) -> dict[tuple[str, State, bool], list[int]]:
    groups: dict[tuple[str, State, bool], list[int]] = {}
    for place, point in enumerate(points):
        groups.setdefault(_key(point), []).append(place)
    return groups
