"""Hardware counters of the calling thread round a kernel, where the machine has them: Linux's perf_event_open.

The kernel counts in user mode only, which kernel.perf_event_paranoid = 2 still allows. Virtual machines often have no
counters: every event is opened by itself, and what cannot be counted is named with the reason. All events of a
measurement start and stop together. Layout and constants: man 2 perf_event_open, linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HARDWARE, SOFTWARE, CACHE = 0, 1, 3  # perf_type_id
FIRST, LAST = 0, 2  # perf_hw_cache_id: the first data cache, the last cache
READ_MISSES = 1 << 16  # perf_hw_cache_op_id and perf_hw_cache_op_result_id, in their places
EVENTS: Mapping[str, tuple[int, int]] = {
    "cycles": (HARDWARE, 0),
    "instructions": (HARDWARE, 1),
    "l1_misses": (CACHE, FIRST | READ_MISSES),
    "llc_misses": (CACHE, LAST | READ_MISSES),
}
"""Name -> (type, config): what is counted, loads only for the caches."""

SIZE = 112  # bytes of perf_event_attr, version 5
DISABLED, NO_KERNEL, NO_HYPERVISOR = 1, 1 << 5, 1 << 6
TIMES = 1 | 2  # a reading holds the time that the event was enabled, and the time that it had a counter
SYSCALL = 298  # of x86-64
CLOSE_ON_EXEC = 8
ENABLE, DISABLE, GROUP = 0x2400, 0x2401, 1
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
Reading = tuple[int, int, int]
"""Count, nanoseconds enabled, nanoseconds that it ran."""


@dataclass(frozen=True)
class Counting:
    """Open events.

    Attributes:
        files: event -> its file descriptor; the first one leads, the others start and stop with it.
        missing: event -> why it cannot be counted here.
    """

    files: Mapping[str, int]
    missing: Mapping[str, str]

    def per_call(self, call: Callable[[], object], turns: int = 1) -> dict[str, float]:
        """Event -> its count a call, over `turns` calls in a row; what Python does round them is in it. An event that
        never had a counter is left out.
        """
        if not self.files:
            return {}
        before, leader = self._read(), next(iter(self.files.values()))
        fcntl.ioctl(leader, ENABLE, GROUP)
        for _ in range(turns):
            call()
        fcntl.ioctl(leader, DISABLE, GROUP)
        after = self._read()
        counts = {name: scaled(before[name], after[name]) for name in self.files}
        return {name: count / turns for name, count in counts.items() if count is not None}

    def announce(self) -> str:
        """One line: what is counted, and what is not and why."""
        words = [f"not available: {name}: {reason}" for name, reason in self.missing.items()]
        return "hardware counters: " + "; ".join([", ".join(self.files) or "none", *words])

    def _read(self) -> dict[str, Reading]:
        return {name: struct.unpack("<QQQ", os.read(file, 24)) for name, file in self.files.items()}


@contextmanager
def counting(events: Mapping[str, tuple[int, int]] = EVENTS) -> Generator[Counting]:
    """The events that this machine can count, open until the block ends; none of them is an error."""
    files: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name, (kind, config) in events.items():
        try:
            files[name] = _open(kind, config, next(iter(files.values()), -1))
        except OSError as error:
            missing[name] = why(error.errno or 0)
    try:
        yield Counting(files, missing)
    finally:
        for file in files.values():
            os.close(file)


def scaled(before: Reading, after: Reading) -> float | None:
    """What was counted between two readings, scaled up if events shared a counter; None: it never had one."""
    count, enabled, ran = (late - early for early, late in zip(before, after, strict=True))
    return count * enabled / ran if ran else None


def why(code: int) -> str:
    """The system's error when an event is opened, for a person."""
    if code in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return "this CPU, or the virtual machine around it, has no such counter"
    if code in (errno.EACCES, errno.EPERM):
        level = PARANOID.read_text(encoding="ascii").strip() if PARANOID.is_file() else "unknown"
        return (
            f"the system forbids it (kernel.perf_event_paranoid is {level}, 2 or less is needed; a container's "
            "seccomp profile may forbid it too)"
        )
    if code == errno.ENOSYS:
        return "only Linux on x86-64 with perf events is supported"
    return os.strerror(code)


def _open(kind: int, config: int, leader: int) -> int:
    """A file descriptor for one event of this thread on any CPU, stopped.

    Raises:
        OSError: it cannot be counted.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    flags = NO_KERNEL | NO_HYPERVISOR | (DISABLED if leader < 0 else 0)
    fields = struct.pack("<IIQQQQQ", kind, SIZE, config, 0, 0, TIMES, flags)
    attributes = ctypes.create_string_buffer(fields, SIZE)  # the rest is zero
    system = ctypes.CDLL(None, use_errno=True)
    numbers = (ctypes.c_long(0), ctypes.c_long(-1), ctypes.c_long(leader), ctypes.c_long(CLOSE_ON_EXEC))
    file = int(system.syscall(ctypes.c_long(SYSCALL), attributes, *numbers))
    if file < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return file
