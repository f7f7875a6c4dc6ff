"""What a step of Proxy-ISA's loss costs, against the library's Proxy-Anchor and a loop over the classes, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/isa_loss.py           (about two minutes)

Forward and backward of 128 embeddings of 512 dimensions, one thread, in training mode with memory and filter open. A
round times one step of every arm, in an order that turns; a ratio is the median over the rounds of (arm / arm of that
round), in CPU-seconds, so that a busy machine slows both alike. The loop is the rule as its authors wrote it, with the
indexing they do for every class and a search of the whole memory for each class of the batch, restated from the
equations; that it is the same loss is checked first. Peak memory is the step's own in a fresh process that gives freed
memory back at once: the highest resident size less that before it.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_metric_learning.losses import ProxyAnchorLoss
from torch import Tensor, nn
from torch.nn.functional import normalize

from common.tracking.provenance import cpu_model
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.weights import Rule

BATCH, DIM = 128, 512
ROUNDS = {100: 81, 3_997: 15, 11_318: 9}
WARM = 2
PEER, LOOP = 1.3, 8.0
ARMS = ("ours", "Proxy-Anchor", "loop")
Step = Callable[[], Tensor]


class Loop:
    """The rule with a Python loop over the classes; the state of a `ProxyISA`."""

    def __init__(self, twin: ProxyISA) -> None:
        assert twin.memory is not None
        self.rule, self.proxies = twin.rule, twin.proxies.detach().clone().requires_grad_()
        self.n, self.h = twin.counted.tolist(), twin.level.clone()
        self.e = twin.schedule().effective.clone()
        self.queue, self.queued = twin.memory.ring.contents()
        self.at = int(twin.memory.ring.pushed) % len(self.queue)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        r, p = self.rule, normalize(self.proxies)
        cos = normalize(x) @ p.T
        base = 1 / (1 + torch.log(1 + self.e))
        w = 1 + (1 + math.exp(-r.tau)) * (base - 1) / (1 + torch.exp(r.volume - r.tau - self.e))
        t = self.h - ((1 + r.k * (1 - self.h)) * base + r.lam)
        own = torch.nn.functional.one_hot(y, len(p)).to(cos.dtype)
        m, wp, wn, hard = torch.ones_like(cos), 0.0, 0.0, []
        present = torch.nonzero(own.sum(0)).flatten()
        for c in present:
            rows = torch.nonzero(own[:, c]).flatten()
            at = rows, torch.tensor([int(c)] * len(rows))
            hard.append(rows[cos[at] < t[c]])
            one = torch.where(
                cos[at] > self.h[c], torch.ones_like(cos[at]) * w[c], torch.ones_like(cos[at]) + w[c]
            )
            m[at] = torch.where(cos[at] < t[c], torch.ones_like(one) * w[c], one).detach()
            wp = wp + m[at].mean()
        others = 1 - own
        for c in range(len(p)):
            rows = torch.nonzero(others[:, c]).flatten()
            at = rows, torch.tensor([c] * len(rows))
            low = torch.ones_like(cos[at]) / max(1.0, float(self.e[c]))
            each = torch.where(cos[at] < t[c], low, torch.ones_like(cos[at])).detach()
            m[at] = each
            wn = wn + each.mean()
        up = torch.log(1 + (own * torch.exp(r.alpha * m * (r.delta - cos))).sum(0)).sum()
        down = torch.log(1 + (others * torch.exp(r.alpha * m * (cos + r.delta))).sum(0)).sum()
        self.advance(normalize(x.detach()), y, p.detach(), torch.cat(hard), present)
        return up / wp + down / wn

    def advance(self, x: Tensor, y: Tensor, p: Tensor, hard: Tensor, present: Tensor) -> None:
        """Count, remember, and search the memory for each class."""
        kept = torch.ones(len(y), dtype=torch.bool)
        kept[hard] = False
        slots = (self.at + torch.arange(int(kept.sum()))) % len(self.queue)
        self.queue[slots], self.queued[slots] = x[kept], y[kept]
        self.at = (self.at + len(slots)) % len(self.queue)
        b = (self.rule.volume - 1) / self.rule.volume
        for c in present:
            self.n[c] += int((y[kept] == c).sum())
            self.e[c] = (1 - b ** self.n[c]) / (1 - b)
            found = torch.nonzero(self.queued == c).flatten()
            if len(found):
                self.h[c] = (self.queue[found] @ p[c]).mean() * self.rule.hardness


def trained(classes: int) -> ProxyISA:
    """A loss in the middle of a training: its memory full, its classes counted up to three times V."""
    torch.manual_seed(0)
    loss = ProxyISA(classes, DIM, Rule())
    assert loss.memory is not None
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (loss.rule.capacity,), generator=draw)
    for part in labels.split(5000):
        noise = torch.randn(len(part), DIM, generator=draw)
        loss.memory.push(normalize(normalize(loss.proxies.detach()[part]) + 0.05 * noise), part)
    loss.counted.copy_(torch.randint(300, (classes,), generator=draw))
    loss.level.copy_(loss.rule.hardness * torch.rand(classes, generator=draw))
    return loss


def batch(classes: int) -> tuple[Tensor, Tensor]:
    """Four samples a class, near their proxies of `trained`."""
    draw = torch.Generator().manual_seed(2)
    y = torch.randperm(classes, generator=draw)[: BATCH // 4].repeat_interleave(4)
    torch.manual_seed(0)
    proxies = ProxyISA(classes, DIM, Rule(capacity=0)).proxies.detach()
    return normalize(normalize(proxies[y]) + 0.08 * torch.randn(BATCH, DIM, generator=draw)), y


def arm(name: str, classes: int) -> tuple[Step, nn.Module]:
    """Forward and backward of one arm, and the loss whose state it has."""
    loss = ProxyAnchorLoss(classes, DIM) if name == "Proxy-Anchor" else trained(classes)
    call = Loop(loss) if name == "loop" and isinstance(loss, ProxyISA) else loss
    x, y = batch(classes)
    x.requires_grad_()

    def step() -> Tensor:
        x.grad = call.proxies.grad = None
        value = call(x, y)
        value.backward()
        return value.detach()

    return step, loss


def times(classes: int) -> dict[str, list[float]]:
    """CPU-seconds of every round, by arm."""
    steps = {name: arm(name, classes)[0] for name in ARMS}
    values = {name: float(steps[name]()) for name in ("ours", "loop")}
    assert math.isclose(values["ours"], values["loop"], rel_tol=1e-4), values
    spent: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(WARM + ROUNDS[classes]):
        turn = number % len(ARMS)
        for name in ARMS[turn:] + ARMS[:turn]:
            started = time.process_time()
            steps[name]()
            if number >= WARM:
                spent[name].append(time.process_time() - started)
    return spent


def peak(name: str, classes: int) -> tuple[float, float]:
    """MB that a step takes above what is resident before it, and MB of state."""
    command = [sys.executable, __file__, "peak", name, str(classes)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()
    return float(found[0]), float(found[1])


def resident(field: str) -> float:
    """MB resident of this process: VmRSS now, VmHWM at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1000


def measure_peak(name: str, classes: int) -> None:
    """In a fresh process: print the two numbers of `peak`."""
    torch.set_num_threads(1)
    step, loss = arm(name, classes)
    step()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the setting up
    before = resident("VmRSS")
    step()
    print(resident("VmHWM") - before, sum(value.nbytes for value in loss.state_dict().values()) / 1e6)


def verdict(name: str, ratio: float, kept: bool, promise: str) -> bool:
    """Print one line; False when its promise is broken."""
    print(f"{name:42s} {ratio:7.2f} x  promised {promise}: {'kept' if kept else 'broken'}")
    return kept


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    print(f"CPU: {cpu_model()}")
    kept = []
    for classes in ROUNDS:
        spent = times(classes)
        medians = ", ".join(f"{name} {1000 * statistics.median(spent[name]):.2f}" for name in ARMS)
        print(f"{classes} classes: CPU-ms a step: {medians}")
        over = {
            name: statistics.median(a / b for a, b in zip(spent["ours"], spent[name], strict=True))
            for name in ARMS[1:]
        }
        ratio = over["Proxy-Anchor"]
        kept.append(verdict("  over the library's Proxy-Anchor", ratio, ratio <= PEER, f"<= {PEER}"))
        faster = 1 / over["loop"]
        kept.append(verdict("  faster than the loop over classes", faster, faster >= LOOP, f">= {LOOP:g}"))
        for name in ARMS[:2]:
            grown, state = peak(name, classes)
            print(f"  peak of a step, {name:14s} {grown:7.0f} MB beside {state:.0f} MB of state")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        measure_peak(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
