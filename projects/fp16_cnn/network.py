"""A whole network on the kernels: compiled for a plan, a batch and a number of threads; run, timed, checked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from common.errors import BadInputError
from projects.fp16_cnn import driver, memory, reference
from projects.fp16_cnn.buffers import Buffer
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.driver import IMAGES, Call
from projects.fp16_cnn.kernel import Layer as Kernel
from projects.fp16_cnn.program import Plan, Program
from projects.fp16_cnn.steps import Step, Steps, Tuner, cut

Images = Float32[np.ndarray, "n channels height width"] | Float32[Tensor, "n channels height width"]


def compile_network(
    program: Program, plan: Plan | None, batch: int, threads: int = 1, tune: bool = False
) -> Network:
    """A network that runs `batch` images at once.

    Args:
        plan: a precision for all layers, or one by layer name (layers left out stay in f32).
        tune: measure the blocking of every layer first; cached.

    Raises:
        BadInputError: the plan does not fit the program, or a number below 1.
    """
    if batch < 1 or threads < 1:
        raise BadInputError(f"a network needs at least 1 image and 1 thread, not {batch} and {threads}")
    tuner: Tuner | None = None
    if tune:
        from projects.fp16_cnn.tuner import best

        tuner = best
    return Network(cut(program, plan, batch, tuner), batch, threads)


class Network:
    """A compiled network.

    Attributes:
        steps: what runs, in order.
        buffers: of every value; those that never live together share memory.
        compile_seconds: of all kernels that it was the first in this process to need.
    """

    def __init__(self, made: Steps, batch: int, threads: int) -> None:
        program = made.program
        self.program, self.batch, self.threads = program, batch, threads
        self.steps = tuple(made.steps)
        order = [(step.reads, step.writes) for step in made.steps]
        kept = (program.source, program.output)
        self.buffers = memory.allocate(made.layouts, order, made.same, kept)
        kernels = {id(compiled): compiled for step in self.steps for compiled in _compiled(step.kernel)}
        self.compile_seconds = sum(compiled.seconds for compiled in kernels.values())
        self._write = self._images_call()
        self._runs = self._bind()

    @property
    def bytes(self) -> int:
        """Memory of the activations."""
        return sum({_base(buffer): _base_bytes(buffer) for buffer in self.buffers.values()}.values())

    def run(self, images: Images) -> Float32[np.ndarray, "n classes"]:
        """The logits.

        Raises:
            BadInputError: images of another shape or type than the network was compiled for, or logits that are not
                finite: the message names the layer where that began.
        """
        given = self._checked(images)
        for run in self._runs:
            run(given.ctypes.data)
        logits = self._logits()
        if not np.isfinite(logits).all():
            self.check(given)
        return logits

    def time(self, rounds: int, seed: int = 0) -> float:
        """Median seconds of a run on images of noise, hot, by the wall clock."""
        channels, height, width = self.program.shape
        size = (self.batch, channels, height, width)
        images = np.random.default_rng(seed).standard_normal(size, np.float32)
        self.run(images)
        seconds: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            self.run(images)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def check(self, images: Images) -> None:
        """Runs layer by layer and looks at every value.

        Raises:
            BadInputError: a value holds NaN or infinity: the first layer that produced one, and what to do.
        """
        given = self._checked(images)
        if not np.isfinite(given).all():
            raise BadInputError("the images hold NaN or infinity")
        self._write(given.ctypes.data)
        for name in (None, *self.steps):
            if name is not None:
                self._step(name)()
            value = self.program.source if name is None else name.writes
            self._inspect(value, name)

    def _inspect(self, value: str, step: Step | None) -> None:
        buffer = self.buffers[value]
        held = buffer.read()
        wrong = int((~np.isfinite(held)).sum())
        if not wrong:
            return
        where = "the images" if step is None else step.name
        nans = int(np.isnan(held).sum())
        what = f"{wrong - nans} infinite and {nans} NaN of {held.size} activations"
        advice = "look at its weights and at the images"
        if buffer.layout.storage == "float16" and nans < wrong:
            advice = "they exceed 65504, the largest fp16: normalise the images, or plan bf16 or f32 for its readers"
        raise BadInputError(f"{where}: {what} ({buffer.layout.storage}): {advice}")

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

    def _images_call(self) -> Callable[[int], None]:
        layout = self.buffers[self.program.source].layout
        compiled = compile_function(driver.images_ir(layout), "kernel", 2, 2)
        self._images = Call(
            compiled.address, (IMAGES, self.buffers[self.program.source].pointer), self.batch * layout.height
        )
        return driver.bind([self._images], 1)

    def _bind(self) -> list[Callable[[int], None]]:
        """The steps as few calls: kernels in a row are one, what torch computes stands between."""
        runs: list[Callable[[int], None]] = []
        calls: list[Call] = [self._images]
        for native, group in groupby(self.steps, lambda step: step.kernel is not None):
            if native:
                calls += [call for step in group for call in self._calls(step)]
            else:
                runs += [driver.bind(calls, self.threads)] if calls else []
                runs += [_ignoring(self._step(step)) for step in group]
                calls = []
        return [*runs, driver.bind(calls, self.threads)] if calls else runs

    def _calls(self, step: Step) -> list[Call]:
        kernel = step.kernel
        assert kernel is not None
        pointers = {"x": self.buffers[step.reads[0]].pointer, "y": self.buffers[step.writes].pointer}
        pointers["residual"] = self.buffers[step.reads[1]].pointer if kernel.residual else 0
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

    def _step(self, step: Step) -> Callable[[], None]:
        """One step by itself."""
        reads, y = [self.buffers[value] for value in step.reads], self.buffers[step.writes]
        if step.kernel is not None:
            second = reads[1] if step.kernel.residual else None
            return step.kernel.bind(reads[0], y, second)
        return lambda: _by_torch(step, reads, y)

    def _logits(self) -> Float32[np.ndarray, "n classes"]:
        values = self.buffers[self.program.output].read()
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)).reshape(self.batch, -1)


def _compiled(kernel: Kernel | None) -> list:
    return [] if kernel is None else kernel.compiled


def _ignoring(call: Callable[[], None]) -> Callable[[int], None]:
    return lambda images: call()


@torch.no_grad()
def _by_torch(step: Step, reads: list[Buffer], y: Buffer) -> None:
    inputs = [torch.from_numpy(buffer.read()).permute(0, 3, 1, 2) for buffer in reads]
    assert step.node is not None
    value = reference.compute(step.node, inputs, None)
    y.write(np.ascontiguousarray(value.permute(0, 2, 3, 1).numpy()))


def _base(buffer: Buffer) -> int:
    return buffer.array.base.ctypes.data if buffer.array.base is not None else buffer.pointer


def _base_bytes(buffer: Buffer) -> int:
    return buffer.array.base.nbytes if buffer.array.base is not None else buffer.array.nbytes
