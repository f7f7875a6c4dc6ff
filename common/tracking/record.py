"""The record of a job: curves, clock and progress as JSON lines. The truth that every view is made from.

history.jsonl is part of "same bits": it holds no clock, floats are written by `repr`, keys in the order
given. Clock times and resources go to timing.jsonl, which no result may depend on.
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat, cast

from common.errors import BadInputError

HISTORY = "history.jsonl"
TIMING = "timing.jsonl"
PROGRESS = "progress.json"
TIMING_SECONDS = 5.0
PROGRESS_SECONDS = 1.0

Row = dict[str, int | float | None]


class Recorder:
    """Appends to the record of the job in `out`. An existing history is continued.

    A resume calls `truncate` with the length its checkpoint holds; a fresh start calls ``truncate(0)``.
    Every line is one write at the end of the file, so a follower and a kill see whole lines; what `sync`
    returned for also survives a power cut.

    Raises:
        OSError: the folder is missing, read-only or full. Only history.jsonl can raise while logging: a
            lost clock time or progress bar never stops a job.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._history = _open(out / HISTORY)
        self._timing = _open(out / TIMING)
        self._close = weakref.finalize(self, _close, self._history, self._timing)
        self._started = time.time()
        self._next_timing = 0.0
        self._next_progress = 0.0
        self._first_done: int | None = None

    def log(self, step: int, **values: SupportsFloat) -> None:
        """Append one row. NaN and infinities are written as null, because JSON has neither.

        Args:
            step: the step axis of the curves; rows of one job may share a step.
            values: scalars; integers stay integers, anything else becomes a float (which waits for a GPU).
        """
        row: Row = {"step": int(step)}
        for key, value in values.items():
            row[key] = _number(value)
        _append(self._history, row)
        now = time.monotonic()
        if now >= self._next_timing:
            self._next_timing = now + TIMING_SECONDS
            self._clock(step)

    def sync(self) -> None:
        """Make every row so far durable (fsync); call it before a checkpoint is written."""
        os.fsync(self._history)

    def length(self) -> int:
        """Length of history.jsonl in bytes: a checkpoint keeps it."""
        return os.fstat(self._history).st_size

    def truncate(self, length: int) -> None:
        """Drop the rows after `length` bytes: they were logged after the checkpoint that is resumed.

        Raises:
            ValueError: history.jsonl is shorter than that, so rows before the checkpoint are lost.
        """
        if length > self.length():
            raise ValueError(f"{self._out / HISTORY}: {self.length()} bytes, the checkpoint counted {length}")
        os.ftruncate(self._history, length)

    def progress(self, done: int, total: int) -> None:
        """Write progress.json at most once a second, and at the end: done, total and the times for an ETA.

        The rate of this process is ``(done - first) / (time - started)``, Unix seconds; after a resume
        `first` is not 0.
        """
        if self._first_done is None:
            self._first_done = done
        now = time.monotonic()
        if now < self._next_progress and done < total:
            return
        self._next_progress = now + PROGRESS_SECONDS
        state = {"done": done, "total": total, "first": self._first_done}
        state |= {"started": round(self._started, 3), "time": round(time.time(), 3)}
        temporary = self._out / f".{PROGRESS}.{os.getpid()}.tmp"
        with suppress(OSError):
            # No fsync: after a power cut the bar may be old, and a job would wait for the disk every second.
            temporary.write_text(json.dumps(state) + "\n", encoding="utf-8")
            temporary.replace(self._out / PROGRESS)

    def close(self) -> None:
        """Make the rows durable and close the files; a second call does nothing."""
        if self._close.alive:
            self.sync()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _clock(self, step: int) -> None:
        import psutil

        process = psutil.Process()
        times = process.cpu_times()
        cpu = times.user + times.system + times.children_user + times.children_system
        row: Row = {"step": int(step), "time": round(time.time(), 3)}
        row |= {"cpu_seconds": round(cpu, 2), "rss_bytes": int(process.memory_info().rss)}
        with suppress(OSError):
            _append(self._timing, row)


def read_history(path: Path) -> list[Row]:
    """The rows of a history.jsonl or timing.jsonl; a torn last line and a missing file count as not written.

    Raises:
        BadInputError: a whole line is no JSON object: the file was damaged or edited.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [_parse(line, path) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def _parse(line: bytes, path: Path) -> Row:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise BadInputError(
            f"{path} is damaged: {line[:60]!r} is no JSON object. Delete its folder; the job runs again."
        )
    return cast(Row, row)


def _number(value: SupportsFloat) -> int | float | None:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    size = os.fstat(descriptor).st_size
    # A line torn by a full disk or a power cut would swallow the next one.
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)
    return descriptor


def _append(descriptor: int, row: Mapping[str, int | float | None]) -> None:
    line = memoryview(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")
    written = os.write(descriptor, line)
    try:
        while written < len(line):  # only a nearly full disk or a file-size limit writes less than asked
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        raise


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
