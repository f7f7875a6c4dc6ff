"""Networks for the tests of the importer and of whole networks: small, with batch norms that do something."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def calibrate(model: nn.Module, size: int) -> nn.Module:
    """Batch norms with statistics of noise images and random gains, as after a training; evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, size, size))
    return model.eval()


class Block(nn.Module):
    """A convolution whose output is read twice before its activation, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.norm(y)
        z += y
        w = F.relu(z, inplace=True)
        y = self.second(w) + z
        return self.head((w + y).mean((2, 3)))


class Odd(nn.Module):
    """Asymmetric padding, a batch norm before its convolution, groups, ceil_mode, average pools, a shared module,
    an activation alone, a sum alone, two layers that take each other's output, a flattened image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 2, 0, 1))
        self.stem = nn.Conv2d(3, 20, (3, 5), stride=(1, 2))
        self.norm = nn.BatchNorm2d(20)
        self.grouped = nn.Conv2d(20, 20, 3, padding="same", groups=2)
        self.multiplied = nn.Conv2d(20, 40, 3, padding=1, groups=20, bias=False)
        self.shared = nn.Conv2d(40, 40, 1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.average = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
        self.window = nn.AvgPool2d(2, 1, padding=1)
        self.head = nn.Linear(40 * 2 * 3, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(F.silu(self.norm(torch.clamp(self.stem(self.pad(x)), min=0.0))))
        x = self.pool(self.multiplied(x))
        x = self.shared(F.hardswish(self.shared(x)))
        y = F.relu6(x)
        x = self.window(self.average(x + y))
        x = (
            F.adaptive_avg_pool2d(x[:, :, : x.shape[2] // 2 * 2], 2)
            if x.shape[2] % 2
            else F.adaptive_avg_pool2d(x, (2, 3))
        )
        return self.head(x.view(x.size(0), -1))


class Squeezed(nn.Module):
    """A squeeze-and-excitation block of an inverted residual, with a value that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.widen = nn.Conv2d(20, 36, 1, bias=False)
        self.spatial = nn.Conv2d(36, 36, 5, padding=2, groups=36)
        self.squeeze = nn.Conv2d(36, 8, 1)
        self.gate = nn.Conv2d(8, 36, 1)
        self.narrow = nn.Conv2d(36, 20, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        y = F.relu6(self.spatial(self.widen(x)))
        gate = F.hardsigmoid(self.gate(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.head((self.narrow(gate * y) + x).mean((2, 3)))
