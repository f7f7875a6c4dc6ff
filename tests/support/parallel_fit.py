"""A small training in float64 for the tests of ``fit`` on several processes.

``python parallel_fit.py OUT STEPS DROPOUT [KIND]`` prints its place, then rank 0 writes OUT/weights.pt.
SIGUSR1 (or the environment's deadline) stops it with 75.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset

from common.cluster.ranks import place
from common.errors import RethesisError
from common.optim.module import SharpnessModule
from common.optim.rules import ASAM, MSAM, SAM, LookSAM, RandomDirection
from common.optim.settings import Settings
from common.processes.gather import gathered
from common.training import sharded, stop
from common.training.data import Keyed, StepData, StepSampler, loader, shared
from common.training.fit import fit
from common.training.seeds import seed_everything

BATCH = 12


class Net(pl.LightningModule):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.net = network(dropout)

    def training_step(self, batch, index):
        time.sleep(float(os.environ.get("FIT_SLEEP", "0")))
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Grouped(Net):
    """Groups that are not in the module's order, and a layer that is not trained."""

    def __init__(self, dropout: float) -> None:
        super().__init__(dropout)
        self.net[3].bias.requires_grad_(False)

    def training_step(self, batch, index):
        if str(index) == os.environ.get("FIT_STOP"):
            stop._flag.reason = "a test"
        return super().training_step(batch, index)

    def configure_optimizers(self):
        first, last = self.net[0], self.net[3]
        groups = [{"params": [last.weight, first.bias]}, {"params": [first.weight], "weight_decay": 0.01}]
        return torch.optim.Adam(groups, lr=1e-2)


class Diverging(Net):
    """Of which one process sees a loss that is no number."""

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        return loss * torch.nan if index == 4 and place().rank == 1 else loss


class Pairs(Net):
    """A loss of all pairs of a batch."""

    def training_step(self, batch, index):
        x, y = (gathered(part) for part in (self.net(batch[0]), batch[1]))
        gaps = ((x - x.T).abs() - (y - y.T).abs()).square()
        return gaps.logsumexp((0, 1)) + x.square().mean()


class Sharp(SharpnessModule):
    """On two processes, each with 6 of 12 examples."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.net = network(0.0)

    def loss(self, batch):
        time.sleep(float(os.environ.get("FIT_SLEEP", "0")) / 2)
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def base_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9)


class Steps(Net):
    """Manual optimisation that knows nothing of parts."""

    def __init__(self, dropout: float) -> None:
        super().__init__(dropout)
        self.automatic_optimization = False


class Data(StepData):
    divides = True

    def train_dataloader(self):
        x = torch.randn(60, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        samples = Keyed(TensorDataset(x, x.sin().sum(1, keepdim=True)), seed=0)
        return loader(samples, shared(StepSampler(60, BATCH, self.steps, seed=3, start=self.start)))


class Whole(Data):
    divides = False


KINDS: dict[str, Callable[[float], pl.LightningModule]] = {
    "plain": Net,
    "groups": Grouped,
    "nan": Diverging,
    "pairs": Pairs,
    "whole": Net,
    "sam": lambda _: Sharp(Settings(SAM(), BATCH, 0.1)),
    # perturbation batches of half of the examples, spread over both processes where weights are sharded
    "halves": lambda _: Sharp(Settings(ASAM(0.01), BATCH // 2, 0.1, chunk=3, clip=0.5)),
    "look": lambda _: Sharp(Settings(LookSAM(k=3), BATCH, 0.1)),
    # a first pass without gradient, and none at all
    "random": lambda _: Sharp(Settings(RandomDirection(5), BATCH, 0.1)),
    "momentum": lambda _: Sharp(Settings(MSAM(), BATCH, 0.1)),
    "steps": Steps,
    "odd": lambda _: Sharp(Settings(SAM(), 3, 0.1)),
}


def network(dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)).double()


def main(out: Path, steps: int, dropout: float, kind: str = "plain") -> int:
    here = place()
    print(here.rank, here.size, here.local_rank, here.starter, flush=True)
    seed_everything(0)
    if kind not in ("random", "momentum"):  # those: one unit, which stays whole after a pass without gradient
        sharded.BLOCK = 10  # every layer of this small net is a unit of its own
    module = KINDS[kind](dropout)
    folder = out if here.rank == 0 else out / f"rank{here.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    data = Whole(steps) if kind == "whole" else Data(steps)
    guard_every = 0 if isinstance(module, Sharp) else 1
    try:
        fit(module, data, folder, checkpoint_seconds=float("inf"), guard_every=guard_every)
    except RethesisError as error:
        print(error, flush=True)
        return error.exit_code
    if here.rank == 0:
        torch.save(module.net.state_dict(), out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
