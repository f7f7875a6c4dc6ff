"""A small training in float64 for the tests of ``fit_parallel``: ``python parallel_fit.py OUT STEPS DROPOUT``.

Prints ``rank size``, then rank 0 writes OUT/weights.pt. SIGUSR1 (or the environment's deadline) stops it with 75.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import TensorDataset

from common.cluster.ranks import place
from common.errors import StoppedError
from common.training.data import Keyed, StepData, StepSampler, loader
from common.training.parallel import Shares, fit_parallel
from common.training.seeds import seed_everything

BATCH = 12


class Net(pl.LightningModule):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1)).double()

    def training_step(self, batch, index):
        time.sleep(float(os.environ.get("FIT_SLEEP", "0")))
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Data(StepData):
    def train_dataloader(self):
        x = torch.randn(60, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        samples = Keyed(TensorDataset(x, x.sin().sum(1, keepdim=True)), seed=0)
        return loader(samples, Shares(StepSampler(60, BATCH, self.steps, seed=3, start=self.start)))


def main(out: Path, steps: int, dropout: float) -> int:
    here = place()
    print(here.rank, here.size, here.local_rank, here.starter, flush=True)
    seed_everything(0)
    net = Net(dropout)
    torch.manual_seed(here.rank)  # dropout masks of different ranks differ
    folder = out if here.rank == 0 else out / f"rank{here.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fit_parallel(net, Data(steps), folder, checkpoint_seconds=float("inf"))
    except StoppedError as error:
        print(error, flush=True)
        return error.exit_code
    if here.rank == 0:
        torch.save(net.state_dict(), out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
