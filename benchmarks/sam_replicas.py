"""The stacked engine of projects/sam_batch_study against a plain Lightning loop over the same nets, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/sam_replicas.py       (under a minute)

Eight perceptrons 256-128-128-128-50 on 2,048 images, SGD and SAM (m = B), one thread. The loop is what a user writes:
a LightningModule with manual optimisation for SAM, a DataLoader, one net after another; the stack trains all eight.
A round times every arm; a ratio is the median over the rounds of (images per CPU-second, stack / loop).
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.tracking.provenance import cpu_model
from projects.sam_batch_study.mlp import initial, module
from projects.sam_batch_study.plan import Net, Plan
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import Rule
from projects.sam_batch_study.task import Part, Task

NETS, N, SIDE, CLASSES, HIDDEN, ROUNDS = 8, 2048, 16, 50, (128, 128, 128), 3
STEPS = {64: 96, 512: 24, 2048: 8}
PROMISED = {(64, "sgd"): 2.0, (64, "sam"): 2.0, (512, "sgd"): 1.0, (512, "sam"): 1.0}


class Loop(pl.LightningModule):
    """One net, as one writes it."""

    def __init__(self, net: nn.Module, rho: float) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.rho = net, rho

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def training_step(self, batch: list[Tensor], index: int) -> None:
        """SGD's step, or SAM's by hand."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
        if self.rho:
            self._second_pass(batch)
        optimizer.step()

    def _second_pass(self, batch: list[Tensor]) -> None:
        params = list(self.parameters())
        before = [p.detach().clone() for p in params]
        grads = [p.grad for p in params if p.grad is not None]
        with torch.no_grad():
            norm = torch.stack([g.norm() for g in grads]).norm()
            for p, g in zip(params, grads, strict=True):
                p.add_(g * (self.rho / norm))
        self.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self.net(batch[0]), batch[1]))
        with torch.no_grad():
            for p, w in zip(params, before, strict=True):
                p.copy_(w)


def loop(task: Task, batch: int, rho: float) -> Callable[[], None]:
    """All nets, one after another."""
    widths = (SIDE * SIDE, *HIDDEN, CLASSES)
    data = TensorDataset(task.train.x, task.train.y)

    def train() -> None:
        for number in range(NETS):
            trainer = pl.Trainer(
                max_steps=STEPS[batch], accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(
                Loop(module(initial(widths, 0, number), widths), rho), DataLoader(data, batch, shuffle=True)
            )

    return train


def stack(task: Task, batch: int, rho: float) -> Callable[[], None]:
    """All nets at once; the first look is due after twice as many steps."""
    kind = "sam" if rho else "sgd"
    nets = [Net(0, number, 0.05, rho) for number in range(NETS)]
    plan = Plan(STEPS[batch] * 2000, 1000, 0.0, 0.9, 0.0, 0.0)

    def train() -> None:
        made = Replicas(Rule(kind, batch, batch, batch), plan, [task], HIDDEN, nets)
        steps = list(range(STEPS[batch]))
        for k in range(0, len(steps), made.chunk):
            made.training_step(steps[k : k + made.chunk], 0)

    return train


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    draw = torch.Generator().manual_seed(0)
    part = Part(torch.randn(N, 1, SIDE, SIDE, generator=draw), torch.randint(CLASSES, (N,), generator=draw))
    task = Task(0, CLASSES, part, part, part, 64)
    print(f"CPU: {cpu_model()}")
    kept = True
    for batch in STEPS:
        for kind, rho in (("sgd", 0.0), ("sam", 0.1)):
            arms = {"loop": loop(task, batch, rho), "stack": stack(task, batch, rho)}
            speeds = [{name: _speed(arm, batch) for name, arm in arms.items()} for _ in range(ROUNDS)]
            ratio = statistics.median(each["stack"] / each["loop"] for each in speeds)
            fast, slow = (statistics.median(each[name] for each in speeds) for name in ("stack", "loop"))
            promised = PROMISED.get((batch, kind))
            kept &= promised is None or ratio >= promised
            promise = (
                ""
                if promised is None
                else f"  promised >= {promised:g}: {'kept' if ratio >= promised else 'broken'}"
            )
            print(
                f"{kind} B = {batch:5d}: {fast:9,.0f} images/CPU-s, loop {slow:9,.0f}: {ratio:5.2f} x{promise}"
            )
    return 0 if kept else 1


def _speed(arm: Callable[[], None], batch: int) -> float:
    started = time.process_time()
    arm()
    return NETS * STEPS[batch] * batch / (time.process_time() - started)


if __name__ == "__main__":
    sys.exit(main())
