"""The one place that builds a Trainer: deterministic, quiet, and resumed to the bit after any kill."""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils import deterministic

from common.errors import BadInputError, StoppedError
from common.training import checkpoint, stop
from common.training.data import StepData
from common.training.keeper import HasJournals, Journal, Record
from common.training.parallel import Alone, team

CHECKPOINTS = "checkpoints"


def fit(
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
    """Train `module` for ``data.steps`` steps, or continue from the newest good checkpoint in ``out/checkpoints``.

    However often and wherever it is killed, weights, optimiser, history and append-only files end with the same
    bits (on one CPU model), as long as (1) the data are a pure function of the step, see common.training.data;
    (2) state of the module that is neither a parameter, buffer nor optimiser, such as an environment or a
    generator of its own, passes through ``on_save_checkpoint`` and ``on_load_checkpoint`` as tensors, numpy
    arrays and plain containers; (3) its append-only files are named by ``journals()``. These are already cut
    when ``on_load_checkpoint`` is called, and empty on a fresh start: fill them in steps only.

    Where several processes were started for the job (common.cluster.ranks), all of them call it, and train together.

    Args:
        module: automatic or manual optimisation; a step is one ``training_step``.
        data: the batches.
        out: the job's folder.
        records: the job's Recorder, or those of every job of a stack; used by this training alone. Their
            histories are cut to the checkpoint's length, or to nothing on a fresh start.
        identity: of what is trained, for a stack its members: a checkpoint of another identity is not continued.
        device: "cpu" or "cuda", as the config says; nothing is detected.
        threads: CPU threads of torch.
        checkpoint_seconds: at most so much work is lost by a kill; infinity for no clock.
        checkpoint_steps: also at multiples of it; 0 for never.
        guard_every: check losses and gradients at multiples of it; 0 for a module that calls ``check_finite``.
        callbacks: more Lightning callbacks, for what belongs to a project.

    Raises:
        StoppedError: stop flag, deadline or full disk; a checkpoint is there, the same call continues.
        NonFiniteError: loss, gradient or weight; the state before is kept.
        BadInputError: folder not writable, device absent, a checkpoint that is not plain data, or a training that
            several processes cannot share.
    """
    _check(device)
    stop.install()
    torch.set_num_threads(threads)
    where = team(module, data, device)
    folder = where.folder(out / CHECKPOINTS)
    shown = tuple(records) if where.first else ()
    journals: dict[str, Journal] = {f"history {i}": record for i, record in enumerate(shown)}
    if isinstance(module, HasJournals) and where.first:
        journals |= module.journals()
    keeper = where.keeper(folder, data, shown, journals, identity, checkpoint_steps, checkpoint_seconds)
    path, state = where.newest(folder, keeper) or (None, None)
    if state is None:
        keeper.afresh()
    else:
        keeper.resume(state)
    with _quiet(), _stops():
        guards = [where.guard(guard_every)] if guard_every else []
        files = checkpoint.CheckpointFiles(state)
        trainer = _trainer([*guards, *callbacks, keeper], files, device, folder.parent, where)
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        where.end(module)
    keeper.restore_rng()  # where no step was left to do


def _check(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise BadInputError(f"device {device!r} is unknown. Valid: cpu, cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "device is cuda, and torch sees no CUDA device. Set device=cpu or use another machine."
        )


def _trainer(
    callbacks: list[pl.Callback], files: checkpoint.CheckpointFiles, device: str, out: Path, where: Alone
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator=device,
        max_epochs=1,
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=callbacks,
        default_root_dir=out,
        **where.options(files),
    )
    # Filling every torch.empty with NaN finds bugs; it changes no result and costs small networks dearly.
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    return trainer


@contextmanager
def _stops() -> Generator[None]:
    """A full disk, or a signal in the moment when Lightning holds the handlers, is a stop and not a failure."""
    try:
        yield
    except SIGTERMException as error:
        raise StoppedError("stopped by SIGTERM; the same command continues.") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StoppedError(
            f"the disk is full ({error}). The last checkpoint is intact: free space and run the same command."
        ) from error


@contextmanager
def _quiet() -> Generator[None]:
    """Silence Lightning's adverts, tips and device lines, and the warnings that this design makes moot."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
