"""The one callback of a training: stop flag, checkpoints, journals and generator states, at step boundaries."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from common.errors import NonFiniteError, StoppedError
from common.training import checkpoint, stop
from common.training.data import StepData
from common.training.guards import check_parameters
from common.training.seeds import rng_state, set_rng_state

OWN = "rethesis"
BEFORE_NON_FINITE = "before-non-finite.ckpt"
PROGRESS_SECONDS = 1.0


class Journal(Protocol):
    """A file that only grows: a checkpoint holds its length, a resume cuts it back to that."""

    def length(self) -> int:
        """Length in bytes."""
        ...

    def truncate(self, length: int) -> None:
        """Cut to `length` bytes; ValueError when the file is shorter."""
        ...

    def sync(self) -> None:
        """Make what was appended durable."""
        ...


class Record(Journal, Protocol):
    """What a training needs of ``common.tracking.record.Recorder``: the history, and the progress shown."""

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps are done."""
        ...


@runtime_checkable
class HasJournals(Protocol):
    """A module with append-only files of its own (a replay buffer)."""

    def journals(self) -> Mapping[str, Journal]:
        """The files by name."""
        ...


class Keeper(pl.Callback):
    """Between two batches (n whole steps are done): stop if asked to, checkpoint if due, show progress.

    A checkpoint draws no random number and touches no weight, so how often it is made cannot change a result.

    Args:
        folder: where checkpoints go.
        data: knows the number of steps, and how many are done after so many batches.
        records: of the job, or of every job of a stack.
        journals: append-only files by name, the records' histories included.
        identity: only a checkpoint of the same identity is continued.
        every_steps: checkpoint at multiples of it; 0 for never.
        every_seconds: checkpoint when the last is this old; infinity for never.
    """

    def __init__(
        self,
        folder: Path,
        data: StepData,
        records: tuple[Record, ...],
        journals: Mapping[str, Journal],
        identity: str = "",
        every_steps: int = 0,
        every_seconds: float = math.inf,
    ) -> None:
        self.folder, self.data, self.records, self.journals = folder, data, records, journals
        self.identity = identity
        self.every_steps, self.every_seconds = every_steps, every_seconds
        self.saved: int | None = None  # the step of the newest checkpoint on disk
        self._rng: dict[str, Any] | None = None
        self._read_back = False
        self._next_save = math.inf
        self._next_progress = 0.0

    def resume(self, state: checkpoint.State) -> None:
        """Take over from a checkpoint that is about to be loaded: cut the journals to its lengths."""
        own = state[OWN]
        for name, journal in self.journals.items():
            journal.truncate(own["lengths"][name])
        self.saved, self._rng = own["step"], own["rng"]

    def afresh(self) -> None:
        """Start from nothing: rows that a run without a checkpoint left are dropped."""
        for journal in self.journals.values():
            journal.truncate(0)

    def usable(self, state: checkpoint.State) -> str | None:
        """What keeps a checkpoint from being continued here, or None."""
        own = state.get(OWN)
        if own is None or own["identity"] != self.identity:
            return "it is the checkpoint of another training"
        lengths: dict[str, int] = own["lengths"]
        if lengths.keys() != self.journals.keys():
            return f"it belongs to the files {sorted(lengths)}, and this job has {sorted(self.journals)}"
        for name, journal in self.journals.items():
            if journal.length() < lengths[name]:
                return f"{name} has {journal.length()} bytes, and {lengths[name]} were written before it"
        return None

    def restore_rng(self) -> None:
        """Put the generators' states back, once, after everything that draws while a training is set up."""
        if self._rng is not None:
            set_rng_state(self._rng)
            self._rng = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; take the signals back, which Lightning has wrapped."""
        stop.install()
        self._next_save = time.monotonic() + self.every_seconds

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The boundary before batch `batch_idx`.

        Raises:
            StoppedError: the stop flag is set; a checkpoint of this moment was written.
        """
        if self._rng is not None:
            self.restore_rng()
        now = time.monotonic()
        done = self.data.done(batch_idx)
        reason = stop.requested()
        if reason or now >= self._next_save or self._due(done):
            self.save(trainer, done)
            self._next_save = time.monotonic() + self.every_seconds
        if now >= self._next_progress or reason:
            self._next_progress = now + PROGRESS_SECONDS
            self._show(done)
        if reason:
            raise StoppedError(
                f"stopped after step {done} of {self.data.steps}: {reason}; it continues there."
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last checkpoint: a kill after it costs no step."""
        self.save(trainer, self.data.steps)
        self._show(self.data.steps)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the generators' states and the journals' lengths."""
        step = self.data.done(trainer.fit_loop.epoch_loop.batch_progress.current.completed)
        lengths = {name: journal.length() for name, journal in self.journals.items()}
        checkpoint[OWN] = {"step": step, "identity": self.identity, "rng": rng_state(), "lengths": lengths}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Keep the weights that a non-finite loss did not reach yet, beside the checkpoints (never resumed)."""
        if isinstance(exception, NonFiniteError):
            try:
                check_parameters(pl_module, trainer.fit_loop.batch_idx)
            except NonFiniteError:
                return
            with suppress(StoppedError):  # no room for a keepsake: what is told is the loss
                trainer.save_checkpoint(self.folder / BEFORE_NON_FINITE)

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Write the checkpoint of `step`, unless it stands.

        Raises:
            NonFiniteError: a parameter is not finite; nothing was written.
            StoppedError: the disk is full or the folder cannot be written; the checkpoint before is intact.
            BadInputError: the state holds what cannot be read back as plain data (checked at the first write).
        """
        if step == self.saved:
            return
        check_parameters(trainer.lightning_module, step)
        with checkpoint.disk_errors(self.folder):
            for journal in self.journals.values():
                journal.sync()
        path = checkpoint.step_path(self.folder, step)
        trainer.save_checkpoint(path)
        if not self._read_back:
            checkpoint.read(path)
            self._read_back = True
        self.saved = step

    def _due(self, done: int) -> bool:
        return self.every_steps > 0 and done > 0 and done % self.every_steps < self.data.chunk

    def _show(self, done: int) -> None:
        for record in self.records:
            record.progress(done, self.data.steps)
