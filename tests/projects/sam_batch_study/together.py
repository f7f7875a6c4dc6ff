"""A ResNet trained as the study does, on however many processes: ``together.py OUT M STOP``.

A STOP of at least 0 is asked for in that step by the last process, and ends with 75. Else rank 0 writes OUT/left.pt:
outcome, and the weights at every crossing.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.cluster.ranks import place
from common.errors import RethesisError
from common.optim.module import SharpnessModule
from common.training import sharded, stop
from common.training.fit import fit
from projects.sam_batch_study.models import build
from projects.sam_batch_study.plan import Net, Plan
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.single import Setting, Single
from projects.sam_batch_study.sources import Batches, splits

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


def main(out: Path, m: int, wanted: int) -> None:
    here = place()
    rule = Rule("sam", 32, m, m)
    one = Setting(3, rule, PLAN, splits(3, IMAGES), IMAGES["look"], None, 0)
    torch.manual_seed(0)
    module = Single(Wide(build(RESNET, (1, 16, 16), 4)), Net(0, 0, 0.1, 0.1), one, keep=True)
    if wanted >= 0 and here.rank == here.size - 1:
        ask_at(wanted)
    folder = out if here.rank == 0 else out / f"rank {here.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    fit(module, Batches(one.data.train, rule.batch, PLAN.steps, 3, False), folder, guard_every=0)
    if here.rank == 0:
        torch.save({"outcome": asdict(module.outcome()), "weights": module.weights()}, out / "left.pt")


def ask_at(step: int) -> None:
    """As a signal that arrives in that step."""
    real = SharpnessModule.training_step

    def training_step(self: SharpnessModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == step:
            stop._flag.reason = "a test"
        real(self, batch, batch_idx)

    SharpnessModule.training_step = training_step


if __name__ == "__main__":
    torch.set_num_threads(1)
    sharded.BLOCK = 10  # as if the net were large
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    except RethesisError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
