"""Started by test_module: a training by ``fit`` that ends at once, and one that fails twice on the way; as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import DataLoader, TensorDataset

from common.optim.module import SharpnessModule
from common.optim.rules import SAM, LookSAM, RandomDirection
from common.optim.schedules import ProportionalToLr
from common.optim.settings import Settings
from common.optim.sharpness import Report
from common.training.data import Keyed, StepData, StepSampler, loader
from common.training.fit import fit
from common.training.seeds import seed_everything
from tests.common.optim.quadratic import Net, data

STEPS = 12
CASES = {
    "SAM": Settings(SAM(), m=8, rho=ProportionalToLr(0.1, lr_max=0.05), clip=1.0),
    "LookSAM": Settings(LookSAM(k=3), m=16, rho=0.05, chunk=8),
    "late RandomDirection": Settings(RandomDirection(1), m=16, rho=0.05, start=5, every=2),
}


class Trainee(SharpnessModule):
    def __init__(self, settings: Settings, fails_at: int) -> None:
        super().__init__(settings)
        self.net = Net()
        self.fails_at = fails_at
        self.reports: dict[int, Report] = {}

    def loss(self, batch: Any) -> Tensor:
        return self.net.loss(batch)

    def base_optimizer(self) -> Optimizer:
        return torch.optim.SGD(self.net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        return CosineAnnealingLR(optimizer, STEPS)

    def on_report(self, report: Report, step: int) -> None:
        self.reports[step] = report
        if step == self.fails_at:
            raise RuntimeError("killed")


class Points(StepData):
    def train_dataloader(self) -> DataLoader[Any]:
        samples = Keyed(TensorDataset(*data(0, 40)), seed=5)
        return loader(samples, StepSampler(40, 16, self.steps, seed=5, start=self.start))


def run(settings: Settings, out: Path, fails_at: int) -> dict[str, Any]:
    seed_everything(3)
    module = Trainee(settings, fails_at)
    try:
        fit(module, Points(STEPS), out, checkpoint_steps=2, checkpoint_seconds=float("inf"))
    except RuntimeError as error:
        return {"error": str(error)}
    sharpness, trainer = module.sharpness, module.trainer
    assert sharpness is not None
    state = [*module.state_dict().values(), *sharpness.memory.values()]
    state += [s["momentum_buffer"] for s in sharpness.base.state.values()]
    state += [torch.rand(3)]
    bits = b"".join(t.detach().numpy().tobytes() for t in state)
    losses = {step: float(r.loss) for step, r in module.reports.items() if r.loss is not None}
    return {
        "digest": hashlib.sha256(bits).hexdigest(),
        "steps": sharpness.steps,
        "global_step": trainer.global_step,
        "lr": sharpness.base.param_groups[0]["lr"],
        "losses": losses,
        "rho": [r.rho for r in module.reports.values()],
    }


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    for name, settings in CASES.items():
        whole = run(settings, folder / f"{name} whole", -1)
        parts = [run(settings, folder / f"{name} parts", fails_at) for fails_at in (4, 9, -1)]
        found[name] = {"whole": whole, "parts": parts}
    print(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
