"""What ``fit`` needs to know where a training runs: in this process alone, or on all processes of the job.

The batch of a step is the same whatever the number of processes; each takes its share of it. So averaged gradients
are those of one process up to rounding, and a training may be continued on another number of processes; it ends with
the same bits on the same number.
"""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from typing_extensions import override

from common.cluster.environment import StartedElsewhere
from common.cluster.ranks import STRATEGIES, address, place, strategy
from common.errors import BadInputError, StoppedError, unknown
from common.training import checkpoint, stop
from common.training.data import StepData
from common.training.guards import FiniteGuard
from common.training.keeper import OWN, PROGRESS_SECONDS, Keeper
from common.training.seeds import stream
from common.training.sharded import Sharded


class Alone:
    """A training in one process."""

    keeper: type[Keeper] = Keeper
    guard: type[FiniteGuard] = FiniteGuard
    first = True  # whether this process writes

    def folder(self, path: Path) -> Path:
        """Where the checkpoints are, ready to be written to.

        Raises:
            BadInputError: it cannot be written.
        """
        checkpoint.prepare(path)
        return path

    def newest(self, folder: Path, keeper: Keeper) -> tuple[Path, checkpoint.State] | None:
        """The newest good checkpoint."""
        return checkpoint.newest(folder, keeper.usable)

    def options(self, files: checkpoint.CheckpointFiles) -> dict[str, Any]:
        """Of the Trainer."""
        # A scheduler's variables must not add a second handler of signals beside the stop flag.
        return {"devices": 1, "plugins": [files, LightningEnvironment()]}

    def end(self, module: pl.LightningModule) -> None:
        """Leave the module as one process would."""


class Team(Alone):
    """A training on all processes of the job, which this joins. Every process makes it, and makes the same calls.

    The stop flag of any process stops all at the same step, by one all-reduce a step, which also decides when a
    checkpoint is due. Rank 0 alone writes, into its own folder.

    Args:
        module: what is trained. One with ``averages_gradients`` does so itself (common.optim) and is not wrapped;
            one that makes its own steps can be sharded if it says ``steps_on_parts``, or ``cuts_itself`` if it holds
            its weights in parts without being told (common.processes.cut).
        data: hands each process its share of a batch.
        device: "cpu" or "cuda".

    Raises:
        BadInputError: the data cannot be shared, the strategy is unknown or not for this module, or the nodes have
            different numbers of processes.
    """

    def __init__(self, module: pl.LightningModule, data: StepData, device: str) -> None:
        self.here, self.device = place(), device
        if not data.divides:
            raise BadInputError(
                f"{type(data).__name__} cannot be shared by {self.here.size} processes: this training makes its own "
                "data or trains several networks at once. Set parallel.processes=1 and parallel.nodes=1."
            )
        self.strategy = self._strategy(module)
        self.keeper, self.guard, self.first = _SharedKeeper, _SharedGuard, self.here.rank == 0
        self._connect()

    @override
    def folder(self, path: Path) -> Path:
        """Rank 0's own, in all processes."""
        if self.first:
            checkpoint.prepare(path)
        return Path(_from_first(str(path.resolve())))

    @override
    def newest(self, folder: Path, keeper: Keeper) -> tuple[Path, checkpoint.State] | None:
        """Rank 0 chooses, and removes what is damaged; the others read the same file."""
        found = checkpoint.newest(folder, keeper.usable) if self.first else None
        name = _from_first(str(found[0]) if found else "")
        return (Path(name), checkpoint.read(Path(name))) if name and not self.first else found

    @override
    def options(self, files: checkpoint.CheckpointFiles) -> dict[str, Any]:
        """Nodes, devices, and how the processes work together."""
        each = self._per_node()
        return {
            "devices": each,
            "num_nodes": self.here.size // each,
            "strategy": self.strategy,
            "plugins": [files, StartedElsewhere(self.here)],
        }

    @override
    def end(self, module: pl.LightningModule) -> None:
        """Put sharded weights together."""
        if isinstance(self.strategy, Sharded):
            self.strategy.gather()

    def _strategy(self, module: pl.LightningModule) -> Strategy:
        name = strategy()
        if name not in STRATEGIES:
            raise unknown("parallel.strategy", name, STRATEGIES)
        itself = bool(getattr(module, "averages_gradients", False))
        if name == "ddp":
            return (_Unwrapped if itself else DDPStrategy)(process_group_backend=_backend(self.device))
        if getattr(module, "cuts_itself", False):
            return _Untouched(process_group_backend=_backend(self.device))
        if not (module.automatic_optimization or getattr(module, "steps_on_parts", False)):
            raise BadInputError(
                f"{type(module).__name__} makes its own steps and cannot be sharded: set parallel.strategy=ddp."
            )
        return Sharded(module, self.here.size, _backend(self.device))

    def _connect(self) -> None:
        """Join the job's processes, once a process."""
        if self.device == "cuda":
            torch.cuda.set_device(self.here.local_rank)
        if dist.is_initialized():
            return
        host, port = address()
        dist.init_process_group(
            _backend(self.device),
            init_method=f"tcp://{host}:{port}",
            rank=self.here.rank,
            world_size=self.here.size,
        )
        atexit.register(dist.destroy_process_group)

    def _per_node(self) -> int:
        nodes: list[Any] = [None] * self.here.size
        dist.all_gather_object(nodes, self.here.node)
        counts = {nodes.count(node) for node in nodes}
        if len(counts) > 1:
            raise BadInputError(f"nodes with {sorted(counts)} processes: every node needs the same number.")
        return counts.pop()


class _Unwrapped(DDPStrategy):
    """The processes of DDP without its averaging, for a module that averages its gradients itself."""

    @override
    def _setup_model(self, model: nn.Module) -> Any:
        for value in (*model.parameters(), *model.buffers()):
            dist.broadcast(value.detach(), 0)
        return model


class _Untouched(DDPStrategy):
    """The processes alone: the module's weights are other ones on each."""

    @override
    def _setup_model(self, model: nn.Module) -> Any:
        return model


class _SharedKeeper(Keeper):
    """A Keeper whose decisions all ranks make together, and whose checkpoints hold every rank's generators."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read_back = place().rank > 0  # rank 0 reads for all

    @override
    def afresh(self) -> None:
        """Draws inside the network (dropout) are each rank's own."""
        super().afresh()
        self._streams_apart()

    @override
    def resume(self, state: checkpoint.State) -> None:
        """Take over rank 0's journals and this rank's generators; of another number of ranks, streams apart."""
        super().resume(state)
        here, states = place(), state[OWN].get("ranks", [])
        if len(states) == here.size:
            self._rng = states[here.rank]
        elif here.rank:
            self._rng = None
            self._streams_apart()

    @override
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

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add every rank's generators."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        states: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(states, checkpoint[OWN]["rng"])
        checkpoint[OWN]["ranks"] = states

    def _streams_apart(self) -> None:
        rank = place().rank
        if rank:
            torch.manual_seed(stream(torch.initial_seed(), "rank", rank, self.saved or 0))


class _SharedGuard(FiniteGuard):
    """Looks at the averaged gradient alone: it is not finite on all ranks when it is so on one."""

    @override
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """A loss is one rank's own; raising here would leave the others waiting."""


def team(module: pl.LightningModule, data: StepData, device: str) -> Alone:
    """Where this training runs: with the job's other processes, if a starter says that there are any."""
    return Alone() if place().size == 1 else Team(module, data, device)


def _backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


def _from_first(text: str) -> str:
    box = [text]
    dist.broadcast_object_list(box)
    return box[0]
