"""Started by test_devices: trains on a quadratic with 1, 2 and 4 processes (gloo); the weights of each as JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from common.errors import BadInputError
from common.optim.rules import GSAM, SAM, LookSAM
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from tests.common.optim.quadratic import N, Quadratic

CASES = {
    f"{type(rule).__name__} m={m}": (rule, m) for rule in (SAM(), GSAM(), LookSAM(k=2)) for m in (1, 2, 4, 8)
}


def weights(rank: int, world: int) -> dict[str, list[float] | str]:
    """The weights after three steps, by case; or why it was refused."""
    found: dict[str, list[float] | str] = {}
    for name, (rule, m) in CASES.items():
        q = Quadratic()
        mine = q.c[rank * N // world : (rank + 1) * N // world]
        base = torch.optim.SGD(q.params, 0.05, momentum=0.9)
        optimizer = SharpnessAware(base, Settings(rule, m=m, rho=0.1))
        losses = [optimizer.step(q.loss, mine).loss for _ in range(3)]
        found[name] = [*q.w().tolist(), *(float(loss) for loss in losses if loss is not None)]
    for m in (2, 8):
        found[f"overflow m={m}"] = after_overflow(rank, world, m)
    q = Quadratic()
    odd = SharpnessAware(torch.optim.SGD(q.params, 0.05), Settings(SAM(), m=3, rho=0.1))
    try:
        odd.step(q.loss, q.c[:3])  # B = 3 world; m = 3 fits
        odd.step(q.loss, q.c[:2])
    except BadInputError as error:
        found["refused"] = str(error)
    return found


def after_overflow(rank: int, world: int, m: int) -> list[float]:
    """Weights and scale after a first step that overflows on the last process only, and a good one."""
    q = Quadratic()
    mine = q.c[rank * N // world : (rank + 1) * N // world]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = SharpnessAware(
        torch.optim.SGD(q.params, 0.05), Settings(LookSAM(k=2), m=m, rho=0.1), scaler=scaler
    )
    factor = torch.inf if rank == world - 1 else 1.0
    skipped = optimizer.step(lambda c: q.loss(c) * factor, mine).skipped
    still = bool(torch.equal(q.w(), q.w0)) and not optimizer.memory
    optimizer.step(q.loss, mine)
    return [*q.w().tolist(), scaler.get_scale(), float(skipped), float(still)]


def process(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    (folder / f"{rank}.json").write_text(json.dumps(weights(rank, world)))
    dist.barrier()
    dist.destroy_process_group()


def run(world: int) -> list[dict[str, list[float] | str]]:
    """Fork `world` processes, before torch has made any thread; what each found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children: list[int] = []
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    process(rank, world, folder)
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        if any(codes):
            sys.exit(f"exit codes {codes}")
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({world: run(world) for world in (2, 4)} | {1: [weights(0, 1)]}))
