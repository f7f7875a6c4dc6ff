"""An append-only file of fixed-size records: the replay buffer on disk, never rewritten at a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class AppendOnlyFile:
    """Records of one dtype and shape, appended in memory order.

    A checkpoint stores ``length()`` after ``sync()``; a resume calls ``truncate`` with it. What was appended after
    the last checkpoint is thrown away, and a torn last record is cut when the file is opened.

    Attributes:
        path: the file; created empty when absent.
        dtype: dtype of a record's elements (may be structured).
        shape: shape of one record, ``()`` for a scalar or a structured record.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self.path = path
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self._record = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if self._record <= 0 or self.dtype.hasobject:
            raise TypeError(f"a record must have a fixed, positive size, not {self.dtype}{list(shape)}")
        self._file = path.open("ab", buffering=1 << 18)
        self._bytes = path.stat().st_size
        self.truncate(self._bytes - self._bytes % self._record)

    def __len__(self) -> int:
        """Number of records."""
        return self._bytes // self._record

    def append(self, records: NDArray[Any]) -> None:
        """Append records ``[n, *shape]``, or one ``[*shape]``, of exactly the file's dtype.

        Raises:
            TypeError: another dtype (nothing is cast silently).
            ValueError: another shape.
        """
        if records.dtype != self.dtype:
            raise TypeError(f"{self.path.name} holds {self.dtype}, not {records.dtype}")
        if records.shape != self.shape and records.shape[1:] != self.shape:
            raise ValueError(f"{self.path.name} holds records of shape {self.shape}, not {records.shape}")
        self._bytes += self._file.write(records.tobytes())

    def read(self, into: NDArray[Any]) -> int:
        """Fill the first records of a preallocated contiguous array ``[capacity, *shape]``; return how many.

        Raises:
            ValueError: the array is too small, or of another dtype or shape.
        """
        count = len(self)
        if into.dtype != self.dtype or into.shape[1:] != self.shape or len(into) < count:
            wanted = f"{self.dtype} of at least {(count, *self.shape)}"
            raise ValueError(f"{self.path.name} needs {wanted}, got {into.dtype} of {into.shape}")
        self._file.flush()
        into[:count] = np.memmap(self.path, self.dtype, "r", shape=(count, *self.shape)) if count else 0
        return count

    def length(self) -> int:
        """Length in bytes, what is not flushed yet included."""
        return self._bytes

    def truncate(self, length: int) -> None:
        """Cut the file to `length` bytes, a whole number of records.

        Raises:
            ValueError: the file is shorter, or a record would be cut.
        """
        if not 0 <= length <= self._bytes or length % self._record:
            raise ValueError(f"cannot cut {self.path} of {self._bytes} bytes to {length}")
        self._file.flush()
        os.ftruncate(self._file.fileno(), length)
        self._bytes = length

    def sync(self) -> None:
        """Make everything appended so far durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; not needed when the process ends after a ``sync``."""
        self._file.close()
