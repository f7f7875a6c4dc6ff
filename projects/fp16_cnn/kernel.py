"""A compiled layer and how it runs: one call per phase, the tiles of a phase split among threads."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from common.errors import BadInputError
from projects.fp16_cnn import compiler
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.crew import Jobs, crew


@dataclass(frozen=True)
class Phase:
    """One kernel of a layer.

    Attributes:
        operands: what its pointers are: "x", "y", "residual", or an array that the layer owns.
        tiles: it is called on ranges of [0, tiles).
    """

    ir: str
    operands: tuple[Any, ...]
    tiles: int


@dataclass(frozen=True)
class Bound:
    """A layer's call on certain buffers; it keeps them alive, as its pointers cannot."""

    run: Callable[[], None]
    held: tuple[Any, ...]

    def __call__(self) -> None:
        """Compute."""
        self.run()


class Layer:
    """One layer of a network.

    Attributes:
        source, target: layouts that it reads and writes.
        residual: layout of its second input (what is added, or a scale), None without.
        blocking: of a convolution's tiles; None for other layers.
        compile_seconds: of its kernels together.
    """

    def __init__(
        self,
        source: Layout,
        target: Layout,
        phases: Sequence[Phase],
        residual: Layout | None = None,
        blocking: Blocking | None = None,
        threads: int = 1,
    ) -> None:
        self.source, self.target, self.residual = source, target, residual
        self.blocking, self.threads, self.phases = blocking, threads, tuple(phases)
        self.compiled = [
            compiler.compile_function(phase.ir, "kernel", len(phase.operands), 2) for phase in phases
        ]
        self.compile_seconds = sum(compiled.seconds for compiled in self.compiled)
        self._bound: dict[tuple[int, int, int], Bound] = {}

    def assembly(self, cpu: str | None = None, features: str | None = None) -> str:
        """The machine code of its kernels, for this CPU or for another one that LLVM knows."""
        return "\n".join(compiler.assembly(phase.ir, cpu, features) for phase in self.phases)

    def __call__(self, x: Buffer, y: Buffer, residual: Buffer | None = None) -> None:
        """Compute `y` from `x`.

        Raises:
            BadInputError: a buffer of another layout than the layer was built for, or a result that would overwrite its
                own input.
        """
        key = (x.pointer, y.pointer, residual.pointer if residual else 0)
        run = self._bound.get(key)
        if run is None:
            run = self._bound[key] = self.bind(x, y, residual)
        run()

    def bind(self, x: Buffer, y: Buffer, residual: Buffer | None = None) -> Bound:
        """The same as a function without arguments, for repeated calls.

        Raises:
            BadInputError: as for a call.
        """
        self._check(x, y, residual)
        pointers = {"x": x.pointer, "y": y.pointer, "residual": residual.pointer if residual else 0}
        runs: list[Callable[[], None]] = []
        for phase, compiled in zip(self.phases, self.compiled, strict=True):
            addresses = [
                pointers[operand] if isinstance(operand, str) else operand.ctypes.data
                for operand in phase.operands
            ]
            parts = max(1, min(self.threads, phase.tiles))
            if parts == 1:
                runs.append(_call(compiled.call, addresses, phase.tiles))
                continue
            cuts = itertools.pairwise(phase.tiles * part // parts for part in range(parts + 1))
            jobs = Jobs([(compiled.address, (*addresses, *cut)) for cut in cuts])
            runs.append(partial(crew(self.threads).run, jobs))
        return Bound(runs[0] if len(runs) == 1 else partial(_in_turn, runs), (self, x, y, residual))

    def _check(self, x: Buffer, y: Buffer, residual: Buffer | None) -> None:
        given = {
            "input": (x, self.source),
            "output": (y, self.target),
            "second input": (residual, self.residual),
        }
        for name, (buffer, layout) in given.items():
            if (buffer.layout if buffer else None) != layout:
                raise BadInputError(
                    f"the {name} has the layout {buffer and buffer.layout}, the layer needs {layout}."
                )
        if y.pointer in (x.pointer, residual.pointer if residual else 0):
            raise BadInputError("a layer cannot write over its own input: give it another buffer.")


def _call(function: Callable[..., None], addresses: Sequence[int], tiles: int) -> Callable[[], None]:
    """A call with its arguments converted once."""
    pointers = [ctypes.c_void_p(address) for address in addresses]
    return partial(function, *pointers, ctypes.c_int64(0), ctypes.c_int64(tiles))


def _in_turn(runs: Sequence[Callable[[], None]]) -> None:
    for run in runs:
        run()
