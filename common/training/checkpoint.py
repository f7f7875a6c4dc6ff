"""Checkpoint files that a crash cannot spoil: written whole or not at all, each with its SHA-256 beside it.

Order of a write: temporary file in the same folder, sidecar, fsync, rename. A checkpoint therefore never stands
without its digest; a digest without its checkpoint is a write that did not finish.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import shutil
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from lightning_fabric.plugins import CheckpointIO

from common.errors import BadInputError, StoppedError
from common.files import replacing, sha256, write_text

KEEP = 2
State = dict[str, Any]

log = logging.getLogger(__name__)

# What numpy arrays and scalars of plain numbers pickle to (states of simulators and generators): torch's safe
# unpickler wants each named.
_NUMPY: list[Any] = [
    np.ndarray,
    np.dtype,
    np.zeros(0).__reduce__()[0],
    np.float64(0).__reduce__()[0],
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]


def step_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands."""
    return folder / f"step-{step:012d}.ckpt"


def prepare(folder: Path) -> None:
    """Create the folder, prove that it can be written, and sweep what a killed write left.

    Raises:
        BadInputError: the folder cannot be created or written; says which and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
        for sidecar in folder.glob("*.ckpt.sha256"):
            if not sidecar.with_suffix("").exists():
                sidecar.unlink()
        probe = folder / ".probe"
        write_text(probe, "")
        probe.unlink()
    except OSError as error:
        raise BadInputError(
            f"cannot write checkpoints in {folder}: {error.strerror or error}. Make the folder writable or point "
            "the results somewhere else, then run the same command."
        ) from error


def write(path: Path, state: State) -> None:
    """Write one checkpoint and its ``.sha256``; the file under `path` is whole or absent.

    Raises:
        StoppedError: no room, or the folder cannot be written (any more); earlier checkpoints are intact.
    """
    with disk_errors(path.parent):
        _check_room(path.parent)
        with replacing(path) as file:
            hashing = _Hashing(file)
            _save(state, hashing)
            write_text(_sidecar(path), f"{hashing.digest.hexdigest()}  {path.name}\n")


def read(path: Path) -> State:
    """Read one checkpoint: digest compared, then plain data only (no code is run).

    Raises:
        BadInputError: absent, damaged, or holding objects that are not plain data.
    """
    damage = damaged(path)
    if damage:
        raise BadInputError(f"checkpoint {path} cannot be used: {damage}.")
    try:
        if not zipfile.is_zipfile(path):
            raise pickle.UnpicklingError("it is no archive of torch")
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInputError(
            f"checkpoint {path} was refused: it holds more than numbers, strings and containers ({reason}). "
            "Loading it could run code. If you did not expect this, do not trust the file; delete it to continue."
        ) from error


def damaged(path: Path) -> str | None:
    """What is wrong with a checkpoint's bytes, or None: compares with the SHA-256 beside it."""
    try:
        expected = _sidecar(path).read_text(encoding="utf-8").split()
        actual = sha256(path)
    except (OSError, UnicodeDecodeError) as error:
        return f"it or its .sha256 cannot be read ({error})"
    if expected[:1] == [actual]:
        return None
    return f"its SHA-256 is {actual}, not what {_sidecar(path).name} says"


def newest(folder: Path, usable: Callable[[State], str | None]) -> tuple[Path, State] | None:
    """The newest good checkpoint, or None. Bad ones that are newer are removed, with one warning each.

    Args:
        folder: where ``step_path`` puts them.
        usable: given the state, what makes it unusable here (such as a journal shorter than it says), or None.

    Raises:
        BadInputError: a checkpoint with a correct digest holds objects that are not plain data.
    """
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        reason = damaged(path)
        if reason is None:
            state = read(path)
            reason = usable(state)
            if reason is None:
                return path, state
        log.warning("checkpoint %s cannot be used and is removed: %s; trying the one before it", path, reason)
        remove(path)
    return None


def prune(folder: Path, keep: int = KEEP) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for path in sorted(folder.glob("step-*.ckpt"))[:-keep]:
        remove(path)


def remove(path: Path) -> None:
    """Remove a checkpoint and its digest."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


@contextmanager
def disk_errors(folder: Path) -> Generator[None]:
    """Turn a failing disk into a clear stop.

    Raises:
        StoppedError: on any OSError inside.
    """
    try:
        yield
    except OSError as error:
        raise StoppedError(
            f"cannot write in {folder}: {error.strerror or error}. The checkpoint before is intact: free space (or "
            "make the folder writable) and run the same command, it continues from there."
        ) from error


class CheckpointFiles(CheckpointIO):
    """Lightning's way to these files; `loaded` is a state that was read already, so that it is read once."""

    def __init__(self, loaded: State | None = None) -> None:
        super().__init__()
        self.loaded = loaded

    def save_checkpoint(self, checkpoint: State, path: Any, storage_options: Any | None = None) -> None:
        """Write by ``write`` and keep the last two."""
        write(Path(path), checkpoint)
        prune(Path(path).parent)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> State:
        """Read by ``read``."""
        state, self.loaded = self.loaded, None
        return read(Path(path)) if state is None else state

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and its digest."""
        remove(Path(path))


class _Hashing:
    """A file that hashes what is written, so that an error on the way to the disk is noticed too."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _save(state: State, file: _Hashing) -> None:
    try:
        torch.save(state, file)  # pyright: ignore[reportArgumentType]  (only write and flush are used)
    except RuntimeError as error:
        # torch's zip writer hides the error of the file below it
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _check_room(folder: Path) -> None:
    last = max((path.stat().st_size for path in folder.glob("step-*.ckpt")), default=0)
    free = shutil.disk_usage(folder).free
    if free < 2 * last:
        raise StoppedError(
            f"only {free / 1e6:.1f} MB free in {folder}, and a checkpoint takes {last / 1e6:.1f} MB (twice that is "
            "asked for). The checkpoint before is intact: free space and run the same command, it continues."
        )


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
