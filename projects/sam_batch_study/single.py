"""The same study for real nets: one after another, by `common.optim`'s optimiser, which is the rules' reference.

What `replicas` does for a stack of perceptrons, `Single` does for one net of `models.build`, and means the same by it.
Losses and errors at a look are of the net in evaluation mode and of images without augmentation. A net that diverges
(a gradient or weight that is not finite) is an outcome, not an error: it stops, its last errors are 1 and its loss is
infinite; weights and errors of its best look are kept, and those weights stand for its last ones, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from common.errors import BadInputError, NonFiniteError
from common.files import digest
from common.optim import vectors
from common.optim.module import SharpnessModule
from common.optim.rules import SAM, Base, GradientNormPenalty, RandomDirection
from common.optim.settings import Settings
from common.optim.sharpness import Report
from common.processes.parts import load_whole
from common.processes.shares import from_first_
from common.study.model import Member
from common.tracking.record import Recorder
from common.training.fit import fit
from common.training.seeds import stream
from projects.sam_batch_study.measure import EXAMPLES, copied, measure
from projects.sam_batch_study.models import build
from projects.sam_batch_study.plan import LEVELS, Net, Outcome, Plan, plan_of
from projects.sam_batch_study.rules import Rule, rule_of
from projects.sam_batch_study.sources import Batches, Chosen, Splits, splits
from projects.sam_batch_study.trained import Trained

PROGRESS = "progress"


@dataclass(frozen=True)
class Setting:
    """What the nets of one seed have in common.

    Attributes:
        seed: of data, order, directions.
        rule, plan: how they are trained, and how long.
        data: what on.
        look: validation images at a look.
        chunk: examples in one pass, at most; None: no bound.
        workers: processes that load images.
    """

    seed: int
    rule: Rule
    plan: Plan
    data: Splits
    look: int
    chunk: int | None
    workers: int


@dataclass
class Progress:
    """What a resume needs beside weights and optimiser: numbers, and weights of earlier steps.

    Attributes:
        best, best_error: the look with the lowest validation error; before any, the initial weights.
        levels, crossed: level of training loss -> weights at its first crossing, and the step.
        loss: over the training set, at the last look.
        log_norm: sum over the updates of log ‖g_1‖.
        updates: made, of a net that has stopped; 0 until then.
        errors: of a net that has stopped: on validation and test images, and both of `best`.
    """

    best: dict[str, Tensor]
    best_error: float = math.inf
    levels: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    crossed: dict[str, int] = field(default_factory=dict)
    loss: float = math.inf
    log_norm: float = 0.0
    updates: int = 0
    errors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)


class Single(SharpnessModule):
    """One net.

    Args:
        model: with its initial weights.
        net: its learning rate and strength.
        setting: all the rest.
        keep: keep the weights at the crossings of `LEVELS`.
        record: for its curve, or None.
    """

    def __init__(
        self, model: nn.Module, net: Net, setting: Setting, keep: bool = False, record: Recorder | None = None
    ) -> None:
        super().__init__(settings_of(setting.rule, net, setting.seed, setting.chunk))
        self.model, self.net, self.setting = model, net, setting
        self.keep, self.record = keep, record
        self.progress = Progress(copied(model))
        self._length = 0.0

    def loss(self, batch: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        x, y = batch
        return functional.cross_entropy(self.model(x), y)

    def base_optimizer(self) -> SGD:
        """SGD with momentum; the weight decay stays outside the perturbation."""
        plan = self.setting.plan
        return SGD(self.model.parameters(), lr=self.net.lr, momentum=plan.momentum, weight_decay=plan.decay)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The plan's."""
        return LambdaLR(optimizer, self.setting.plan.rate)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One step, and a look where it is due; nothing for a net that has stopped."""
        if not self.progress.updates:
            try:
                super().training_step(batch, batch_idx)
            except NonFiniteError:
                self._diverge(batch_idx)
            else:
                if (batch_idx + 1) % self.setting.plan.every == 0:
                    self._look(batch_idx + 1)
        if self.progress.updates:
            self.trainer.should_stop = True

    def on_report(self, report: Report, step: int) -> None:
        """Add ‖g_1‖; where a rule divides by none, the norm of the gradient that the step took."""
        length = report.norm if self.setting.rule.kind in ("sam", "penalty") else self._length
        self.progress.log_norm += math.log(max(length, 1e-12))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the progress."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[PROGRESS] = dict(vars(self.progress))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the progress back."""
        super().on_load_checkpoint(checkpoint)
        self.progress = Progress(**checkpoint[PROGRESS])

    def outcome(self) -> Outcome:
        """What became of the net, once it has stopped."""
        progress, fit_loss = self.progress, self.setting.plan.fit
        validation, test, best_validation, best_test = progress.errors
        return Outcome(
            train_loss=progress.loss,
            fitted=fit_loss == 0 or progress.loss <= fit_loss,
            updates=progress.updates,
            norm=math.exp(progress.log_norm / max(1, progress.updates)),
            validation_error=validation,
            test_error=test,
            stopped_error=best_test,
            stopped_validation_error=best_validation,
        )

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """State dicts "last" and "loss 0.5", ...; "steps": when those were crossed. After divergence: the best."""
        steps = {name: torch.tensor(step) for name, step in self.progress.crossed.items()}
        return {"last": copied(self.model), "steps": steps, **self.progress.levels}

    def _descend(self) -> None:
        """The base optimiser's step, between two checks: what is not finite must reach no checkpoint."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._length = vectors.norm(gradients)
        if not math.isfinite(self._length):
            raise NonFiniteError(f"the norm of the gradient became {self._length}.")
        super()._descend()
        if not math.isfinite(vectors.norm([p.detach() for p in self.model.parameters()])):
            raise NonFiniteError("a weight is not finite after a step.")

    def _look(self, done: int) -> None:
        progress, plan, data = self.progress, self.setting.plan, self.setting.data
        progress.loss, _ = self._measure(data.train)
        _, error = self._measure(data.validation.first(self.setting.look))
        if self.record is not None:
            passes = done * self.setting.rule.batch / len(data.train)
            self.record.log(done, passes=passes, train_loss=progress.loss, validation_error=error)
        if not math.isfinite(progress.loss):
            self._diverge(done)
            return
        if error < progress.best_error:
            progress.best_error, progress.best = error, copied(self.model)
        for level in LEVELS if self.keep else ():
            name = f"loss {level:g}"
            if progress.loss <= level and name not in progress.crossed:
                progress.crossed[name], progress.levels[name] = done, copied(self.model)
        if plan.stops(progress.loss, done):
            self._finish(done)

    def _finish(self, done: int) -> None:
        """The last errors, while the net is still on its device."""
        last, errors = copied(self.model), self._errors()
        load_whole(self.model, self.progress.best)
        self.progress.errors, self.progress.updates = (*errors, *self._errors()), done
        load_whole(self.model, last)

    def _diverge(self, done: int) -> None:
        """Back to the best weights, which are finite, as those of a checkpoint must be; done is at least 1."""
        progress = self.progress
        load_whole(self.model, progress.best)
        progress.errors, progress.updates = (1.0, 1.0, *self._errors()), max(1, done)
        progress.loss = math.inf

    def _errors(self) -> tuple[float, float]:
        """On validation and test images."""
        data = self.setting.data
        return self._measure(data.validation)[1], self._measure(data.test)[1]

    def _measure(self, part: Chosen) -> tuple[float, float]:
        batch, workers = self.setting.chunk or EXAMPLES, self.setting.workers
        numbers = measure(self.model, part, self.device, batch, workers)
        found = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        from_first_(found)  # what follows from it must follow on all processes
        loss, error = found.tolist()
        return loss, error


def train_singly(members: Sequence[Member], wanted: Sequence[Sequence[Net]], part: str = "") -> list[Trained]:
    """Train the nets that each member wants, one after another, or continue.

    Checkpoints are in each member's own folder, below `part`/net-0, net-1, ...; one that has ended is only read.

    Args:
        members: of one process.
        wanted: per member, one or more; `owner` is the member's number.
        part: a name, where a stage trains more than once; curves are recorded for the part without one.
    """
    return [_member(member, nets, part) for member, nets in zip(members, wanted, strict=True)]


def settings_of(rule: Rule, net: Net, seed: int, chunk: int | None) -> Settings:
    """The rule of this study in terms of `common.optim`.

    Raises:
        BadInputError: `chunk` does not divide a larger perturbation batch or its part that perturbs; or the penalty,
            which needs both gradients of the same examples, is to perturb with a part.
    """
    if rule.kind in ("sgd", "random"):
        bound = _bound(chunk, rule.batch, rule.batch)
        if rule.kind == "sgd":
            return Settings(Base(), rule.batch, chunk=bound)
        direction = RandomDirection(stream(seed, "direction", net.init))
        return Settings(direction, rule.batch, net.rho, chunk=bound)
    if net.rho <= 0:
        raise BadInputError(f"rule.kind = {rule.kind} needs rho > 0, not {net.rho}; sgd is the one without.")
    kind = SAM() if rule.kind == "sam" else GradientNormPenalty(rule.share * net.rho)
    sub = None if rule.sub == rule.m else rule.sub
    return Settings(kind, rule.m, net.rho, chunk=_bound(chunk, rule.m, rule.sub), sub=sub)


def _member(member: Member, nets: Sequence[Net], part: str) -> Trained:
    cfg, seed, batch = member.cfg, int(member.axes["seed"]), int(member.axes["batch"])
    setting = _setting(cfg, seed, batch)
    outcomes: list[Outcome] = []
    weights: Mapping[str, Mapping[str, Tensor]] = {}
    with nullcontext() if part else Recorder(member.out) as record:
        for j, net in enumerate(nets):
            torch.manual_seed(stream(seed, "initial weights", net.init))
            model, mine = build(cfg["net"], setting.data.shape, setting.data.classes), None if j else record
            one = Single(model, net, setting, j == 0, mine)
            fit(
                one,
                _batches(cfg, setting, net),
                member.out / part / f"net-{j}",
                records=[mine] if mine else [],
                identity=f"{seed} {digest([asdict(net)])[:16]}",
                device=str(cfg["device"]),
                guard_every=0,
            )
            outcomes.append(one.outcome())
            weights = weights or one.weights()
    return Trained(outcomes, weights)


def _setting(cfg: Mapping[str, Any], seed: int, batch: int) -> Setting:
    images, chunk = cfg["images"], cfg["net"]["chunk"]
    return Setting(
        seed,
        rule_of(cfg["rule"], batch),
        plan_of(cfg, batch),
        splits(seed, images),
        int(images["look"]),
        None if chunk is None else int(chunk),
        int(images["workers"]),
    )


def _batches(cfg: Mapping[str, Any], setting: Setting, net: Net) -> Batches:
    seed, augment = stream(setting.seed, "batches", net.init), bool(cfg["images"]["augment"])
    steps, workers = setting.plan.steps, setting.workers
    return Batches(setting.data.train, setting.rule.batch, steps, seed, augment, workers)


def _bound(chunk: int | None, m: int, sub: int) -> int | None:
    """None where the perturbation batch is no larger; else it must divide its part that perturbs, too."""
    return None if chunk is None or chunk >= m else min(chunk, sub)
