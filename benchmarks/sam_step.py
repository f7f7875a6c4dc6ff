"""What a sharpness-aware step costs, as a multiple of the base optimiser's, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/sam_step.py           (under a minute)

A small convolutional net with GroupNorm, batches of 128 images of 3 x 32 x 32, one thread. A round times one step of
every arm, in an order that turns; a ratio is the median over the rounds of (arm / SGD of that round), in CPU-seconds,
so that a busy machine slows both sides alike. Floors by images computed: SAM 2, sub-batch 1 + 1/4 and 1 + 1/8,
momentum SAM 1; below them where a small batch is cheaper an image, as its activations fit a cache.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_optimizer import SAM as PeerSAM
from torch import Tensor, nn

from common.optim.rules import MSAM, SAM, LookSAM
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from common.tracking.provenance import cpu_model

BATCH, ROUNDS, WARM = 128, 21, 2
PROMISED = {"SAM": 2.1, "sub-batch B/4": 1.33, "sub-batch B/8": 1.2, "MSAM": 1.05}
PEER = 1.03
"""SAM over pytorch_optimizer's, "not slower" within what a run of this length can tell apart."""


def net() -> nn.Sequential:
    """Three convolutions."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(8, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def sgd(params: Any) -> torch.optim.SGD:
    """The base optimiser of every arm."""
    return torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4)


def plain(x: Tensor, y: Tensor) -> Callable[[], object]:
    """A step of SGD as anyone writes it."""
    model = net()
    optimizer = sgd(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def peer(x: Tensor, y: Tensor) -> Callable[[], object]:
    """pytorch_optimizer's SAM, as its documentation writes it."""
    model = net()
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = PeerSAM(model.parameters(), torch.optim.SGD, rho=0.05, **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def step() -> None:
        closure()
        optimizer.step(closure)

    return step


def ours(x: Tensor, y: Tensor, settings: Settings) -> Callable[[], object]:
    """A step of ours."""
    model = net()
    optimizer = SharpnessAware(sgd(model.parameters()), settings, module=model)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return lambda: optimizer.step(loss, (x, y))


def ratios(arms: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """CPU-seconds of every round, by arm."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    for number in range(WARM + ROUNDS):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.process_time()
            arms[name]()
            if number >= WARM:
                times[name].append(time.process_time() - started)
    return times


def over(times: dict[str, list[float]], arm: str, base: str) -> float:
    """Median ratio within a round."""
    return statistics.median(a / b for a, b in zip(times[arm], times[base], strict=True))


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, 32, 32, generator=draw)
    y = torch.randint(10, (BATCH,), generator=draw)
    settings = {
        "SAM": Settings(SAM(), m=BATCH, rho=0.05),
        "sub-batch B/4": Settings(SAM(), m=BATCH, rho=0.05, sub=BATCH // 4),
        "sub-batch B/8": Settings(SAM(), m=BATCH, rho=0.05, sub=BATCH // 8),
        "MSAM": Settings(MSAM(), m=BATCH, rho=0.05),
        "LookSAM, a step between": Settings(LookSAM(k=10**9), m=BATCH, rho=0.05),
    }
    arms = {"SGD": plain(x, y), "pytorch_optimizer SAM": peer(x, y)}
    arms |= {name: ours(x, y, each) for name, each in settings.items()}
    times = ratios(arms)
    print(f"CPU: {cpu_model()}")
    print(f"{'SGD':32s} {statistics.median(times['SGD']) * 1000:7.1f} CPU-ms a step")
    kept = [verdict(name, over(times, name, "SGD"), PROMISED.get(name)) for name in arms if name != "SGD"]
    kept.append(verdict("SAM over pytorch_optimizer SAM", over(times, "SAM", "pytorch_optimizer SAM"), PEER))
    return 0 if all(kept) else 1


def verdict(name: str, ratio: float, promised: float | None) -> bool:
    """Print one line; False when its promise is broken."""
    kept = promised is None or ratio <= promised
    promise = "" if promised is None else f"  promised <= {promised:g}: {'kept' if kept else 'broken'}"
    print(f"{name:32s} {ratio:7.3f} x{promise}")
    return kept


if __name__ == "__main__":
    sys.exit(main())
