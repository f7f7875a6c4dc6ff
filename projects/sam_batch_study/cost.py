"""Stage `cost`: what a step of each method costs beside one of SGD, in one process and one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from common.study.model import Member, Metrics
from projects.sam_batch_study.mlp import initial
from projects.sam_batch_study.rules import Stack, gradient, rule_of
from projects.sam_batch_study.task import Order, Task, task


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Rounds of one step of every method; a ratio is the median over the rounds of (method / SGD of that round).

    Metrics: `step_ratio`, in CPU time; a fresh process is a replicate.
    """
    first = members[0]
    batch, options = int(first.axes["batch"]), first.cfg["cost"]
    data = task(int(first.axes["seed"]), first.cfg["images"])
    sgd = {"kind": "sgd", "m": None, "parts": 1, "sub_parts": 1, "share": 1.0}
    steps = [
        stepper(data, tuple(first.cfg["net"]["hidden"]), rule, batch)
        for rule in (sgd, *(member.cfg["rule"] for member in members))
    ]
    rounds = [[_seconds(step) for step in steps] for _ in range(int(options["rounds"]) + 2)][2:]
    return [
        {"step_ratio": statistics.median(times[place] / times[0] for times in rounds)}
        for place in range(1, len(steps))
    ]


def stepper(
    data: Task, hidden: Sequence[int], options: Mapping[str, Any], batch: int
) -> Callable[[], object]:
    """A function that makes one step of one net."""
    rule, widths = rule_of(options, batch), (data.train.x[0].numel(), *hidden, data.classes)
    chosen = Order(data.seed, 0, len(data.train.y), batch)(0)
    x, y = data.train.x[chosen].flatten(1)[None], data.train.y[chosen][None]
    w, stack = initial(widths, data.seed)[None], Stack(widths, torch.tensor([0.1]), ((data.seed, 0),))
    v = torch.zeros_like(w)

    def step() -> None:
        g, _ = gradient(rule, stack, w, x, y, 0)
        v.mul_(0.9).add_(g)
        w.add_(v, alpha=-1e-4)

    return step


def _seconds(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start
