"""What the tests of resume train and kill: two small trainings, and a server that forks a process for each run.

Importing Lightning takes seconds, so one server imports it and forks. A run is ``train(**request)``; it leaves
``final.json`` with digests of everything that a training can change.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from common.errors import RethesisError
from common.tracking.record import Recorder
from common.training import checkpoint
from common.training.append import AppendOnlyFile
from common.training.data import Keyed, StepData, StepIndices, StepSampler, loader
from common.training.fit import fit
from common.training.guards import check_finite
from common.training.seeds import generator, seed_everything

STEPS = 40
HORIZON = 7  # steps of an episode of the toy environment


class Classifier(pl.LightningModule):
    """Automatic optimisation: dropout, BatchNorm, AdamW, cosine schedule, EMA."""

    def __init__(self, recorder: Recorder, at_step: Callable[[int], None]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.ema = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        self.recorder, self.at_step = recorder, at_step
        self.nan = -1

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.recorder.log(batch_idx, loss=loss.detach())
        self.at_step(batch_idx)
        return loss * float("nan") if batch_idx == self.nan else loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ema.update_parameters(self.net)


class Samples(StepData):
    """48 shuffled points in batches of 8 (6 a pass), with noise as augmentation."""

    def __init__(self, steps: int, workers: int) -> None:
        super().__init__(steps)
        self.workers = workers
        draw = generator(0, "points")
        self.points = TensorDataset(
            torch.randn(50, 4, generator=draw), torch.randint(3, (50,), generator=draw)
        )

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = StepSampler(50, 8, self.steps, seed=5, start=self.start)
        points = Keyed(self.points, seed=5, augment=add_noise)
        return loader(points, sampler, self.workers)


def add_noise(
    sample: tuple[torch.Tensor, torch.Tensor], draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = sample
    return x + 0.1 * torch.randn(4, generator=draw), y


class Agent(pl.LightningModule):
    """Manual optimisation as in off-policy RL: environment, replay buffer on disk, two optimisers, own generators."""

    def __init__(self, out: Path, recorder: Recorder, at_step: Callable[[int], None]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.actor, self.critic = nn.Linear(3, 1), nn.Linear(4, 1)
        self.buffer = np.zeros((STEPS, 5), np.float32)
        self.journal = AppendOnlyFile(out / "replay.bin", np.float32, (5,))
        self.state, self.clock = np.zeros(3), 0
        self.noise = np.random.default_rng(1)
        self.draw = generator(2, "replay")
        self.recorder, self.at_step = recorder, at_step
        self.nan = -1

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.actor.parameters(), 1e-2), torch.optim.Adam(
            self.critic.parameters(), 1e-2
        )

    def journals(self) -> Mapping[str, AppendOnlyFile]:
        return {"replay": self.journal}

    def training_step(self, steps: list[int], _: int) -> None:
        for step in steps:
            self.interact()
            loss = self.update(step)
            if step % 5 == 0:
                self.recorder.log(step, loss=loss.detach())
            self.at_step(step)

    def interact(self) -> None:
        with torch.no_grad():
            action = float(self.actor(torch.tensor(self.state, dtype=torch.float32))) + self.noise.normal()
        reward = -float(self.state @ self.state)
        record = np.array([[*self.state, action, reward]], np.float32)
        self.buffer[len(self.journal)] = record
        self.journal.append(record)
        self.state = 0.9 * self.state + 0.1 * np.array([action, np.sin(self.clock), random.random()])
        self.clock += 1
        if self.clock % HORIZON == 0:
            self.state = self.noise.normal(size=3)

    def update(self, step: int) -> torch.Tensor:
        rows = torch.randint(len(self.journal), (4,), generator=self.draw)
        batch = torch.from_numpy(self.buffer)[rows]
        for optimizer in self.optimizers():
            loss = (self.critic(batch[:, :4]) - batch[:, 4:]).square().mean()
            loss = loss + self.critic(torch.cat([batch[:, :3], self.actor(batch[:, :3])], 1)).mean()
            loss = loss + 0.1 * torch.randn(()) * self.actor.weight.sum()
            check_finite(loss * float("nan") if step == self.nan else loss, step)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["environment"] = {"state": self.state, "clock": self.clock}
        checkpoint["generators"] = {"noise": self.noise.bit_generator.state, "draw": self.draw.get_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.state, self.clock = checkpoint["environment"]["state"], checkpoint["environment"]["clock"]
        self.noise.bit_generator.state = checkpoint["generators"]["noise"]
        self.draw.set_state(checkpoint["generators"]["draw"])
        self.journal.read(self.buffer)


def train(
    out: str,
    kind: str,
    kill_at: int = -1,
    kill_in_save: tuple[int, str] | None = None,
    every_steps: int = 3,
    every_seconds: float = 1e9,
    pause: float = 0.0,
    nan: int = -1,
    steps: int = STEPS,
) -> None:
    """Train to the end, or to the kill, and write the digests of all that a training leaves."""
    folder = Path(out)
    folder.mkdir(exist_ok=True)
    seed_everything(3)

    def at_step(step: int) -> None:
        time.sleep(pause)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_in_save:
        patch_save(*kill_in_save)
    recorder = Recorder(folder)
    if kind in ("manual", "chunked"):
        module: Any = Agent(folder, recorder, at_step)
        data: StepData = StepIndices(steps, chunk=3 if kind == "chunked" else 1)
    else:
        module, data = (
            Classifier(recorder, at_step),
            Samples(steps, workers=int(kind.removeprefix("automatic"))),
        )
    module.nan = nan
    fit(
        module,
        data,
        folder,
        records=[recorder],
        checkpoint_steps=every_steps,
        checkpoint_seconds=every_seconds,
        guard_every=0 if isinstance(module, Agent) else 1,
    )
    recorder.sync()
    (folder / "final.json").write_text(json.dumps(final_state(folder, module)))


def save_forever(out: str, kind: str, numbers: int) -> None:
    """Write checkpoint after checkpoint, and each step to stdout once it is on the disk."""
    folder = Path(out)
    checkpoint.prepare(folder)
    step = int((checkpoint.newest(folder, lambda state: None) or [Path("step-0")])[0].stem.split("-")[1])
    while True:
        step += 1
        files = checkpoint.CheckpointFiles()
        files.save_checkpoint(
            {"step": step, "x": torch.full((numbers,), step)}, checkpoint.step_path(folder, step)
        )
        print(step, flush=True)


def patch_save(nth: int, point: str) -> None:
    """Kill the process in its n-th checkpoint, at one of the moments of a write."""
    count = 0

    def die(moment: str) -> None:
        if count == nth and point == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    save, write_text, prune = checkpoint._save, checkpoint.write_text, checkpoint.prune

    def dying_save(state: Any, file: Any) -> None:
        nonlocal count
        count += 1
        die("before")
        if count == nth and point == "middle":
            with io.BytesIO() as whole:
                torch.save(state, whole)
                file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die("middle")
        save(state, file)
        file.flush()
        die("written")

    def dying_write_text(path: Path, text: str) -> None:
        write_text(path, text)
        die("sidecar")

    def dying_prune(folder: Path) -> None:
        die("renamed")
        prune(folder)
        die("pruned")

    checkpoint._save, checkpoint.write_text, checkpoint.prune = dying_save, dying_write_text, dying_prune


def final_state(folder: Path, module: Any) -> dict[str, str]:
    """Digests of weights, optimisers, schedules, generators and files after the training."""
    trainer = module.trainer
    parts = {
        "weights": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "generators": [random.random(), float(np.random.rand()), torch.rand(3)],  # noqa: NPY002
    }
    if isinstance(module, Agent):
        parts["environment"] = [module.state, module.clock, module.noise.random(), module.draw.get_state()]
        parts["memory"] = module.buffer
        module.journal.sync()
        parts["replay.bin"] = (folder / "replay.bin").read_bytes()
    parts["history.jsonl"] = (folder / "history.jsonl").read_bytes()
    return {name: hashlib.sha256(b"".join(plain(part))).hexdigest() for name, part in parts.items()}


def plain(value: Any) -> Iterator[bytes]:
    """The bytes of nested containers of tensors, arrays and scalars."""
    if isinstance(value, torch.Tensor):
        yield value.detach().numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield value.tobytes()
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key).encode()
            yield from plain(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from plain(item)
    else:
        yield repr(value).encode()


def child(request: dict[str, Any]) -> int:
    """Run one request in this process; the exit code is that of a job."""
    with Path(request.pop("log")).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(request.pop("env", {}))
    limit, uid = request.pop("limit", 0), request.pop("uid", 0)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if uid:
        os.setresuid(uid, uid, uid)
    try:
        save_forever(**request) if request["kind"] == "saver" else train(**request)
    except RethesisError as error:
        print(type(error).__name__, error, flush=True)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def serve() -> None:
    """For each JSON line on stdin: fork, print the child's pid, then its exit code."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve()
