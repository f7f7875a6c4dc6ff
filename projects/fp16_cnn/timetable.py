"""What each layer and each converted copy takes on this machine: the times that a plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from projects.fp16_cnn import layer as builders
from projects.fp16_cnn import machine, timing
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.layers import bind, weights
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.planner import Border
from projects.fp16_cnn.precision import Storage
from projects.fp16_cnn.program import Fallback, Layer, Program

COPIES: tuple[Storage, ...] = ("float16", "bfloat16")


@dataclass(frozen=True)
class Effort:
    """How carefully times are taken: rounds of samples, seconds a sample, and whether blockings are tuned first."""

    rounds: int
    sample: float
    tuned: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Effort:
        """From a config section."""
        return cls(int(options["rounds"]), float(options["sample"]), bool(options["tuned"]))


def timetable(program: Program, batch: int, effort: Effort) -> dict[str, dict[str, float]]:
    """Layer -> precision -> median seconds, hot, one thread; layers that are alike are timed once."""
    generator = np.random.default_rng(0)
    known: dict[Cell, dict[str, float]] = {}
    found: dict[str, dict[str, float]] = {}
    for node in program.layers:
        cell = Cell(replace(node.shape, batch=batch), node.activation, node.residual, 1)
        if cell not in known:
            weight, bias = weights(cell, generator)
            kernels = {name: bind(cell, name, weight, bias, effort.tuned) for name in machine.timed()}
            calls = {name: kernel.call for name, kernel in kernels.items()}
            known[cell] = timing.medians(timing.hot(calls, effort.rounds, effort.sample))
        found[node.name] = known[cell]
    return found


def borders(program: Program, batch: int, effort: Effort) -> list[Border]:
    """The values that several layers read, with the time of a converted copy."""
    known: dict[Layout, dict[str, float]] = {}
    found: list[Border] = []
    for value in (program.source, *(node.name for node in program.nodes)):
        multiply, others, fixed = readers(program, value)
        if not multiply or len(multiply) + len(others) + fixed < 2:
            continue
        channels, height, width = program.extent(value)
        layout = Layout(batch, height, width, channels)
        if layout not in known:
            known[layout] = _copies(layout, effort)
        found.append(Border(multiply, others, fixed, known[layout]))
    return found


def readers(program: Program, value: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Layers that multiply a value; layers behind operators that pass its storage on; whether fp32 is a must.

    The same rule as `program.storages`, by which the network is built.
    """
    multiply: list[str] = []
    others: list[str] = []
    fixed = value == program.output
    for node in program.consumers(value):
        if isinstance(node, Layer):
            if node.inputs[0] == value:
                multiply.append(node.name)
        elif isinstance(node, Fallback):
            fixed = True
        elif node.inputs[0] == value:
            below, behind, must = readers(program, node.name)
            others += [*below, *behind]
            fixed |= must or not (below or behind)
    return (
        tuple(dict.fromkeys(multiply)),
        tuple(name for name in dict.fromkeys(others) if name not in multiply),
        fixed,
    )


def _copies(layout: Layout, effort: Effort) -> dict[str, float]:
    x = Buffer(layout)
    calls: dict[str, timing.Call] = {}
    kept: list[Buffer] = []
    for storage in COPIES:
        target = replace(layout, storage=storage)
        kept.append(Buffer(target))
        calls[storage] = builders.convert(layout, target).bind(x, kept[-1])
    return timing.medians(timing.hot(calls, effort.rounds, effort.sample))
