"""What exact resume costs a sharpness-aware training, as a multiple of plain SGD's, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/sam_resume.py         (under a minute)

A perceptron 3072-1024-1024-10, 4.2 million weights, under `common.training.fit`. SGD is a LightningModule as anyone
writes it, the others are `SharpnessModule`s around the same SGD. A round times every arm, in an order that turns; a
ratio is the median over the rounds of (arm / SGD of that round), in wall time, because a checkpoint waits for the disk.

save      a checkpoint: the state collected, written with its SHA-256, fsynced and renamed.
resume    the same call of `fit` on a training of which nothing is left: digest, weights, both optimisers' states.
bytes     of the checkpoint. SAM adds the number of its steps; LookSAM one vector beside weights and momentum.

Bytes alone depend on no machine, and are promised.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.optim.module import SharpnessModule
from common.optim.rules import SAM, LookSAM
from common.optim.settings import Settings
from common.tracking.provenance import cpu_model
from common.training import checkpoint
from common.training.data import Keyed, StepData, StepSampler, loader
from common.training.fit import CHECKPOINTS, fit

INPUTS, CLASSES, BATCH, STEPS, ROUNDS = 3072, 10, 32, 4, 15
PROMISED = {"SAM": 1.01, "LookSAM": 1.52}
"""Bytes of a checkpoint over SGD's."""

Make = Callable[[], pl.LightningModule]


@dataclass(frozen=True)
class Times:
    """Seconds of one round of one arm."""

    save: float
    resume: float


class Points(StepData):
    """Random images."""

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches from step `start` on."""
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(BATCH, INPUTS, generator=draw), torch.randint(CLASSES, (BATCH,), generator=draw)
        return loader(
            Keyed(TensorDataset(x, y), seed=0), StepSampler(BATCH, BATCH, self.steps, 0, self.start)
        )


class Plain(pl.LightningModule):
    """Plain SGD, as one writes it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.net = perceptron(hidden)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return sgd(self.net)


class Sharp(SharpnessModule):
    """The same net with a sharpness-aware step."""

    def __init__(self, hidden: int, settings: Settings) -> None:
        super().__init__(settings)
        self.net = perceptron(hidden)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """Of a part of the batch."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def base_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return sgd(self.net)


def perceptron(hidden: int) -> nn.Sequential:
    """Two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(INPUTS, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, CLASSES),
    )


def sgd(net: nn.Module) -> torch.optim.SGD:
    """The optimiser, or base optimiser, of every arm."""
    return torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)


def arms(hidden: int) -> dict[str, Make]:
    """What is compared; SGD is the baseline."""
    return {
        "SGD": lambda: Plain(hidden),
        "SAM": lambda: Sharp(hidden, Settings(SAM(), m=BATCH, rho=0.05)),
        "LookSAM": lambda: Sharp(hidden, Settings(LookSAM(k=2), m=BATCH, rho=0.05)),
    }


def training(make: Make, out: Path) -> pl.LightningModule:
    """Train, or read back what is done already."""
    module = make()
    fit(module, Points(STEPS), out, guard_every=0, checkpoint_seconds=float("inf"))
    return module


def round_of(make: Make, module: pl.LightningModule, out: Path) -> Times:
    """One save and one resume."""
    started = time.perf_counter()
    module.trainer.save_checkpoint(out / "again.ckpt", weights_only=False)
    saved = time.perf_counter()
    training(make, out)
    return Times(saved - started, time.perf_counter() - saved)


def measure(hidden: int, rounds: int, folder: Path) -> bool:
    """Print seconds and ratios; False when a checkpoint is larger than promised."""
    made = arms(hidden)
    modules = {name: training(make, folder / name) for name, make in made.items()}
    times: dict[str, list[Times]] = {name: [] for name in made}
    names = list(made)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(round_of(made[name], modules[name], folder / name))
    size = {name: checkpoint.step_path(folder / name / CHECKPOINTS, STEPS).stat().st_size for name in names}
    base = times["SGD"]
    save, resume = (statistics.median(getattr(each, what) for each in base) for what in ("save", "resume"))
    print(f"{'SGD':8s} save {save:6.3f} s, resume {resume:6.3f} s, {size['SGD'] / 1e6:.1f} MB")
    kept = [
        verdict(name, times[name], base, size[name] / size["SGD"], promised)
        for name, promised in PROMISED.items()
    ]
    return all(kept)


def verdict(name: str, mine: list[Times], base: list[Times], larger: float, promised: float) -> bool:
    """Print an arm's ratios; False when its promise is broken."""
    save = statistics.median(a.save / b.save for a, b in zip(mine, base, strict=True))
    resume = statistics.median(a.resume / b.resume for a, b in zip(mine, base, strict=True))
    kept = larger <= promised
    print(
        f"{name:8s} save {save:6.2f} x, resume {resume:6.2f} x, bytes {larger:6.3f} x  "
        f"promised <= {promised:g}: {'kept' if kept else 'broken'}"
    )
    return kept


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    print(f"CPU: {cpu_model()}")
    with tempfile.TemporaryDirectory() as folder:
        kept = measure(1024, ROUNDS, Path(folder))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
