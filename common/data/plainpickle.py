"""Reading a pickle of Python 2 that holds only dicts, lists, strings, numbers and arrays of bytes; nothing else.

A pickle is a program. Before it runs, every opcode is looked at; those that this format needs are few (protocols 0
to 2). The three names of numpy that an array needs stand for inert stand-ins, so that numpy never sees a state
that a stranger wrote.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

# fmt: off
_OPCODES = frozenset((
    "PROTO", "STOP", "MARK", "POP_MARK", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT",
    "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "EMPTY_LIST", "LIST",
    "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "REDUCE", "BUILD",
))
# fmt: on
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_MOST_MEMO = 10_000_000  # the unpickler fills a table up to the largest number
_ARRAY, _DTYPE, _RECONSTRUCT = "numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct"


class NotPlainError(Exception):
    """Why a pickle is refused."""


def read(data: bytes) -> Any:
    """What the pickle holds; strings as str (Latin-1), an array as uint8 ``numpy.ndarray`` in a dict's value.

    Raises:
        NotPlainError: it is damaged, or holds or does anything else.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            _check(opcode.name, argument)
        found = _Plain(io.BytesIO(data), encoding="latin1").load()
    except NotPlainError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way, but only here
        raise NotPlainError(f"damaged or no pickle ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise NotPlainError(f"a {type(found).__name__} and not a dict")
    values = cast("dict[Any, Any]", found)
    return {key: value.array() if isinstance(value, _Array) else value for key, value in values.items()}


def _check(opcode: str, argument: Any) -> None:
    if opcode not in _OPCODES:
        raise NotPlainError(f"the operation {opcode}, which this format has no use for")
    if opcode == "GLOBAL" and argument not in (_ARRAY, _DTYPE, _RECONSTRUCT):
        raise NotPlainError(f"the name {argument[:80]!r}: it would run code")
    if opcode in _MEMO and not 0 <= int(argument) < _MOST_MEMO:
        raise NotPlainError("a memo number without sense")


class _Array:
    """What the state of an array said."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> UInt8[NDArray[np.uint8], "*shape"]:
        """The array, if it is one of bytes in C order."""
        try:
            _, shape, dtype, fortran, raw = self.state
            kind = dtype.kind
            found = np.frombuffer(raw.encode("latin1"), np.uint8).reshape(shape)
        except (TypeError, ValueError, AttributeError) as error:
            raise NotPlainError(f"an array whose size and content differ ({error})") from error
        if kind not in ("u1", "|u1") or fortran:
            raise NotPlainError(f"an array of {str(kind)[:20]!r} and not of bytes in C order")
        return found


class _Dtype:
    def __init__(self, kind: Any, *_: Any) -> None:
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        """The byte order and flags of a type of one byte say nothing."""


class _Plain(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        # Fresh ones each time: what a pickle does to them ends with it.
        name = f"{module_name} {global_name}"
        if name == _ARRAY:
            return type("ndarray", (_Array,), {})
        if name == _DTYPE:
            return type("dtype", (_Dtype,), {})
        if name == _RECONSTRUCT:
            return lambda _type, _shape, _kind: _Array()  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]
        raise NotPlainError(f"the name {name[:80]!r}: it would run code")
