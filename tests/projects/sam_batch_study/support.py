"""Small tasks and plans for the tests of the batch study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch

from common.study.config import compose
from projects.sam_batch_study.plan import Net, Plan
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.task import Task, task

IMAGES = {
    "source": "glyphs", "classes": 8, "size": 16, "train": 128, "validation": 64, "look": 32, "test": 96,
    "label_noise": 0.0, "augment": False, "workers": 0,
}  # fmt: skip
WIDTHS = (5, 7, 6, 4)
HIDDEN = (32, 32)
PLAN = Plan(steps=24, looks=6, warmup=0.2, momentum=0.9, decay=0.0, fit=0.0)


@cache
def small(seed: int, noise: float = 0.0) -> Task:
    """A task of 128 training images."""
    return task(seed, IMAGES | {"label_noise": noise})


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape: int, classes: int = WIDTHS[-1], seed: int = 0) -> torch.Tensor:
    """Classes."""
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def replicas(nets: Sequence[Net], rule: Rule, plan: Plan = PLAN, seeds: Sequence[int] = (0, 1)) -> Replicas:
    """A stack on the small tasks of these seeds."""
    return Replicas(rule, plan, [small(seed) for seed in seeds], HIDDEN, nets)


def run(module: Replicas) -> Replicas:
    """Train to the end, without Lightning."""
    for k in range(0, module.plan.steps, module.chunk):
        module.training_step(list(range(k, k + module.chunk)), 0)
    return module


def config(**sections: Mapping[str, Any]) -> dict[str, Any]:
    """The smoke scale's configuration on the small tasks, sections changed."""
    cfg = compose("sam_batch_study", "smoke")
    changes = {
        "images": IMAGES,
        "net": {"hidden": list(HIDDEN)},
        "train": {"steps": 24, "looks": 6, "fit": 0.0},
    }
    for name, section in (*changes.items(), *sections.items()):
        cfg[name] = cfg[name] | dict(section)
    return cfg
