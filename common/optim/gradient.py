"""The gradient that the base optimiser gets: passes at w and at w + eps over each perturbation batch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.errors import BadInputError, NonFiniteError
from common.optim import base, batches, vectors
from common.optim.devices import Devices
from common.optim.passes import Perturbed
from common.optim.precision import narrow_dtype, rounding_noise
from common.optim.rules import LookSAM
from common.optim.settings import Settings
from common.optim.sweeps import Loss, States, Sweeps
from common.optim.vectors import Vector
from common.processes.parts import is_part


@dataclass
class Found:
    """What the passes found: the gradient by parameter, and means over the perturbation batches.

    Attributes:
        gradient: times the scaler's scale; None for a parameter without one.
        loss: at w.
        perturbed: at w + eps.
        rho: neighbourhood size.
        norm: ||g1||, unscaled.
        memory: LookSAM's g_v by number of the parameter.
        overflow: ||g1|| is not finite; the scaler will skip the step.
    """

    gradient: list[Tensor | None]
    loss: Tensor | None = None
    perturbed: Tensor | None = None
    rho: float = 0.0
    norm: float = 0.0
    memory: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    overflow: bool = False


@dataclass
class First:
    """The first pass over one perturbation batch.

    Attributes:
        loss: at w, where there was such a pass.
        g: what the rule perturbs along (g1 with its decay, the momentum, or nothing).
        at: numbers of the parameters that are perturbed.
        states: of the random generators, to be played again.
    """

    loss: Tensor | None
    g: Vector
    at: tuple[int, ...]
    states: States


class Sharp:
    """Computes ``Found``; whenever none of its methods runs, the parameters stand at w, to the bit."""

    def __init__(self, optimizer: Optimizer, settings: Settings, sweeps: Sweeps) -> None:
        self.optimizer, self.settings, self.sweeps = optimizer, settings, sweeps
        self.devices = Devices(sharded=is_part(sweeps.params[0]))
        self._perturbed = Perturbed()
        self._warned = False

    def plain(self, loss: Loss, batch: Any, memory: dict[int, Tensor]) -> Found:
        """One pass at w over the whole batch, with LookSAM's memory added where there is one."""
        examples = batches.size(batch)
        self.devices.local(self.settings.m, examples)
        chunk = self.settings.chunk or examples
        found = Found([])
        found.loss, found.gradient = self.sweeps.gradient(loss, batch, chunk)
        self._over_devices(found)
        rule, common = self.settings.rule, [i for i in memory if found.gradient[i] is not None]
        if isinstance(rule, LookSAM) and common:
            g, at = _at(found.gradient, common), tuple(common)
            for each, p, decay in self._decayed(g, at):
                each.add_(p.detach(), alpha=decay)
            rule.reuse_(g, [memory[i] for i in common])
            for each, p, decay in self._decayed(g, at):
                each.add_(p.detach(), alpha=-decay)  # the base adds it
        return found

    def perturbed(self, loss: Loss, batch: Any, step: int) -> Found:
        """Both passes over each perturbation batch."""
        m, examples = self.settings.m, batches.size(batch)
        cells = batches.chunks(batch, self.devices.local(m, examples))
        total = Found([None] * len(self.sweeps.params))
        for number, cell in enumerate(cells, self.devices.first_number(m, examples)):
            found = self._cell(loss, cell, (step, number), examples)
            _accumulate(total, found, len(cells))
            if found.overflow:
                break
        self._over_devices(total)
        return total

    def _cell(self, loss: Loss, cell: Any, key: tuple[int, int], examples: int) -> Found:
        rule, params = self.settings.rule, self.sweeps.params
        chunk = min(self.settings.chunk or examples, batches.size(cell))
        first = self._first(loss, cell, chunk, examples)
        norm = vectors.norm(first.g) / (self.sweeps.scale() if rule.first == "gradient" else 1.0)
        if not math.isfinite(norm):
            return self._overflow(first, norm, key[0])
        rho = self._rho(norm)
        w = _at(params, first.at)
        with torch.no_grad():
            eps = rule.perturbation(w, first.g, rho, key)
        self._warn(w, eps)
        found = Found([], first.loss, rho=rho, norm=norm)
        self.sweeps.settle()
        with self._perturbed(w, eps), self.sweeps.at_w_eps(rule.first != "none", self.settings.fp32):
            found.perturbed, found.gradient = self.sweeps.gradient(loss, cell, chunk, play=first.states)
        self._finish(found, first, w, eps, examples)
        return found

    def _first(self, loss: Loss, cell: Any, chunk: int, examples: int) -> First:
        rule, states = self.settings.rule, States()
        if rule.first == "none":
            momentum = base.momentum(self.optimizer)
            at = vectors.present(momentum)
            return First(None, _at(momentum, at), at, states)
        size = batches.size(cell)
        sub, rest = divmod((self.settings.sub or self.settings.m) * size, self.settings.m)
        if rest:
            raise BadInputError(
                f"sub = {self.settings.sub} cannot be spread over processes of {size} examples."
            )
        head = batches.part(cell, 0, sub)
        if rule.first == "loss":
            value = self.sweeps.loss(loss, head, min(chunk, sub), states)
            return First(value, [], tuple(range(len(self.sweeps.params))), states)
        value, gradient = self.sweeps.gradient(loss, head, min(chunk, sub), record=states)
        at = vectors.present(gradient)
        g = _at(gradient, at)
        self.devices.block_mean_(g, self.settings.m, examples)
        for each, p, decay in self._decayed(g, at):
            each.add_(p.detach(), alpha=decay)
        return First(value, g, at, states)

    def _finish(self, found: Found, first: First, w: Vector, eps: Vector, examples: int) -> None:
        """The rule's mix of both gradients, in ``found.gradient``; decay * w itself is left to the base."""
        rule, at = self.settings.rule, first.at
        if rule.first == "gradient" and vectors.present(found.gradient) != at:
            odd = min(set(vectors.present(found.gradient)) ^ set(at))
            raise BadInputError(
                f"{self.sweeps.name(odd)} has a gradient in one of the two passes only; the loss must use the same "
                "parameters in both (draw what is skipped from the global generators, which are played again)."
            )
        every = _at(found.gradient, vectors.present(found.gradient))
        self.devices.block_mean_(every, self.settings.m, examples)
        g2 = _at(found.gradient, [i for i in at if found.gradient[i] is not None])
        if self.settings.decay_inside:
            decays, scale = base.decays(self.optimizer), self.sweeps.scale()
            for i, e in zip(at, eps, strict=True):
                g = found.gradient[i]
                if g is not None:
                    g.add_(e, alpha=decays[i] * scale)
        if rule.first != "gradient":
            return
        whole = [g.clone() for g in g2] if self.settings.decay_inside else g2
        for each, p, decay in self._decayed(whole, at):
            each.add_(p.detach(), alpha=decay)
        if isinstance(rule, LookSAM):
            g_v = rule.remember(first.g, whole) if found.rho > 0 else vectors.scaled(whole, 0.0)
            found.memory = dict(zip(at, g_v, strict=True))
        a, b = rule.mix(first.g, whole, found.rho)
        vectors.scale_(g2, b)
        if a:
            vectors.add_(g2, first.g, a)
        for each, p, decay in self._decayed(g2, at):
            each.add_(p.detach(), alpha=decay * (b - 1.0))  # first.g holds a decay * w, the base adds one

    def _decayed(self, g: Vector, at: tuple[int, ...]) -> list[tuple[Tensor, Tensor, float]]:
        if not self.settings.decay_inside:
            return []
        decays, scale = base.decays(self.optimizer), self.sweeps.scale()
        return [(each, self.sweeps.params[i], decays[i] * scale) for each, i in zip(g, at, strict=True)]

    def _rho(self, norm: float) -> float:
        schedule = self.settings.schedule()
        assert schedule is not None
        rho = schedule(float(self.optimizer.param_groups[0]["lr"]), norm)
        if not math.isfinite(rho) or rho < 0:
            raise BadInputError(f"the schedule of rho gave {rho}; it must be at least 0 and finite.")
        return rho

    def _overflow(self, first: First, norm: float, step: int) -> Found:
        if self.sweeps.scaler is None:
            raise NonFiniteError(
                f"the norm of the gradient became {norm} at step {step}; the weights are as before."
            )
        found = Found([None] * len(self.sweeps.params), first.loss, norm=norm, overflow=True)
        for g, i in zip(first.g, first.at, strict=True):
            found.gradient[i] = g
        first.g[0].fill_(math.inf)  # the scaler looks at elements, not at norms
        if first.loss is not None:  # other processes send theirs, in the same shapes
            found.perturbed = torch.full_like(first.loss, math.inf)
        if isinstance(self.settings.rule, LookSAM):
            found.memory = dict(zip(first.at, first.g, strict=True))
        return found

    def _warn(self, w: Vector, eps: Vector) -> None:
        if self._warned or not w:
            return
        dtype = narrow_dtype(w, w[0].device.type)
        if dtype is None or self.settings.fp32:
            return
        self._warned = True
        noise = rounding_noise(w, eps, dtype)
        warnings.warn(
            f"weights are rounded to {dtype} in the forward pass: ||rounding noise|| / rho = {noise:.2f}. Make the "
            "perturbed pass in float32 (fp32=True, weights stored in float32), or use a larger rho.",
            stacklevel=2,
        )

    def _over_devices(self, found: Found) -> None:
        if self.devices.world == 1:
            return
        self.devices.mean_(_at(found.gradient, vectors.present(found.gradient)))
        self.devices.mean_(list(found.memory.values()))
        self.devices.mean_([t for t in (found.loss, found.perturbed) if t is not None])


def _at(v: list[Tensor | None] | Vector, at: tuple[int, ...] | list[int]) -> Vector:
    chosen = [v[i] for i in at]
    return [t for t in chosen if t is not None]


def _accumulate(total: Found, found: Found, count: int) -> None:
    """Total <- total + found / count; with one perturbation batch `found` itself, to the bit."""
    total.overflow = found.overflow
    total.rho += found.rho / count
    total.norm += found.norm / count
    total.loss = _sum(total.loss, found.loss, count)
    total.perturbed = _sum(total.perturbed, found.perturbed, count)
    total.gradient = [_sum(t, g, count) for t, g in zip(total.gradient, found.gradient, strict=True)]
    for i, v in found.memory.items():
        mean = _sum(total.memory.get(i), v, count)
        assert mean is not None
        total.memory[i] = mean


def _sum(total: Tensor | None, value: Tensor | None, count: int) -> Tensor | None:
    if value is None:
        return total
    part = value if count == 1 else value / count
    return part if total is None else total.add_(part)
