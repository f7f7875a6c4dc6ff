"""Data that start at any step: batches are a pure function of (seed, step), so that a resume replays nothing.

Lightning sees a whole training as one epoch of `steps` batches. Passes over a data set are the sampler's matter;
schedules count steps.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.cluster.ranks import Place, place
from common.training import stop
from common.training.seeds import generator

Key = tuple[int, int]
Augment = Callable[[Any, torch.Generator], Any]


class StepData(pl.LightningDataModule):
    """A data module that hands out the batches from step `start` on; a resume sets `start`.

    ``train_dataloader()`` returns an iterable over these batches whose ``len()`` counts all batches from step 0,
    whatever `start` is (Lightning adds those already done when it counts).

    Args:
        steps: steps of the whole training.
        chunk: steps that one batch stands for; stop flag and checkpoints are looked at between batches.

    Attributes:
        divides: whether each process gets its part of a batch, as by ``shared``; a training on several processes
            needs it.
    """

    divides = False

    def __init__(self, steps: int, chunk: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.chunk = chunk
        self.start = 0

    def state_dict(self) -> dict[str, Any]:
        """The position: number of steps done."""
        trainer = self.trainer
        assert trainer is not None
        return {"start": self.done(trainer.fit_loop.epoch_loop.batch_progress.current.completed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the position back; called before ``train_dataloader``."""
        self.start = state_dict["start"]

    def done(self, batches: int) -> int:
        """Steps done after so many batches."""
        return min(batches * self.chunk, self.steps)


class StepIndices(StepData):
    """Data for a loop that makes its own (reinforcement learning): a batch is a list of `chunk` step numbers.

    ``training_step(steps, _)`` does them one after the other. Lightning's own work is 0.25 to 0.4 ms a batch, so
    a chunk of ten makes it vanish beside steps of a few milliseconds, and a stop still comes soon.

    Args:
        steps, chunk: see ``StepData``.
        divides: whether the loop takes its process's part of what it draws (``common.processes.shares``).
    """

    def __init__(self, steps: int, chunk: int = 1, divides: bool = False) -> None:
        super().__init__(steps, chunk)
        self.divides = divides

    def train_dataloader(self) -> StepChunks:
        """The numbers ``start`` to ``steps - 1``, in chunks."""
        return StepChunks(self.start, self.steps, self.chunk)


class StepChunks:
    """``range(start, steps)`` in lists of `chunk` numbers, with the length that Lightning expects: from step 0."""

    def __init__(self, start: int, steps: int, chunk: int) -> None:
        self.start, self.steps, self.chunk = start, steps, chunk

    def __len__(self) -> int:
        return math.ceil(self.steps / self.chunk)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.steps, self.chunk):
            yield list(range(first, min(first + self.chunk, self.steps)))


class StepSampler(Sampler[list[Key]]):
    """Shuffled batches of (step, index); pass over the data number e is the permutation of (seed, "shuffle", e).

    A pass has ``size // batch`` batches; the few indices left over are other ones in each pass.

    Args:
        size: number of samples.
        batch: samples a batch, at most `size`.
        steps: number of batches in the whole training.
        seed: of the permutations.
        start: the first step to yield.
    """

    def __init__(self, size: int, batch: int, steps: int, seed: int, start: int = 0) -> None:
        if not 0 < batch <= size:
            raise ValueError(f"a batch of {batch} cannot be drawn from {size} samples")
        self.size, self.batch, self.steps, self.seed, self.start = size, batch, steps, seed, start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        number, order = -1, torch.empty(0)
        per_pass = self.size // self.batch
        for step in range(self.start, self.steps):
            epoch, at = divmod(step, per_pass)
            if epoch != number:
                number = epoch
                order = torch.randperm(self.size, generator=generator(self.seed, "shuffle", epoch))
            yield [(step, int(i)) for i in order[at * self.batch : (at + 1) * self.batch]]


def shared(batches: Sampler[list[Key]], here: Place | None = None) -> Sampler[list[Key]]:
    """The batches themselves, or of each of them this process's part where a training runs on several processes.

    Args:
        batches: the whole ones, the same in every process.
        here: this process's place, by default what its starter says.
    """
    here = here or place()
    return batches if here.size == 1 else _Shares(batches, here)


class _Shares(Sampler[list[Key]]):
    def __init__(self, batches: Sampler[list[Key]], here: Place) -> None:
        self.batches, self.here = batches, here

    def __len__(self) -> int:
        return len(self.batches)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            yield self.here.share(batch)


class Keyed(Dataset[Any]):
    """A map-style data set for ``StepSampler``: sample `index`, augmented by the generator of (seed, step, index).

    Args:
        samples: the data set, indexed by int.
        seed: of the augmentation.
        augment: ``(sample, generator) -> sample``, or None.
    """

    def __init__(self, samples: Dataset[Any], seed: int, augment: Augment | None = None) -> None:
        self.samples, self.seed, self.augment = samples, seed, augment

    def __getitem__(self, key: Key) -> Any:
        step, index = key
        sample = self.samples[index]
        return self.augment(sample, generator(self.seed, "augment", step, index)) if self.augment else sample


def loader(
    samples: Dataset[Any], sampler: Sampler[list[Key]], workers: int = 0, **options: Any
) -> DataLoader[Any]:
    """A DataLoader whose worker processes outlive the stop signals.

    A scheduler signals the whole process group, and torch lets a worker die of SIGTERM, which would end the
    training before its checkpoint.

    Args:
        samples: indexed by the sampler's keys, see ``Keyed``.
        sampler: which samples each batch takes.
        workers: processes; 0 loads in this one.
        options: more options of DataLoader.
    """
    return DataLoader(
        samples, batch_sampler=sampler, num_workers=workers, worker_init_fn=_ignore_stop_signals, **options
    )


def _ignore_stop_signals(worker: int) -> None:
    for number in stop.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
