"""What a user chooses, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from common.errors import BadInputError
from common.optim.rules import SAM, Base, LookSAM, Rule
from common.optim.schedules import Constant, Schedule, positive


@dataclass(frozen=True)
class Settings:
    """A rule, its neighbourhood and its batches.

    Attributes:
        rule: see ``rules``.
        m: the perturbation batch. Each m examples are perturbed by their own gradient, whatever the batch B, the
            chunks and the number of devices are; m = B over all devices is the published rule on one device
            (n-SAM for the full batch). m divides B.
        rho: a number, or a schedule. Where a schedule gives 0, that step is the base optimiser's.
        chunk: examples in one forward pass; divides m. None: m, and B for a step without perturbation. It bounds
            the memory and changes no result but for what a module computes across examples (BatchNorm).
        sub: of each m examples only the first `sub` give the perturbation (Du et al., ICLR 2022, turn this round
            and thin the second pass): cost 1 + sub / m. Dropout masks agree where chunk divides sub.
        every: perturb every so many steps (a step counts from `start`).
        start: the first step that perturbs (late phase); the base optimiser before.
        decay_inside: take the L2 term 1/2 weight_decay ||w||^2 of the base optimiser as part of the loss, so that
            it bends the perturbation and is evaluated at w + eps, as in the release of Foret et al. Otherwise it
            stays outside, as in the ports to torch.
        clip: bound on the norm of the final gradient, and of nothing else.
        fp32: make the perturbed pass without autocast, so that rounding does not drown eps. The autocast has to
            stand around ``step``: one inside the loss is the loss's own, and neither seen nor changed.
    """

    rule: Rule
    m: int
    rho: float | Schedule | None = None
    chunk: int | None = None
    sub: int | None = None
    every: int = 1
    start: int = 0
    decay_inside: bool = False
    clip: float | None = None
    fp32: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rule, Base) != (self.rho is None):
            raise BadInputError(
                "every rule needs a rho > 0, and Base (the one without perturbation) takes none."
            )
        if isinstance(self.rho, Real):
            positive("rho", self.rho)  # pyright: ignore[reportArgumentType] (numpy's scalars are Real)
        for name in ("m", "chunk", "sub", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInputError(f"{name} must be at least 1, not {value}.")
        if self.start < 0:
            raise BadInputError(f"start must be at least 0, not {self.start}.")
        if self.clip is not None:
            positive("clip", self.clip)
        if self.chunk is not None and self.m % self.chunk:
            raise BadInputError(f"chunk = {self.chunk} must divide m = {self.m}.")
        if self.sub is not None:
            self._check_sub(self.sub)
        if isinstance(self.rule, LookSAM) and self.every > 1:
            raise BadInputError("LookSAM has its own interval k; leave every at 1.")

    def _check_sub(self, sub: int) -> None:
        if self.rule.first == "none" or sub > self.m:
            raise BadInputError(
                f"sub = {sub} needs a rule with a first pass and at least as many examples in m."
            )
        if self.chunk is not None and sub % self.chunk:
            raise BadInputError(f"chunk = {self.chunk} must divide sub = {sub}.")
        if type(self.rule).mix is not SAM.mix or isinstance(self.rule, LookSAM):
            raise BadInputError(
                "a rule that mixes both gradients needs both of the same examples: leave sub out."
            )

    def schedule(self) -> Schedule | None:
        """Rho as a schedule; None for the base optimiser."""
        rho = self.rho  # not by its type: a numpy scalar is no float
        return rho if rho is None or callable(rho) else Constant(float(rho))

    def perturbs(self, step: int) -> bool:
        """Whether `step` makes a perturbation at all."""
        since = step - self.start
        return since >= 0 and since % self.every == 0 and self.rule.due(since)
