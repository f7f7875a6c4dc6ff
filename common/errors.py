"""Errors that end a command, and the exit codes they end it with.

0 done · 1 other · 2 bad input · 70 non-finite loss · 75 stopped with a checkpoint (sysexits: EX_SOFTWARE, EX_TEMPFAIL)
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

EXIT_OTHER = 1
EXIT_BAD_INPUT = 2
EXIT_NON_FINITE = 70
EXIT_STOPPED = 75
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
SHOWN = 10  # names that an error lists


class RethesisError(Exception):
    """An error with a message for a person and an exit code for a shell."""

    exit_code = EXIT_OTHER


class BadInputError(RethesisError):
    """The user's input cannot be used: the message names it and says what to do instead."""

    exit_code = EXIT_BAD_INPUT


class DamagedError(BadInputError, ValueError):
    """A file is not in its own format."""


class NonFiniteError(RethesisError):
    """A loss or a weight became NaN or infinite; the state before it was kept."""

    exit_code = EXIT_NON_FINITE


class StoppedError(RethesisError):
    """The stop flag was raised (signal or deadline): a checkpoint was written, the same command continues."""

    exit_code = EXIT_STOPPED


def unknown(what: str, given: str, valid: Iterable[str]) -> BadInputError:
    """The error for an unknown name: it names the nearest valid one.

    Args:
        what: kind of the name, e.g. ``"PROJECT"``.
        given: what the user typed.
        valid: the names that would have been accepted.
    """
    names = sorted(valid)
    if not given and names:
        return BadInputError(
            f"which {what}? For example {what}={names[0]}. Valid: {', '.join(names[:SHOWN])}."
        )
    near = difflib.get_close_matches(given, names, n=SHOWN, cutoff=0.0)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    list_of = "Valid" if len(names) <= SHOWN else "Nearest"
    shown = names if len(names) <= SHOWN else near
    return BadInputError(f"unknown {what} {given!r}.{hint} {list_of}: {', '.join(shown) or 'none'}.")
