"""The training of a stack of small nets: one rule, one batch size, many seeds, learning rates and strengths.

Base optimiser: w <- w − lr_t v, v <- momentum v + g + decay w (torch.optim.SGD's). At each look a net's loss over the
whole training set and its error on validation images are measured; a net whose loss has come down to the plan's `fit`
stops there, so that all are judged when they have learned about as much: between looks a net goes on below. The
weights of the best look by validation error are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from common.cluster.ranks import parts, place
from common.processes.cut import Cut
from common.processes.shares import from_first_, share
from common.tracking.record import Recorder
from projects.sam_batch_study.mlp import initial, logits, module, parameters
from projects.sam_batch_study.plan import LEVELS, Net, Outcome, Plan
from projects.sam_batch_study.rules import Rule, Stack, blocks, gradient
from projects.sam_batch_study.task import Order, Part, Task

CHUNK = 16384  # examples of one net between two looks at the stop flag, at most


class Replicas(pl.LightningModule):
    """K nets at once; each is a row of every buffer.

    Under `parallel.strategy=fsdp` a process keeps some columns of weights, velocity and copies; only a step puts the
    weights together.

    Args:
        rule: how all of them take their gradient.
        plan: how long.
        tasks: one per seed.
        hidden: widths of the hidden layers.
        nets: what each is.
        records: one per task, for the curve of its first net; or none.

    Raises:
        BadInputError: the processes of the training cannot share a perturbation batch.
    """

    averages_gradients = True  # over processes, in `rules`
    cuts_itself = True

    rows: Tensor
    velocity: Tensor
    best_rows: Tensor
    best_error: Tensor
    stopped_at: Tensor
    loss: Tensor
    norm: Tensor
    kept: Tensor
    crossed: Tensor

    def __init__(
        self,
        rule: Rule,
        plan: Plan,
        tasks: Sequence[Task],
        hidden: Sequence[int],
        nets: Sequence[Net],
        records: Sequence[Recorder] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.rule, self.plan, self.tasks = rule, plan, tasks
        self.own = rule.part(place().size)
        self.nets, self.records = tuple(nets), tuple(records)
        self.widths = (tasks[0].train.x[0].numel(), *hidden, tasks[0].classes)
        self.orders = {
            (net.owner, net.init): Order(tasks[net.owner].seed, net.init, len(tasks[0].train.y), rule.batch)
            for net in nets
        }
        self.first = [next(j for j, net in enumerate(nets) if net.owner == i) for i in range(len(tasks))]
        k = len(nets)
        self.cut = Cut(parameters(self.widths), *parts())
        rows = self.cut.own(
            torch.stack([initial(self.widths, tasks[net.owner].seed, net.init) for net in nets])
        )
        for name, value in {
            "rows": rows,
            "velocity": torch.zeros_like(rows),
            "best_rows": rows.clone(),
            "best_error": torch.full((k,), math.inf),
            "stopped_at": torch.zeros(k, dtype=torch.int64),
            "loss": torch.full((k,), math.inf),
            "norm": torch.zeros(k),
            "kept": torch.zeros(len(tasks), len(LEVELS), rows.shape[1]),
            "crossed": torch.zeros(len(tasks), len(LEVELS), dtype=torch.int64),
        }.items():
            self.register_buffer(name, value)
        self.cut.keep(self, "rows", "velocity", "best_rows", "kept")

    @property
    def chunk(self) -> int:
        """Steps of one ``training_step``, a divisor of the steps between looks."""
        most = max(1, min(self.plan.every, CHUNK // self.rule.batch))
        return next(size for size in range(most, 0, -1) if self.plan.every % size == 0)

    def training_step(self, batch: list[int], index: int) -> None:
        """The steps of these numbers, by every net that has not stopped."""
        alive = (self.stopped_at == 0).nonzero()[:, 0]
        for block in blocks(len(alive), self.own.batch):
            self._descend(alive[block], batch)
        if (batch[-1] + 1) % self.plan.every == 0:
            for j in alive.tolist():
                self._look(j, batch[-1] + 1)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """None of torch's: the velocity is a buffer."""
        return []

    def outcomes(self) -> list[Outcome]:
        """What became of each net."""
        return [self._outcome(j) for j in range(len(self.nets))]

    def weights(self, owner: int) -> dict[str, dict[str, Tensor]]:
        """Of the first net of a task: state dicts "last" and "loss 0.5", ...; "steps": when those were crossed."""
        row = self.cut.whole(self.rows[self.first[owner]])
        found = {"last": module(row, self.widths).state_dict(), "steps": {}}
        for level, value in enumerate(LEVELS):
            if self.crossed[owner, level]:
                name = f"loss {value:g}"
                kept = self.cut.whole(self.kept[owner, level])
                found[name] = module(kept, self.widths).state_dict()
                found["steps"][name] = self.crossed[owner, level].clone()
        return found

    def _outcome(self, j: int) -> Outcome:
        task, loss, updates = self.tasks[self.nets[j].owner], float(self.loss[j]), int(self.stopped_at[j])
        last, best = self.cut.whole(self.rows[j]), self.cut.whole(self.best_rows[j])
        return Outcome(
            train_loss=loss,
            fitted=self.plan.fit == 0 or loss <= self.plan.fit,
            updates=updates,
            norm=math.exp(float(self.norm[j]) / max(1, updates)),
            validation_error=self._error(last, task.validation),
            test_error=self._error(last, task.test),
            stopped_error=self._error(best, task.test),
            stopped_validation_error=self._error(best, task.validation),
        )

    def _descend(self, which: Int64[Tensor, " a"], steps: Sequence[int]) -> None:
        w, v, norm = self.rows[which], self.velocity[which], self.norm[which]
        nets = [self.nets[j] for j in which.tolist()]
        lr, rho = torch.tensor([[net.lr] for net in nets]), torch.tensor([net.rho for net in nets])
        seeds = tuple((self.tasks[net.owner].seed, net.init) for net in nets)
        stack = Stack(self.widths, rho, seeds)
        for k in steps:
            x, y = self._batch(nets, k)
            g, length = gradient(self.own, stack, self.cut.whole(w), x, y, k)
            g = self.cut.own(g)
            norm += length.clamp_min(1e-12).log()
            if self.plan.decay:
                g = g.add_(w, alpha=self.plan.decay)
            v.mul_(self.plan.momentum).add_(g)
            w.addcmul_(lr, v, value=-self.plan.rate(k))
        self.rows[which], self.velocity[which], self.norm[which] = w, v, norm

    def _batch(self, nets: Sequence[Net], step: int) -> tuple[Tensor, Tensor]:
        found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for net in nets:
            key = net.owner, net.init
            if key not in found:
                train, chosen = self.tasks[net.owner].train, share(self.orders[key](step), 0)
                found[key] = train.x[chosen].flatten(1), train.y[chosen]
        mine = [found[net.owner, net.init] for net in nets]
        return torch.stack([x for x, _ in mine]), torch.stack([y for _, y in mine])

    def _look(self, j: int, done: int) -> None:
        row, owner = self.cut.whole(self.rows[j]), self.nets[j].owner
        task = self.tasks[owner]
        loss = _of_first(loss_of(row, self.widths, task.train))
        error = self._error(row, task.look)
        self.loss[j] = loss
        if error < self.best_error[j]:
            self.best_error[j], self.best_rows[j] = error, self.rows[j]
        if self.plan.stops(loss, done):
            self.stopped_at[j] = done
        if j == self.first[owner]:
            self._keep(j, loss, done)
            if self.records:
                passes = done * self.rule.batch / len(task.train.y)
                self.records[owner].log(done, passes=passes, train_loss=loss, validation_error=error)

    def _keep(self, j: int, loss: float, done: int) -> None:
        owner = self.nets[j].owner
        for level, value in enumerate(LEVELS):
            if loss <= value and not self.crossed[owner, level]:
                self.crossed[owner, level], self.kept[owner, level] = done, self.rows[j]

    def _error(self, row: Tensor, part: Part) -> float:
        """Share of wrong answers; 1 for a net of NaN."""
        said = logits(row[None], self.widths, part.x.flatten(1)[None])[0]
        return _of_first(
            float((said.argmax(-1) != part.y).float().mean()) if bool(said.isfinite().all()) else 1.0
        )


def loss_of(row: Float[Tensor, " p"], widths: Sequence[int], part: Part) -> float:
    """Mean cross-entropy of one net over a part."""
    log_p = logits(row[None], widths, part.x.flatten(1)[None])[0].log_softmax(-1)
    return -float(log_p.gather(-1, part.y[:, None]).mean())


def _of_first(value: float) -> float:
    """What process 0 measured: what follows from it must follow on all."""
    box = torch.tensor(value, dtype=torch.float64)
    from_first_(box)
    return float(box)
