"""Stage `layers`: every different layer of a network, timed in every precision, hot and cold, in a fresh process.

The kernels of one layer are interleaved. Beside them run a second copy of the fp32 kernel (the noise between two equal
kernels) and kernels with a part taken out, the substitute for hardware counters: "l1" lets every load hit the first
cache, "noconvert" leaves conversions out. With `timing.counters` and where the machine has them, hardware counters
stand beside the times. Then residual sums as pure streams, and the whole network.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_text
from common.study.model import Inputs, Metrics
from projects.fp16_cnn import counters, layer, machine, networks, timing, whole
from projects.fp16_cnn.blocking import best
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.counters import Counting
from projects.fp16_cnn.kernel import Layer
from projects.fp16_cnn.networks import Cell
from projects.fp16_cnn.packing import to_storage
from projects.fp16_cnn.precision import PRECISIONS, Storage

FILE = "layers.jsonl"
AGAIN = "again"  # the fp32 kernel once more
ABLATIONS = {
    "f32": ("l1",),
    "f16w": ("noconvert",),
    "f16s": ("noconvert", "l1"),
    "bf16": ("l1",),
    "f16": ("l1",),
}
CONVERTED = {"bf16": ("noconvert",)}  # in depthwise layers, which multiply it as fp32
STREAMS = tuple(1 << power for power in range(11, 24, 2))
"""Numbers in each operand of a residual sum: from the first cache to memory."""
CHANNELS = 64


@dataclass(frozen=True)
class Timed:
    """A kernel bound to its memory.

    Attributes:
        regions: (address, bytes) of all memory that it touches.
    """

    layer: Layer
    call: timing.Call
    regions: Sequence[tuple[int, int]]
    kept: object


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """One line for each layer in layers.jsonl: {"label", "kind", "count", "hot": {kernel: seconds}, "cold": ...}, and
    of layers, where there are counters, {"counted": {"hot": {kernel: {event: count of a call}}, "cold": ...}}.

    Metrics: `noisy`, `drift`, `layers` (lines), `seconds` (that it took); with `timing.counters` `counters`: how many
    of the events the machine can count (0: none; the log says why).
    """
    options, axes = cfg["timing"], cfg["axes"]
    net, seed = str(axes["net"]), int(axes["seed"])
    begun = time.perf_counter()
    tuned, quiet = bool(options["tune"]), timing.Quiet(machine.quiet_work())
    watched: dict[str, float] = {}
    with counters.counting(counters.EVENTS if options["counters"] else {}) as counting:
        cells = networks.load(inputs["machine"][0].folder, net)
        lines = layer_lines(cells, np.random.default_rng(seed), options, quiet, counting)
        if options["counters"]:
            print(counting.announce())
            watched = {"counters": float(len(counting.files))}
    if cfg["nets"][net] == "all":
        for size in STREAMS:
            sums = streams(size)
            for _ in quiet.attempts(int(options["attempts"])):
                line = measure(sums, options)
            lines.append({"label": f"sum of {size}", "kind": "stream", "count": 0, "numbers": size, **line})
        calls = whole.calls(net, machine.timed(), seed, tuned)
        for _ in quiet.attempts(int(options["attempts"])):
            found = timing.hot(calls, int(options["network_rounds"]), float(options["network_sample"]))
        lines.append({"label": net, "kind": "network", "count": 1, "hot": timing.medians(found), "cold": {}})
    write_text(out / FILE, "".join(json.dumps(line) + "\n" for line in lines))
    return {
        "noisy": float(quiet.noisy),
        "drift": quiet.drift,
        "layers": float(len(lines)),
        "seconds": time.perf_counter() - begun,
        **watched,
    }


def layer_lines(
    cells: Iterable[Cell],
    generator: np.random.Generator,
    options: Mapping[str, Any],
    quiet: timing.Quiet,
    counting: Counting,
) -> list[dict[str, Any]]:
    """The lines of the layers."""
    lines: list[dict[str, Any]] = []
    for cell in cells:
        kernels = prepare(cell, generator, bool(options["tune"]), ablations=bool(options["ablations"]))
        for _ in quiet.attempts(int(options["attempts"])):
            line = measure(kernels, options)
            if kernels[AGAIN] is kernels["f32"]:
                quiet.twins(line["hot"]["f32"], line["hot"][AGAIN])
                quiet.twins(line["cold"]["f32"], line["cold"][AGAIN])
        lines.append({"label": cell.label, "kind": cell.shape.kind, "count": cell.count, **line})
        if counting.files:
            lines[-1]["counted"] = counted(kernels, counting, float(options["sample"]))
        threads = bool(options["two_threads"]) and cell.shape.kind == "conv"
        lines[-1]["two"] = two_threads(cell, generator, options) if threads else {}
        del kernels
    return lines


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a finished job."""
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def prepare(cell: Cell, generator: np.random.Generator, tuned: bool, ablations: bool) -> dict[str, Timed]:
    """Every kernel of one layer: the precisions that this CPU has instructions for, and their ablations."""
    weight, bias = weights(cell, generator)
    found: dict[str, Timed] = {}
    for name in machine.timed():
        found[name] = bind(cell, name, weight, bias, tuned)
        large = weight.nbytes > 1 << 27  # beyond any cache: the same memory again is as good as other memory
        if name == "f32":
            found[AGAIN] = found[name] if large else bind(cell, name, weight, bias, tuned)
        parts = ABLATIONS[name] + (CONVERTED.get(name, ()) if cell.shape.kind == "depthwise" else ())
        for ablation in parts if ablations and not large else ():
            found[f"{name}:{ablation}"] = bind(cell, name, weight, bias, tuned, ablation)
    return found


def weights(cell: Cell, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Kaiming-scaled weights [outputs, inputs / groups, rows, columns] and a bias [outputs], fp32."""
    shape = cell.shape
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = generator.standard_normal(size, np.float32)
    weight *= np.float32(math.sqrt(2 / shape.terms))
    return weight, generator.standard_normal(shape.out_channels, np.float32)


def bind(
    cell: Cell,
    precision: str,
    weight: np.ndarray,
    bias: np.ndarray,
    tuned: bool,
    ablation: str = "",
    threads: int = 1,
) -> Timed:
    """One kernel with input, output and second input of its own.

    Args:
        tuned: with the blocking that the tuner found, else the default.
    """
    shape, storage = cell.shape, PRECISIONS[precision].activations
    source = Layout(shape.batch, shape.height, shape.width, shape.in_channels, shape.padding, storage)
    target = Layout(shape.batch, shape.out_height, shape.out_width, shape.out_channels, storage=storage)
    built = layer.build(
        shape,
        precision,
        weight,
        bias,
        activation=cell.activation,  # type: ignore[arg-type]
        residual=cell.residual,
        source=source,
        target=target,
        blocking=best(shape, PRECISIONS[precision]) if tuned else None,
        threads=threads,
        ablate=ablation,  # type: ignore[arg-type]
    )
    x, y, residual = filled(source), Buffer(target), filled(target) if cell.residual else None
    return touching(built, [x], y, residual)


def streams(size: int) -> dict[str, Timed]:
    """Residual sums of `size` numbers in each storage: nothing but memory and conversions."""
    found: dict[str, Timed] = {}
    for name in (name for name in machine.timed() if name != "f16w"):
        storage: Storage = PRECISIONS[name].activations
        layout = Layout(1, 1, size // CHANNELS, CHANNELS, storage=storage)
        built = layer.add(layout, layout, layout)
        found[name] = touching(built, [filled(layout)], Buffer(layout), filled(layout))
        if name == "f32":
            found[AGAIN] = touching(built, [filled(layout)], Buffer(layout), filled(layout))
    return found


def filled(layout: Layout) -> Buffer:
    """A buffer of positive numbers, as after an activation; the same in every process, as their values cost no time."""
    buffer = Buffer(layout)
    some = np.random.default_rng(0).random(1024, np.float32)
    view = buffer.interior
    numbers = np.resize(some, view.shape[1:]).astype(np.float32)
    for image in range(layout.batch):
        view[image] = to_storage(numbers, layout.storage)
    return buffer


def touching(built: Layer, sources: Sequence[Buffer], y: Buffer, residual: Buffer | None) -> Timed:
    """A layer bound to buffers, with all the memory that it touches."""
    own = [operand for phase in built.phases for operand in phase.operands if isinstance(operand, np.ndarray)]
    arrays = [*(buffer.array for buffer in sources), y.array, *own]
    arrays += [residual.array] if residual else []
    regions = [(array.ctypes.data, array.nbytes) for array in arrays]
    return Timed(built, built.bind(sources[0], y, residual), regions, (sources, y, residual))


def measure(kernels: Mapping[str, Timed], options: Mapping[str, Any]) -> dict[str, Any]:
    """Median seconds of each kernel, hot and cold; ablations cold as well, as memory is what they leave out."""
    calls = {name: kernel.call for name, kernel in kernels.items()}
    found = timing.hot(calls, int(options["rounds"]), float(options["sample"]))
    empty = {name: timing.emptier(kernel.regions) for name, kernel in kernels.items()}
    chilled = timing.cold(calls, int(options["cold_rounds"]), empty)
    blockings = {name: str(kernel.layer.blocking) for name, kernel in kernels.items() if ":" not in name}
    return {
        "hot": timing.medians(found),
        "cold": timing.medians(chilled),
        "blocking": blockings,
        "compile": {name: kernel.layer.compile_seconds for name, kernel in kernels.items()},
    }


def counted(
    kernels: Mapping[str, Timed], counting: Counting, sample: float
) -> dict[str, dict[str, dict[str, float]]]:
    """What the machine counts in a call of each precision's kernel, hot and cold."""
    found: dict[str, dict[str, dict[str, float]]] = {"hot": {}, "cold": {}}
    for name, kernel in kernels.items():
        if name == AGAIN or ":" in name:
            continue
        found["hot"][name] = counting.per_call(kernel.call, timing.repetitions(kernel.call, sample))
        timing.emptier(kernel.regions)()
        found["cold"][name] = counting.per_call(kernel.call)
    return found


def two_threads(cell: Cell, generator: np.random.Generator, options: Mapping[str, Any]) -> dict[str, float]:
    """Seconds on one thread over seconds on two, both by the wall clock, in fp32 and in the fastest half precision."""
    weight, bias = weights(cell, generator)
    fastest = next(name for name in ("f16", "bf16", "f16s", "f32") if name in machine.timed())
    found: dict[str, float] = {}
    for name in dict.fromkeys(("f32", fastest)):
        kernels = [
            bind(cell, name, weight, bias, bool(options["tune"]), threads=threads) for threads in (1, 2)
        ]
        calls = {str(kernel.layer.threads): kernel.call for kernel in kernels}
        seconds = timing.hot(calls, int(options["rounds"]), float(options["sample"]), time.perf_counter)
        found[name] = min(seconds["1"]) / min(seconds["2"])
    return found
