"""What exact resume costs at the laptop's size: eight stacked members of OPIRL, 12,000 rows of replay each.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/resume.py           (about a minute)

Seconds are wall time, median of some rounds, because a checkpoint waits for the disk.

save      a checkpoint: new rows made durable, the state written with its SHA-256, fsynced and renamed.
replay    of that, the buffers: the rows since the last checkpoint appended to a file a member, fsynced. Baseline:
          torch.save of the whole buffers, fsynced. Also with ten times as many rows held.
resume    the same call of `fit` on a training of which nothing is left: digest, state, environments, buffers read
          back. Baseline: that training again (here almost without updates, so a lower bound).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.opirl import MAZE, Size, setting
from common.tracking.provenance import cpu_model
from common.tracking.record import Recorder
from common.training import checkpoint
from common.training.append import AppendOnlyFile
from common.training.data import StepIndices
from common.training.fit import CHECKPOINTS, fit
from projects.opirl import demos
from projects.opirl.arm import Setting
from projects.opirl.module import Training
from projects.opirl.opirl import OPIRL
from projects.opirl.training import CHUNK, random_policy

UPDATES = 64
"""The last steps of the training, which give the optimisers their state; before them it only collects."""
PROMISED = 5.0
"""Seconds within which a job that is asked to stop has written its checkpoint."""


def seconds(action: Callable[[], object], rounds: int) -> float:
    """Median wall time."""
    times: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def training(where: Setting) -> Training:
    """Train, or continue what is done already; evaluated once, at the end."""
    folders = [where.out / f"member-{seed}" for seed in where.seeds]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    records = [Recorder(folder) for folder in folders]
    module = Training(OPIRL(where), where, where.steps, every=10**9, episodes=1, records=records)
    data = StepIndices(where.steps, CHUNK)
    fit(module, data, where.out, records=records, guard_every=0, checkpoint_seconds=float("inf"))
    for record in records:
        record.close()
    return module


def job(size: Size, rows: int, folder: Path) -> Setting:
    """A training with so many rows of replay."""
    begin = rows - UPDATES
    changes = (f"collect.random_steps={begin}", f"collect.start={begin}")
    where = setting(size, MAZE, rows, folder / "job", *changes)
    act = random_policy(where.seeds, where.spec.act_dim)
    return replace(where, demos=demos.record(act, MAZE, 2, where.seeds))


def found(where: Setting) -> tuple[Path, checkpoint.State]:
    """The newest checkpoint."""
    newest = checkpoint.newest(where.out / CHECKPOINTS, lambda state: None)
    assert newest is not None
    return newest


def close(module: Training) -> None:
    """Close the files of a training."""
    for file in module.journals().values():
        file.close()


def replay(folder: Path, members: int, rows: int, width: int, between: int, rounds: int) -> float:
    """Append `between` rows to buffers of `rows`, against torch.save of the whole; prints; our seconds."""
    held = torch.rand(members, rows, width)
    files = [AppendOnlyFile(folder / f"{rows}-{i}.f32", np.float32, (width,)) for i in range(members)]
    for file, part in zip(files, held, strict=True):
        file.append(part.numpy())
        file.sync()

    def append() -> None:
        for file, part in zip(files, held, strict=True):
            file.append(part[:between].numpy())
        for file in files:
            file.sync()

    def rewrite() -> None:
        with (folder / f"{rows}.pt").open("wb") as target:
            torch.save(held, target)
            target.flush()
            os.fsync(target.fileno())

    ours, theirs = seconds(append, rounds), seconds(rewrite, rounds)
    for file in files:
        file.close()
    print(
        f"replay  {members} x {rows:6d} rows held, {between} new: append {ours:6.3f} s, torch.save of all "
        f"{theirs:6.3f} s  ratio {theirs / ours:6.2f}  (bytes: ratio {rows / between:.1f})"
    )
    return ours


def measure(size: Size, rows: int, between: int, rounds: int, folder: Path) -> bool:
    """Print seconds and ratios; False when a save breaks the promise. `between`: rows between two checkpoints."""
    where = job(size, rows, folder)
    again = seconds(lambda: close(training(where)), 1)
    path, state = found(where)
    resume = seconds(lambda: close(training(where)), rounds)
    width = 2 * (where.spec.obs_dim + 1) + where.spec.act_dim + 2
    appended = replay(folder, size.members, rows, width, between, rounds)
    replay(folder, size.members, 10 * rows, width, between, rounds)
    save = appended + seconds(lambda: checkpoint.write(folder / "state.ckpt", state), rounds)
    kept = save < PROMISED
    print(
        f"save    {save:6.3f} s, {path.stat().st_size / 1e6:.1f} MB beside the replay  "
        f"promised < {PROMISED:g} s: {'kept' if kept else 'broken'}"
    )
    print(f"resume  {resume:6.3f} s, the training again {again:6.2f} s  ratio {again / resume:6.2f}")
    return kept


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    print(f"CPU: {cpu_model()}")
    with tempfile.TemporaryDirectory() as folder:
        kept = measure(Size(64, 64), rows=12_000, between=2_000, rounds=7, folder=Path(folder))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
