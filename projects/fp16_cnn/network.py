"""A whole network on the kernels: compiled for a plan, a batch and a number of threads; run, timed, checked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from common.errors import BadInputError
from projects.fp16_cnn import blocking, chunks, driver, memory, reference
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.driver import IMAGES, Call
from projects.fp16_cnn.precision import Precision
from projects.fp16_cnn.program import Plan, Program
from projects.fp16_cnn.shape import LayerShape
from projects.fp16_cnn.stamps import Stamps
from projects.fp16_cnn.steps import Step, Steps, cut

Images = Float32[np.ndarray, "n channels height width"] | Float32[Tensor, "n channels height width"]


@dataclass(frozen=True)
class Turn:
    """A step and the memory that it works on: for a part of the batch, one of several turns."""

    step: Step
    reads: tuple[Buffer, ...]
    y: Buffer


def _tuned(shape: LayerShape, precision: Precision) -> Blocking:
    """Measured on one image, which has pixels enough for any tile; a fully connected layer's tile spans images."""
    return blocking.best(shape if shape.kind == "dense" else replace(shape, batch=1), precision)


def compile_network(
    program: Program, plan: Plan | None, batch: int, threads: int = 1, tune: bool = False
) -> Network:
    """A network that runs `batch` images at once.

    Args:
        plan: a precision for all layers, or one by layer name (layers left out stay in f32).
        tune: measure the blocking of every layer first, of convolutions on one image whatever the batch; cached.

    Raises:
        BadInputError: the plan does not fit the program, or a number below 1.
    """
    if batch < 1 or threads < 1:
        raise BadInputError(f"a network needs at least 1 image and 1 thread, not {batch} and {threads}")
    tuner = _tuned if tune else None
    border = chunks.together_from(program, plan, batch)
    parts = [cut(program, plan, 1, tuner, slice(border))] if border else []
    return Network([*parts, cut(program, plan, batch, tuner, slice(border, None))], threads)


class Network:
    """A compiled network.

    Attributes:
        turns: what runs, in order.
        buffers: of every value; those that never live together share memory.
        compile_seconds: of its kernels, those that were compiled before included.
    """

    def __init__(self, parts: Sequence[Steps], threads: int) -> None:
        """Args: parts: in order; the last one works on the whole batch, the others on as many images as they hold."""
        whole = parts[-1]
        self.program, self.batch, self.threads = whole.program, whole.batch, threads
        self.buffers = _memory(parts)
        self.turns = tuple(self._turns(parts))
        kernels = {
            id(compiled): compiled.seconds
            for turn in self.turns
            if turn.step.kernel is not None
            for compiled in turn.step.kernel.compiled
        }
        self.compile_seconds = sum(kernels.values())
        layout = self.buffers[self.program.source].layout
        images = compile_function(driver.images_ir(layout), "kernel", 2, 2)
        pointers = (IMAGES, self.buffers[self.program.source].pointer)
        self._images = Call(images.address, pointers, self.batch * layout.height)
        self._runs = self._bind()

    def run(self, images: Images) -> Float32[np.ndarray, "n classes"]:
        """The logits.

        Raises:
            BadInputError: images of another shape or type than the network was compiled for, or logits that are not
                finite: the message names the layer where that began.
        """
        given = self._checked(images)
        for run in self._runs:
            run(given.ctypes.data)
        values = self.buffers[self.program.output].read()
        logits = np.ascontiguousarray(values.transpose(0, 3, 1, 2)).reshape(self.batch, -1)
        if not np.isfinite(logits).all():
            self.check(given)
        return logits

    def time(self, rounds: int, seed: int = 0) -> float:
        """Median seconds of a run on images of noise, hot, by the wall clock."""
        size = (self.batch, *self.program.shape)
        images = np.random.default_rng(seed).standard_normal(size, np.float32)
        self.run(images)
        seconds: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            self.run(images)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def stamped(self, images: Images) -> Callable[[], Float64[np.ndarray, " turns"]]:
        """A function that runs once and gives the seconds of every turn, as they are within a run.

        Raises:
            BadInputError: images of another shape or type than the network was compiled for.
        """
        given, stamps = self._checked(images), Stamps(1 + len(self.turns))
        runs = self._bind(stamps)

        def run() -> Float64[np.ndarray, " turns"]:
            for each in runs:
                each(given.ctypes.data)
            return stamps.seconds()

        return run

    def check(self, images: Images) -> None:
        """Runs layer by layer and looks at every value.

        Raises:
            BadInputError: a value holds NaN or infinity: the first layer that produced one, and what to do.
        """
        given = self._checked(images)
        if not np.isfinite(given).all():
            raise BadInputError("the images hold NaN or infinity")
        for turn in self.one_by_one(given):
            _inspect(
                "the images" if turn is None else turn.step.name, self._source if turn is None else turn.y
            )

    def one_by_one(self, images: Images) -> Iterator[Turn | None]:
        """Runs in single steps: yields None when the images are in their buffer, then every turn when it has run.

        Raises:
            BadInputError: images of another shape or type than the network was compiled for.
        """
        given = self._checked(images)
        driver.bind([self._images], 1)(given.ctypes.data)
        yield None
        for turn in self.turns:
            _single(turn)()
            yield turn

    @property
    def bytes(self) -> int:
        """Memory of the activations."""
        ends: dict[int, int] = {}
        for buffer in self.buffers.values():
            ends[buffer.pointer] = max(ends.get(buffer.pointer, 0), buffer.layout.nbytes)
        return sum(ends.values())

    @property
    def _source(self) -> Buffer:
        return self.buffers[self.program.source]

    def _checked(self, images: Images) -> Float32[np.ndarray, "n channels height width"]:
        given = images.detach().numpy() if isinstance(images, Tensor) else np.asarray(images)
        expected = (self.batch, *self.program.shape)
        if given.shape != expected:
            raise BadInputError(
                f"images of shape {list(given.shape)}: this network was compiled for {list(expected)}. "
                "Sizes are fixed: import the model with an example of the new size, or compile for the new batch."
            )
        if given.dtype != np.float32:
            raise BadInputError(f"images of {given.dtype}: give float32, normalised as in training")
        return np.ascontiguousarray(given)

    def _turns(self, parts: Sequence[Steps]) -> Iterator[Turn]:
        for part in parts:
            for first in range(0, self.batch, part.batch):
                for step in part.steps:
                    reads = tuple(
                        memory.images(self.buffers[value], first, part.batch) for value in step.reads
                    )
                    yield Turn(step, reads, memory.images(self.buffers[step.writes], first, part.batch))

    def _bind(self, stamps: Stamps | None = None) -> list[Callable[[int], None]]:
        """The turns as few calls: kernels in a row are one, what torch computes stands between."""
        runs: list[Callable[[int], None]] = []
        calls = [self._images, *([stamps.call(0)] if stamps else [])]
        for place, turn in enumerate(self.turns, 1):
            if turn.step.kernel is not None:
                calls += _calls(turn)
            else:
                runs += [driver.bind(calls, self.threads)] if calls else []
                runs.append(_ignoring(_single(turn)))
                calls = []
            calls += [stamps.call(place)] if stamps else []
        return [*runs, driver.bind(calls, self.threads)] if calls else runs


def _memory(parts: Sequence[Steps]) -> dict[str, Buffer]:
    """A buffer for every value; one that passes from part to part holds the whole batch, from the start to the end."""
    whole = parts[-1]
    written = {step.writes for part in parts[:-1] for step in part.steps}
    passed = [
        name for name in dict.fromkeys(n for step in whole.steps for n in step.reads) if name in written
    ]
    passed += [source for name, source in whole.same.items() if source in written and name not in passed]
    layouts = {name: layout for part in parts for name, layout in part.layouts.items()}
    local = {step.writes: part.layouts[step.writes] for part in parts[:-1] for step in part.steps}
    local |= {name: part.layouts[name] for part in parts[:-1] for name in part.same}
    layouts |= {name: layout for name, layout in local.items() if name not in passed}
    same = {name: source for part in parts for name, source in part.same.items()}
    order = [(step.reads, step.writes) for part in parts for step in part.steps]
    kept = dict.fromkeys((whole.program.source, whole.program.output, *passed))
    return memory.allocate(layouts, order, same, list(kept))


def _calls(turn: Turn) -> list[Call]:
    kernel = turn.step.kernel
    assert kernel is not None
    pointers = {"x": turn.reads[0].pointer, "y": turn.y.pointer}
    pointers["residual"] = turn.reads[1].pointer if kernel.residual else 0
    return [
        Call(
            compiled.address,
            tuple(
                pointers[operand] if isinstance(operand, str) else operand.ctypes.data
                for operand in phase.operands
            ),
            phase.tiles,
        )
        for phase, compiled in zip(kernel.phases, kernel.compiled, strict=True)
    ]


def _single(turn: Turn) -> Callable[[], None]:
    """One turn by itself."""
    kernel = turn.step.kernel
    if kernel is not None:
        return kernel.bind(turn.reads[0], turn.y, turn.reads[1] if kernel.residual else None)
    return lambda: _by_torch(turn)


def _ignoring(call: Callable[[], None]) -> Callable[[int], None]:
    return lambda images: call()


@torch.no_grad()
def _by_torch(turn: Turn) -> None:
    inputs = [torch.from_numpy(buffer.read()).permute(0, 3, 1, 2) for buffer in turn.reads]
    assert turn.step.node is not None
    value = reference.compute(turn.step.node, inputs, None)
    turn.y.write(np.ascontiguousarray(value.permute(0, 2, 3, 1).numpy()))


def _inspect(where: str, buffer: Buffer) -> None:
    held, storage = buffer.read(), buffer.layout.storage
    wrong = int((~np.isfinite(held)).sum())
    if not wrong:
        return
    nans = int(np.isnan(held).sum())
    what = f"{wrong - nans} infinite and {nans} NaN of {held.size} activations"
    advice = "look at its weights and at the images"
    if storage == "float16" and nans < wrong:
        advice = (
            "they exceed 65504, the largest fp16: normalise the images, or plan bf16 or f32 for its readers"
        )
    raise BadInputError(f"{where}: {what} ({storage}): {advice}")
