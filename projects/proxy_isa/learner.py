"""The LightningModule: an embedder, a loss whose proxies learn at their own rate, and looks at held-out classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from common.errors import NonFiniteError, unknown
from common.metrics.retrieval import Retrieval, retrieval
from common.processes.gather import gathered
from common.tracking.record import Recorder
from projects.proxy_isa.diagnostics import diagnose
from projects.proxy_isa.embedder import Embedder
from projects.proxy_isa.images import Images, parts
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.task import Task

EXAMPLES = 512  # embedded in one pass
KEY = "proxy_isa"
DECAYS = ("cosine", "step", "none")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Plan:
    """Steps, and the optimiser: with a learning rate for the embedder and one for the proxies.

    Attributes:
        optimizer: "adam" (weight decay as a gradient) or "adamw" (decoupled).
        warmup: steps in which head and proxies learn alone.
        decay: of both rates: "cosine" to 0 at the end, "step" (times `gamma` at each multiple of `decay_every` steps)
            or "none".
    """

    steps: int
    every: int
    lr: float
    proxy_lr: float
    weight_decay: float
    clip: float
    decay: str = "none"
    decay_every: int = 1
    gamma: float = 1.0
    optimizer: str = "adam"
    warmup: int = 0

    def rate(self, step: int) -> float:
        """What the rates are multiplied by at a step.

        Raises:
            BadInputError: an unknown decay.
        """
        if self.decay not in DECAYS:
            raise unknown("train.decay", self.decay, DECAYS)
        if self.decay == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.gamma ** (step // self.decay_every) if self.decay == "step" else 1.0

    def body_rate(self, step: int) -> float:
        """The same for the features, which wait while head and proxies warm up."""
        return self.rate(step) if step >= self.warmup else 0.0


@dataclass
class Seen:
    """What the looks found.

    Attributes:
        held: MAP@R on the held-out classes at each look.
        test: MAP@R on the test classes at each look, where they are watched; nothing is chosen by it here.
        best: the embedder's weights at the look with the highest `held`.
        weight_at_half: smallest class weight of Proxy-ISA at the first look past half of the training; 1 without.
        hard: share of the positive pairs that are hard, at each look since Proxy-ISA's filter is open.
    """

    best: dict[str, Tensor]
    held: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    weight_at_half: float = 1.0
    hard: list[float] = field(default_factory=list)

    def hard_share(self) -> float:
        """Mean of `hard`; 0 without."""
        return sum(self.hard) / len(self.hard) if self.hard else 0.0


class Learner(pl.LightningModule):
    """One training.

    Args:
        embedder: images to the unit sphere.
        loss: (embeddings, labels) -> scalar.
        plan: how long, and how.
        held: images of classes that are not trained on.
        test: whose test images are watched at each look, or None.
        record: for the curve, or None.
    """

    def __init__(
        self,
        embedder: Embedder,
        loss: nn.Module,
        plan: Plan,
        held: Images,
        test: Task | None,
        record: Recorder | None,
    ) -> None:
        super().__init__()
        self.embedder, self.loss, self.plan = embedder, loss, plan
        self.held, self.test, self.record = held, test, record
        self.seen = Seen(copied(embedder))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch: of all its pairs, wherever they were embedded (Proxy-ISA sees to that by itself)."""
        images, labels = batch
        embeddings = self.embedder(images)
        if not isinstance(self.loss, ProxyISA):
            embeddings, labels = gathered(embeddings), gathered(labels)
        return self.loss(embeddings, labels)

    def configure_optimizers(self) -> Any:
        """Groups of features, head and, if there are any, proxies. The rates change with each step.

        Raises:
            BadInputError: an unknown optimiser.
        """
        plan = self.plan
        if plan.optimizer not in OPTIMIZERS:
            raise unknown("train.optimizer", plan.optimizer, OPTIMIZERS)
        parts = [list(part.parameters()) for part in (self.embedder.features, self.embedder.head, self.loss)]
        groups: list[dict[str, Any]] = [{"params": params} for params in parts if params]
        if parts[-1]:
            groups[-1]["lr"] = plan.proxy_lr
        make = OPTIMIZERS[plan.optimizer]
        optimizer = make(groups, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
        rates = [plan.body_rate, *[plan.rate] * (len(groups) - 1)]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip each gradient's values, as released."""
        nn.utils.clip_grad_value_(self.parameters(), self.plan.clip)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look, where it is due."""
        done = batch_idx + 1
        if done % self.plan.every and done != self.plan.steps:
            return
        seen = self.seen
        held = retrieval(embed(self.embedder, self.held), self.held.y, ks=(1,), unmatched="exclude")
        seen.held.append(held.means()["map_at_r"])
        if self.test is not None:
            seen.test.append(scores([self.embedder], self.test).means()["map_at_r"])
        if seen.held[-1] >= max(seen.held):
            seen.best = copied(self.embedder)
        found = self._diagnosis(batch)
        if 2 * done >= self.plan.steps and 2 * (done - self.plan.every) < self.plan.steps:
            seen.weight_at_half = found.get("class_weight_min", 1.0)
        if isinstance(self.loss, ProxyISA) and done > self.loss.rule.filter:
            seen.hard.append(found["positive_hard"])
        if self.record is not None:
            watched = {"test_map_at_r": seen.test[-1]} if seen.test else {}
            self.record.log(done, loss=float(outputs["loss"]), map_at_r=seen.held[-1], **watched, **found)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what was seen."""
        checkpoint[KEY] = dict(vars(self.seen))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        self.seen = Seen(**checkpoint[KEY])

    def _diagnosis(self, batch: Any) -> dict[str, float]:
        if not isinstance(self.loss, ProxyISA):
            return {}
        images, labels = batch
        self.embedder.eval()  # a look must not reach a batch norm's running statistics
        with torch.no_grad():
            found = diagnose(self.loss, gathered(self.embedder(images)), gathered(labels))
        self.embedder.train()
        return found


@torch.no_grad()
def embed(embedder: nn.Module, images: Images) -> Float[Tensor, "n d"]:
    """Embeddings of all images, in evaluation mode.

    Raises:
        NonFiniteError: NaN or infinite ones.
    """
    was = embedder.training
    embedder.eval()
    device = next(embedder.parameters()).device
    found = [embedder(part.to(device)).cpu() for part in parts(images, EXAMPLES)]
    embedder.train(was)
    result = torch.cat(found)
    if not bool(result.isfinite().all()):
        raise NonFiniteError("an embedding is NaN or infinite: the network diverged, lower the rate.")
    return result


def scores(embedders: Sequence[nn.Module], task: Task) -> Retrieval:
    """How well test images find those of their class, by the concatenated embeddings of several models."""
    gallery = None if task.gallery is None else [embed(each, task.gallery) for each in embedders]
    return found(task, [embed(each, task.test) for each in embedders], gallery)


def found(
    task: Task, queries: Sequence[Float[Tensor, "q d"]], gallery: Sequence[Float[Tensor, "n d"]] | None
) -> Retrieval:
    """The same from each model's embeddings of the test images, and of the gallery where there is one."""
    if task.gallery is None or gallery is None:
        return retrieval(together(queries), task.test.y, ks=(1,), unmatched="exclude")
    searched = together(gallery), task.gallery.y
    return retrieval(together(queries), task.test.y, *searched, ks=(1,), unmatched="exclude")


def together(parts: Sequence[Float[Tensor, "n d"]]) -> Float[Tensor, "n e"]:
    """Concatenated, of length one."""
    return functional.normalize(torch.cat(list(parts), 1), dim=1)


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Its state dict in memory of its own."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
