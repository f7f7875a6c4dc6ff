"""The LightningModule: a classifier trained by SGD with Nesterov momentum, warmed up, then cosine to zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Sampler

from common.tracking.record import Recorder
from common.training.data import Key, StepData, StepSampler, shared
from projects.fp16_cnn.letters import Labelled

EXAMPLES = 400  # images in one pass of an evaluation


@dataclass(frozen=True)
class Schedule:
    """How long, and how fast.

    Attributes:
        steps: updates.
        lr: the largest learning rate.
        warmup: the share of the steps in which the rate rises to it.
        weight_decay: of all weights.
        looks: at the validation images.
    """

    steps: int
    lr: float
    warmup: float
    weight_decay: float
    looks: int

    def rate(self, step: int) -> float:
        """What the learning rate is multiplied by."""
        rising = max(1.0, self.warmup * self.steps)
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1.0, self.steps - rising))))


class Classifier(pl.LightningModule):
    """One training.

    Args:
        net: images to logits.
        schedule: how it is trained.
        watched: images whose accuracy is recorded at each look.
        record: for the curve.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, watched: Labelled, record: Recorder) -> None:
        super().__init__()
        self.net, self.schedule, self.watched, self.record = net, schedule, watched, record

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        x, y = batch
        return functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        """SGD; the rate changes with each step."""
        schedule = self.schedule
        sgd = torch.optim.SGD(
            self.net.parameters(),
            schedule.lr,
            momentum=0.9,
            weight_decay=schedule.weight_decay,
            nesterov=True,
        )
        rates = torch.optim.lr_scheduler.LambdaLR(sgd, schedule.rate)
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record loss and validation accuracy, where it is due."""
        done, every = batch_idx + 1, max(1, self.schedule.steps // self.schedule.looks)
        self.record.progress(done, self.schedule.steps)
        if done % every == 0 or done == self.schedule.steps:
            right = accuracy(self.net, self.watched)
            self.record.log(done, loss=float(outputs["loss"]), validation_accuracy=right)


class Batches(StepData):
    """Shuffled passes over images in memory, a pure function of (seed, step)."""

    divides = True

    def __init__(self, images: Labelled, batch: int, steps: int, seed: int) -> None:
        super().__init__(steps)
        self.images, self.batch, self.seed = images, batch, seed

    def train_dataloader(self) -> _FromStep:
        """The batches from step `start` on: (float32 [batch, 1, h, w], int64 [batch])."""
        images = self.images
        sampler = StepSampler(len(images.y), self.batch, self.steps, self.seed, self.start)
        return _FromStep(images, shared(sampler), self.steps)


class _FromStep:
    def __init__(self, images: Labelled, sampler: Sampler[list[Key]], steps: int) -> None:
        self.images, self.sampler, self.steps = images, sampler, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for keys in self.sampler:
            chosen = torch.tensor([index for _, index in keys])
            yield self.images.x[chosen], self.images.y[chosen]


@torch.no_grad()
def logits(net: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    """In evaluation mode, on the net's device, `EXAMPLES` images at a time."""
    was = net.training
    net.eval()
    device = next(net.parameters()).device
    found = torch.cat([net(part.to(device)).cpu() for part in x.split(EXAMPLES)])
    net.train(was)
    return found


def accuracy(net: nn.Module, images: Labelled) -> float:
    """Share of the images that the net names right."""
    return float((logits(net, images.x).argmax(1) == images.y).float().mean())
