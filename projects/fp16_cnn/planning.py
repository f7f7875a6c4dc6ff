"""A plan for a network, from measured times and errors, and what became of it on images that it was not made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.errors import BadInputError, unknown
from projects.fp16_cnn import accuracy, execute, machine, module, planner, timing
from projects.fp16_cnn.network import compile_network
from projects.fp16_cnn.planner import Choice, Precisions, Problem
from projects.fp16_cnn.program import Plan
from projects.fp16_cnn.sensitivity import disagreement_at, error_for, relative_error, sensitivities
from projects.fp16_cnn.subjects import Subject
from projects.fp16_cnn.timetable import Effort, borders, timetable

Metric = Literal["error", "agreement"]
METRICS = ("error", "agreement")
PROBED = 100
"""Images that a layer's error is measured on, at most: a norm over all their logits needs no more."""
HALVES = ("f16", "bf16", "f16s", "f32")
"""The precisions that all-half and tail-greedy use: the first that this CPU has; f32 where it has none."""


@dataclass(frozen=True)
class Planned:
    """A plan and its rivals.

    Attributes:
        problem: what they were made from.
        half: the precision of all-half and tail-greedy.
        limit: the error budget, relative error of the logits; of a budget in answers: the error that corresponds.
        plans: "planned", "greedy", "half", "f32" -> precision by layer.
        turned: name of a plan -> predicted share of changed answers.
    """

    problem: Problem
    half: str
    limit: float
    plans: Mapping[str, Precisions]
    turned: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """A plan on held-out images: relative error of the logits, share of answers equal to fp32's, seconds a run."""

    error: float
    agreement: float
    seconds: float


def problem_of(subject: Subject, batch: int, effort: Effort) -> Problem:
    """Measure the times of all layers on this machine, and their errors on the images for choices.

    A precision in which a layer overflows on these images is no choice for it.
    """
    times = timetable(subject.program, batch, effort)
    errors = sensitivities(subject.program, subject.known[:PROBED], machine.timed())
    table = {
        layer: {
            name: Choice(seconds, errors[layer][name])
            for name, seconds in by_precision.items()
            if math.isfinite(errors[layer][name])
        }
        for layer, by_precision in times.layers.items()
    }
    return Problem(table, borders(subject.program, batch, effort), times.rest)


def make(subject: Subject, problem: Problem, metric: str, budget: float) -> Planned:
    """The plan and its rivals.

    Args:
        metric: what the budget is in: "error", the relative error of the logits, or "agreement", the share of answers
            that may change.

    Raises:
        BadInputError: an unknown metric, a budget that is not possible, or a network that gives no logits.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    base = module.logits(subject.net, subject.known)
    if base.dim() != 2 or base.shape[1] < 2:
        raise BadInputError(
            f"the network must return logits [n, classes] of two classes or more, not {list(base.shape)}."
        )
    limit = budget if metric == "error" else error_for(budget, base)
    half = next(name for name in HALVES if all(name in choices for choices in problem.table.values()))
    plans = {
        "planned": planner.best_plan(problem, limit),
        "greedy": planner.tail_greedy(problem, half, limit),
        "half": planner.uniform(problem, half),
        "f32": planner.uniform(problem, "f32"),
    }
    turned = {name: disagreement_at(max(problem.error(plan), 1e-12), base) for name, plan in plans.items()}
    return Planned(problem, half, limit, plans, turned)


def measure(subject: Subject, plans: Mapping[str, Plan], batch: int, effort: Effort) -> dict[str, Measured]:
    """Run plans on the held-out images, and time them in turn on one thread."""
    exact, base = accuracy.wide(subject), module.logits(subject.net, subject.held)
    found = {name: execute.logits(subject.program, plan, subject.held) for name, plan in plans.items()}
    seconds = times(subject, plans, batch, effort)
    return {
        name: Measured(
            relative_error(logits, exact), accuracy.share(logits.argmax(1) == base.argmax(1)), seconds[name]
        )
        for name, logits in found.items()
    }


def times(subject: Subject, plans: Mapping[str, Plan], batch: int, effort: Effort) -> dict[str, float]:
    """Median seconds of a run of each plan, the plans in turn."""
    images = _batch(subject.held, batch)
    networks = {
        name: compile_network(subject.program, plan, batch, tune=effort.tuned) for name, plan in plans.items()
    }
    calls = {name: (lambda network=network: network.run(images)) for name, network in networks.items()}
    return timing.medians(timing.hot(calls, effort.rounds, effort.sample))


def _batch(x: Tensor, batch: int) -> np.ndarray:
    """So many images, repeated where there are fewer."""
    return np.ascontiguousarray(x[torch.arange(batch) % len(x)].numpy())
