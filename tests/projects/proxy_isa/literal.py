"""A literal transcription of Proxy-ISA's equations, in float64, with a loop over every class and pair."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.weights import Rule

C, D, B = 7, 5, 12
SMALL = Rule(volume=6, start=3, filter=6, capacity=29, hardness=0.6)
"""Saturates, fills its ring and leaves every region populated within a few batches."""


class Literal:
    """Equations (1)-(11) as written, one class and one pair at a time; plain Python state."""

    def __init__(self, rule: Rule, classes: int) -> None:
        self.rule, self.step = rule, 0
        self.n, self.h = [0] * classes, [1.0] * classes
        self.queue: deque[tuple[Tensor, int]] = deque(maxlen=rule.capacity)

    def state(self, c: int) -> tuple[float, float, float]:
        """E, w and t of class c."""
        r, b = self.rule, (self.rule.volume - 1) / self.rule.volume
        e = (1 - b ** self.n[c]) / (1 - b)
        base = 1 / (1 + math.log(1 + e))
        w = 1 + (1 + math.exp(-r.tau)) * (base - 1) / (1 + math.exp(r.volume - r.tau - e))
        return e, w, self.h[c] - ((1 + r.k * (1 - self.h[c])) * base + r.lam)

    def weight(self, s: float, c: int, positive: bool) -> float:
        """m of a pair."""
        r, (e, w, t) = self.rule, self.state(c)
        if positive:
            if r.weighting not in ("both", "positives") or self.step < r.filter:
                return 1.0
            if s > self.h[c]:
                return w if r.down in ("both", "easy") else 1 + w
            if s < t:
                return w if r.down in ("both", "hard") else 1 + w
            return 1 + w
        if r.weighting not in ("both", "negatives") or r.down not in ("both", "easy"):
            return 1.0
        return 1 / max(1.0, e) if s < t else 1.0

    def __call__(self, x: Tensor, y: Tensor, proxies: Tensor) -> Tensor:
        r, labels = self.rule, y.tolist()
        x = x / x.norm(dim=1, keepdim=True)
        p = proxies / proxies.norm(dim=1, keepdim=True)
        total, divisor = [x.new_zeros(()), x.new_zeros(())], [0.0, 0.0]
        for c in range(len(p)):
            for sign in (0, 1):
                rows = [i for i, label in enumerate(labels) if (label == c) == (sign == 0)]
                if not rows:
                    continue
                cosines = [(x[i] * p[c]).sum() for i in rows]
                weights = [self.weight(s.item(), c, sign == 0) for s in cosines]
                inside = x.new_ones(())
                for s, m in zip(cosines, weights, strict=True):
                    z = r.alpha * ((r.delta - s) if sign == 0 else (s + r.delta))
                    inside = inside + (torch.exp(m * z) if r.weight == "exponent" else m * torch.exp(z))
                total[sign] = total[sign] + torch.log(inside)
                divisor[sign] += sum(weights) / len(weights)
        self.advance(x.detach(), labels, p.detach())
        return total[0] / divisor[0] + total[1] / divisor[1]

    def advance(self, x: Tensor, labels: list[int], p: Tensor) -> None:
        """Equations (10) and (11)."""
        filtering = self.step >= self.rule.filter
        hard = [filtering and float(x[i] @ p[c]) < self.state(c)[2] for i, c in enumerate(labels)]
        for i, c in enumerate(labels):
            if not hard[i]:
                self.n[c] += 1
                if self.step >= self.rule.start and self.rule.capacity:
                    self.queue.append((x[i], c))
        for c in set(labels):
            held = [float(f @ p[c]) for f, label in self.queue if label == c]
            if held:
                self.h[c] = self.rule.hardness * sum(held) / len(held)
        self.step += 1


def make(rule: Rule = SMALL, classes: int = C, dtype: torch.dtype = torch.float64, **kwargs: Any) -> ProxyISA:
    torch.manual_seed(0)
    return ProxyISA(classes, D, rule, **kwargs).to(dtype)


def batch(seed: int, size: int = B, classes: int = C, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Embeddings around fixed centres, of at least two classes."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (size,), generator=draw)
    y[:2] = torch.tensor([0, classes - 1])
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    x = centres[y] + spread * torch.randn(size, D, generator=draw, dtype=torch.float64)
    return x, y


def both(loss: Callable[[Tensor, Tensor], Tensor], proxies: Tensor, x: Tensor, y: Tensor) -> list[Tensor]:
    """Value and gradients of embeddings and proxies."""
    leaf = x.clone().requires_grad_()
    value = loss(leaf, y)
    return [value.detach(), *torch.autograd.grad(value, [leaf, proxies])]
