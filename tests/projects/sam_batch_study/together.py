"""Nets trained as the study does, on however many processes, in float64.

``together.py OUT single M STOP`` trains a ResNet. A STOP of at least 0 is asked for in that step by the last process,
and ends with 75. Else rank 0 writes OUT/left.pt: outcome, and the weights at every crossing.
``together.py OUT stack STOP`` trains perceptrons by each rule; rank 0 writes OUT/left.pt: rule -> the stack's buffers.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from common.cluster.ranks import parts, place
from common.errors import RethesisError
from common.optim.module import SharpnessModule
from common.training import sharded, stop
from common.training.data import StepIndices
from common.training.fit import fit
from projects.sam_batch_study.mlp import parameters
from projects.sam_batch_study.models import build
from projects.sam_batch_study.plan import Net, Plan
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.single import Setting, Single
from projects.sam_batch_study.sources import Batches, splits
from projects.sam_batch_study.task import Part, Task, task

IMAGES = {
    "source": "glyphs", "classes": 4, "size": 16, "train": 64, "validation": 32, "look": 16, "test": 32,
    "label_noise": 0.0, "augment": False,
}  # fmt: skip
RESNET = {"kind": "gn_resnet", "width": 4, "blocks": [1, 1], "chunk": None}
PLAN = Plan(steps=12, looks=6, warmup=0.2, momentum=0.9, decay=0.01, fit=0.0)


class Wide(nn.Module):
    """A net in float64, for images in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


RULES = {
    "sgd": Rule("sgd", 32, 32, 32),
    "sam": Rule("sam", 32, 8, 8),
    "a part perturbs": Rule("sam", 32, 16, 4),
    "random": Rule("random", 32, 32, 32),
    "penalty": Rule("penalty", 32, 16, 16, 0.7),
}


def stack(out: Path, wanted: int) -> None:
    here = place()
    torch.set_default_dtype(torch.float64)
    if wanted >= 0 and here.rank == here.size - 1:
        ask_at(Replicas, wanted)
    nets = [Net(0, 0, 0.1, 0.1), Net(0, 1, 0.1, 0.2), Net(1, 0, 0.2, 0.1)]
    tasks, left = [wide(task(seed, IMAGES)) for seed in (3, 4)], {}
    for name, rule in RULES.items():
        module = Replicas(rule, PLAN, tasks, (16, 12), nets).double()
        fit(
            module, StepIndices(PLAN.steps, module.chunk, divides=True), own_folder(out) / name, guard_every=0
        )
        assert (
            module.rows.shape[1] * parts()[0]
            >= parameters(module.widths)
            > module.rows.shape[1] * (parts()[0] - 1)
        )
        left[name] = module.state_dict()
    if here.rank == 0:
        torch.save(left, out / "left.pt")


def wide(one: Task) -> Task:
    """The same images in float64."""
    parts = {name: getattr(one, name) for name in ("train", "validation", "test")}
    return replace(one, **{name: Part(part.x.double(), part.y) for name, part in parts.items()})


def own_folder(out: Path) -> Path:
    """Where this process writes."""
    folder = out if place().rank == 0 else out / f"rank {place().rank}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def single(out: Path, m: int, wanted: int) -> None:
    here = place()
    rule = Rule("sam", 32, m, m)
    one = Setting(3, rule, PLAN, splits(3, IMAGES), IMAGES["look"], None, 0)
    torch.manual_seed(0)
    module = Single(Wide(build(RESNET, (1, 16, 16), 4)), Net(0, 0, 0.1, 0.1), one, keep=True)
    if wanted >= 0 and here.rank == here.size - 1:
        ask_at(SharpnessModule, wanted)
    batches = Batches(one.data.train, rule.batch, PLAN.steps, 3, False)
    fit(module, batches, own_folder(out), guard_every=0)
    if here.rank == 0:
        torch.save({"outcome": asdict(module.outcome()), "weights": module.weights()}, out / "left.pt")


def ask_at(kind: type[pl.LightningModule], step: int) -> None:
    """As a signal that arrives in that step."""
    real = kind.training_step

    def training_step(self: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == step:
            stop._flag.reason = "a test"
        real(self, batch, batch_idx)

    kind.training_step = training_step


if __name__ == "__main__":
    torch.set_num_threads(1)
    sharded.BLOCK = 10  # as if the net were large
    try:
        path, kind, *numbers = sys.argv[1:]
        (stack if kind == "stack" else single)(Path(path), *map(int, numbers))
    except RethesisError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
