"""A quadratic loss whose every step has a closed form, and the small nets that the tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from common.optim.sharpness import SharpnessAware

N = 8  # examples


class Quadratic:
    """L_i(w) = 1/2 (w - c_i)' A (w - c_i) in float64, w in two tensors; the mean over the examples i."""

    def __init__(self, seed: int = 0, n: int = N) -> None:
        draw = torch.Generator().manual_seed(seed)
        root = torch.randn(5, 5, generator=draw, dtype=torch.float64)
        self.a = root @ root.T + torch.eye(5, dtype=torch.float64)
        self.c = torch.randn(n, 5, generator=draw, dtype=torch.float64)
        self.w0 = torch.randn(5, generator=draw, dtype=torch.float64)
        self.params = [nn.Parameter(self.w0[:2].clone()), nn.Parameter(self.w0[2:].clone())]

    def loss(self, c: Tensor) -> Tensor:
        d = torch.cat(self.params) - c
        return 0.5 * ((d @ self.a) * d).sum(1).mean()

    def gradient(self, w: Tensor, c: Tensor | None = None) -> Tensor:
        return self.a @ (w - (self.c if c is None else c).mean(0))

    def w(self) -> Tensor:
        return torch.cat([p.detach() for p in self.params])


class Net(nn.Module):
    """Everything that differs between two passes by mistake: BatchNorm, dropout, parameters of several sizes."""

    def __init__(self, seed: int = 0, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Linear(6, 16),
                nn.BatchNorm1d(16) if norm else nn.Identity(),
                nn.Tanh(),
                nn.Dropout(dropout),
                nn.Linear(16, 3),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def data(step: int = 0, n: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randn(n, 6, generator=draw), torch.randint(3, (n,), generator=draw)


def train(optimizer: SharpnessAware, net: Net, first: int, last: int) -> None:
    for step in range(first, last):
        torch.manual_seed(step)
        optimizer.step(net.loss, data(step))


def bits(net: nn.Module) -> list[bytes]:
    return [t.detach().numpy().tobytes() for t in net.state_dict().values()]
