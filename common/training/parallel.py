"""Training on many processes: ``fit`` on all ranks of a job, with one decision at every step boundary.

The batch of a step is the same whatever the number of processes; each takes its share of it. So averaged gradients
are those of one process up to rounding, and a training may be continued on another number of processes; it ends with
the same bits on the same number.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.utils import deterministic
from torch.utils.data import Sampler

from common.cluster.environment import StartedElsewhere
from common.cluster.ranks import Place, address, place
from common.errors import BadInputError, StoppedError
from common.training import checkpoint, fit, stop
from common.training.data import Key, StepData
from common.training.guards import FiniteGuard
from common.training.keeper import OWN, PROGRESS_SECONDS, HasJournals, Journal, Keeper, Record
from common.training.seeds import stream


class Shares(Sampler[list[Key]]):
    """Of each batch of a sampler the keys ``rank, rank + size, rank + 2 size, ...``.

    Args:
        batches: the whole batches, the same on every rank.
        here: this process's place.
    """

    def __init__(self, batches: Sampler[list[Key]], here: Place | None = None) -> None:
        self.batches, self.here = batches, here or place()

    def __len__(self) -> int:
        return len(self.batches)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[list[Key]]:
        """Raise BadInputError when a batch cannot be shared equally: gradients are averaged with equal weight."""
        for batch in self.batches:
            if len(batch) % self.here.size:
                raise BadInputError(
                    f"a batch of {len(batch)} cannot be shared by {self.here.size} processes; make it a multiple."
                )
            yield batch[self.here.rank :: self.here.size]


def fit_parallel(
    module: pl.LightningModule,
    data: StepData,
    out: Path,
    *,
    records: Sequence[Record] = (),
    identity: str = "",
    device: str = "cpu",
    threads: int = 1,
    checkpoint_seconds: float = 30.0,
    checkpoint_steps: int = 0,
    guard_every: int = 1,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """``common.training.fit.fit`` by distributed data parallel on all processes of the job; alone it is ``fit``.

    Every rank calls it. `data` hands each rank its share of a step's batch (``Shares``). Rank 0 alone writes:
    checkpoints into its own `out`, which the others are told, and `records`. The stop flag of any rank stops all at
    the same step, by one all-reduce a step, which also decides when a checkpoint is due.

    Args: as of ``fit``.

    Raises:
        StoppedError: as ``fit``, on every rank.
        NonFiniteError: as ``fit``, on every rank (the averaged gradient shows it to all).
        BadInputError: as ``fit``; or the job's processes do not fit nodes × devices.
    """
    here = place()
    if here.size == 1:
        fit.fit(
            module, data, out, records=records, identity=identity, device=device, threads=threads,
            checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps, guard_every=guard_every,
            callbacks=callbacks,
        )  # fmt: skip
        return
    stop.install()
    torch.set_num_threads(threads)
    _connect(here, device)
    folder = Path(_from_first(str((out / fit.CHECKPOINTS).resolve())))
    keeper = _keeper(module, data, folder, records, identity, checkpoint_steps, checkpoint_seconds)
    path, state = _newest(folder, keeper, here) or (None, None)
    if state is None:
        keeper.afresh()
    else:
        keeper.resume(state)
    guards = [_SharedGuard(guard_every)] if guard_every else []
    with fit._quiet(), fit._stops():  # pyright: ignore[reportPrivateUsage]
        trainer = pl.Trainer(
            accelerator=device, devices=_per_node(here), num_nodes=here.size // _per_node(here),
            strategy=DDPStrategy(process_group_backend=_backend(device)), max_epochs=1, deterministic=True,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, num_sanity_val_steps=0, use_distributed_sampler=False,
            callbacks=[*guards, *callbacks, keeper], default_root_dir=folder.parent,
            plugins=[checkpoint.CheckpointFiles(state), StartedElsewhere(here)],
        )  # fmt: skip
        deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    keeper.restore_rng()


class _SharedKeeper(Keeper):
    """A Keeper whose decisions all ranks make together, and whose checkpoints hold every rank's generators."""

    def resume(self, state: checkpoint.State) -> None:
        """Take over rank 0's journals and this rank's generators; of another number of ranks, streams apart."""
        super().resume(state)
        here, states = place(), state[OWN]["ranks"]
        if len(states) == here.size:
            self._rng = states[here.rank]
        elif here.rank:
            self._rng = None
            torch.manual_seed(stream(self.saved or 0, "rank", here.rank))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The boundary before batch `batch_idx`: what one rank wants, all do.

        Raises:
            StoppedError: the stop flag is set on some rank; a checkpoint of this moment was written.
        """
        self.restore_rng()
        now, done, mine = time.monotonic(), self.data.done(batch_idx), stop.requested()
        wishes = torch.tensor(
            [mine is not None, now >= self._next_save], dtype=torch.int32, device=pl_module.device
        )
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        stopping, due = bool(wishes[0]), bool(wishes[1])
        if stopping or due or self._due(done):
            self.save(trainer, done)
            self._next_save = time.monotonic() + self.every_seconds
        if now >= self._next_progress or stopping:
            self._next_progress = now + PROGRESS_SECONDS
            self._show(done)
        if stopping:
            reason = mine or "another process of the job was told to"
            raise StoppedError(
                f"stopped after step {done} of {self.data.steps}: {reason}; it continues there."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add every rank's generators."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        states: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(states, checkpoint[OWN]["rng"])
        checkpoint[OWN]["ranks"] = states


class _SharedGuard(FiniteGuard):
    """Looks at the averaged gradient alone: it is not finite on all ranks when it is so on one."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """A loss is one rank's own; raising here would leave the others waiting."""


def _keeper(
    module: pl.LightningModule, data: StepData, folder: Path, records: Sequence[Record], identity: str,
    every_steps: int, every_seconds: float,
) -> _SharedKeeper:  # fmt: skip
    first = place().rank == 0
    journals: dict[str, Journal] = {f"history {i}": record for i, record in enumerate(records)}
    if isinstance(module, HasJournals):
        journals |= module.journals()
    shown, files = (tuple(records), journals) if first else ((), {})
    keeper = _SharedKeeper(folder, data, shown, files, identity, every_steps, every_seconds)
    keeper._read_back = not first  # pyright: ignore[reportPrivateUsage]  # rank 0 reads for all
    return keeper


def _newest(folder: Path, keeper: Keeper, here: Place) -> tuple[Path, checkpoint.State] | None:
    """Rank 0 chooses, and removes what is damaged; the others read the same file."""
    found = None
    if here.rank == 0:
        checkpoint.prepare(folder)
        found = checkpoint.newest(folder, keeper.usable)
    name = _from_first(str(found[0]) if found else "")
    if here.rank and name:
        found = Path(name), checkpoint.read(Path(name))
    return found


def _connect(here: Place, device: str) -> None:
    """Join the job's processes, once a process."""
    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(here.local_rank)
    host, port = address()
    dist.init_process_group(
        _backend(device), init_method=f"tcp://{host}:{port}", rank=here.rank, world_size=here.size
    )
    atexit.register(dist.destroy_process_group)


def _backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


def _from_first(text: str) -> str:
    box = [text]
    dist.broadcast_object_list(box)
    return box[0]


def _per_node(here: Place) -> int:
    """Processes of each node.

    Raises:
        BadInputError: the nodes have different numbers of them.
    """
    nodes: list[Any] = [None] * here.size
    dist.all_gather_object(nodes, here.node)
    counts = {nodes.count(node) for node in nodes}
    if len(counts) > 1:
        raise BadInputError(f"nodes with {sorted(counts)} processes: every node needs the same number.")
    return counts.pop()
