"""One stop flag, polled at step boundaries: set by SIGTERM, SIGINT, SIGUSR1 or RETHESIS_DEADLINE. No torch here."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType

from common.errors import BadInputError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass
class _Flag:
    reason: str | None = None
    deadline: float = math.inf


_flag = _Flag()


def install() -> None:
    """Let the stop signals set the flag and nothing else, and read the deadline from the environment.

    ``RETHESIS_DEADLINE`` is in Unix seconds; the flag is raised ``RETHESIS_MARGIN`` (default 30) seconds before it.
    Calling it again is harmless. Outside the main thread only the deadline is read (Python's rule for signals).

    Raises:
        BadInputError: one of the two variables is no number.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _set)
    _flag.deadline = _seconds("RETHESIS_DEADLINE", math.inf) - _seconds("RETHESIS_MARGIN", 30.0)


def requested() -> str | None:
    """Why the job should checkpoint and leave now, or None; costs well under a microsecond."""
    if _flag.reason is None and time.time() >= _flag.deadline:
        _flag.reason = "the time limit (RETHESIS_DEADLINE) is near"
    return _flag.reason


def clear() -> None:
    """Forget an earlier request and deadline; for a process that outlives a stopped job (tests)."""
    _flag.reason, _flag.deadline = None, math.inf


def _set(number: int, frame: FrameType | None) -> None:
    _flag.reason = f"received {signal.Signals(number).name}"


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        raise BadInputError(f"{name}={text!r} is no number of seconds; set it to one or unset it.") from None
