"""How long nets are trained, with which base optimiser, and what is said of each in the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import BadInputError, unknown

LEVELS = (2.0, 0.5, 0.1, 0.03)
"""Training losses at whose first crossing the weights are kept, for the curvature on the way."""
WORST_LAMBDA = 1e6
"""The largest Hessian eigenvalue of a net that diverged: it has none, and no claim leaves it out."""
WORST_SPREAD = 10.0
"""The spread of a law over batch sizes at one of which a net diverged before the law's quantities were known."""


@dataclass(frozen=True)
class Plan:
    """Length and base optimiser.

    Attributes:
        steps: updates at most, a multiple of `looks`.
        looks: how often a net is looked at, evenly.
        warmup: share of the steps in which the learning rate rises linearly.
        momentum: of the base optimiser.
        decay: L2 weight decay, outside the perturbation.
        fit: training loss at which a net stops; 0: it never does.
        hopeless: training loss above which a net that is to fit stops half-way.
    """

    steps: int
    looks: int
    warmup: float
    momentum: float
    decay: float
    fit: float
    hopeless: float = math.inf

    def stops(self, loss: float, done: int) -> bool:
        """Whether a net of this training loss stops after `done` steps."""
        given_up = self.fit > 0 and 2 * done >= self.steps and loss > self.hopeless
        return done >= self.steps or loss <= self.fit or given_up or not math.isfinite(loss)

    @property
    def every(self) -> int:
        """Steps between looks."""
        return self.steps // self.looks

    def rate(self, step: int) -> float:
        """The factor of the learning rate in this step: linear warm-up, then half a cosine down to 0."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


@dataclass(frozen=True)
class Net:
    """One net to train: it learns task number `owner`, from its initialisation number `init`."""

    owner: int
    init: int
    lr: float
    rho: float


@dataclass(frozen=True)
class Outcome:
    """What became of a net.

    Attributes:
        train_loss: mean over the whole training set (with its label noise).
        fitted: whether `train_loss` came down to the plan's `fit`; true where nothing was to be reached.
        updates: made.
        norm: geometric mean over the updates of ‖g_1‖, the norm that the perturbation is divided by.
        validation_error, test_error: of the last weights.
        stopped_error, stopped_validation_error: those of the look with the lowest validation error.
    """

    train_loss: float
    fitted: bool
    updates: int
    norm: float
    validation_error: float
    test_error: float
    stopped_error: float
    stopped_validation_error: float

    def judged_by(self, which: str) -> float:
        """The validation error that choices are made by: of the `last` weights, or of the `best` look.

        Raises:
            BadInputError: another word.
        """
        if which not in ("last", "best"):
            raise unknown("train.judged", which, ("last", "best"))
        return self.validation_error if which == "last" else self.stopped_validation_error


def plan_of(cfg: Mapping[str, Any], batch: int) -> Plan:
    """The plan that a job's config asks for: so many updates for every batch size, or so many passes.

    Raises:
        BadInputError: the batch does not divide the training set, whose last batch would change m; or there is
            no pass to make.
    """
    options, n = cfg["train"], int(cfg["images"]["train"])
    if n % batch:
        raise BadInputError(f"batch = {batch} must divide images.train = {n}: no batch may be smaller.")
    if options["passes"] is not None and int(options["passes"]) < 1:
        raise BadInputError(f"train.passes must be at least 1, or null, not {options['passes']}.")
    steps = int(options["steps"]) if options["passes"] is None else int(options["passes"]) * n // batch
    looks = min(int(options["looks"]), steps)
    return Plan(
        steps // looks * looks,
        looks,
        float(options["warmup"]),
        float(options["momentum"]),
        float(options["weight_decay"]),
        float(options["fit"]),
        float(options["hopeless"]),
    )
