"""What each layer and each converted copy takes on this machine: the times that a plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from projects.fp16_cnn import layer as builders
from projects.fp16_cnn import machine, timing
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.network import Network, compile_network
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


@dataclass(frozen=True)
class Timetable:
    """Median seconds, one thread, of everything in a run of networks that are in one precision throughout.

    A layer's data are then where the layers round it leave them: where the weights do not fit into a cache, a layer
    that is called again and again is faster than it ever is in its network.

    Attributes:
        layers: layer -> precision -> seconds.
        rest: of what is no layer (pooling, sums, scales) in f32.
    """

    layers: Mapping[str, Mapping[str, float]]
    rest: float


def timetable(program: Program, batch: int, effort: Effort) -> Timetable:
    """Time every layer in every precision of this machine, on noise."""
    images = np.random.default_rng(0).standard_normal((batch, *program.shape), np.float32)
    networks = {name: compile_network(program, name, batch, tune=effort.tuned) for name in machine.timed()}
    runs = {name: network.stamped(images) for name, network in networks.items()}
    counts = {name: timing.repetitions(run, effort.sample) for name, run in runs.items()}
    samples: dict[str, list[Float64[np.ndarray, " turns"]]] = {name: [] for name in runs}
    for _ in range(effort.rounds):
        for name, run in runs.items():
            run()  # brings the caches from the network before
            samples[name] += [run() for _ in range(counts[name])]
    found = {name: _by_node(networks[name], np.median(rows, axis=0)) for name, rows in samples.items()}
    layers = {
        node.name: {name: seconds[node.name] for name, seconds in found.items()} for node in program.layers
    }
    return Timetable(layers, sum(seconds for node, seconds in found["f32"].items() if node not in layers))


def _by_node(network: Network, seconds: Float64[np.ndarray, " turns"]) -> dict[str, float]:
    """A node of a batch that runs image by image has several turns."""
    found: dict[str, float] = {}
    for turn, each in zip(network.turns, seconds, strict=True):
        found[turn.step.name] = found.get(turn.step.name, 0.0) + float(each)
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
