"""fp16_cnn's convolution kernels against oneDNN and against the peak of the machine, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/fp16_kernels.py          (about two minutes)

Every different convolution and fully connected layer of ResNet-50 at batch 1, ReLU fused, one thread. oneDNN runs
through torch with weights packed beforehand (what a frozen network does), so its times hold torch's dispatch, some
microseconds of hundreds. A round times one sample of every kernel and of bare multiplications in registers; times are
CPU-seconds and medians over the rounds, so that other processes slow all alike. Per cent of the peak counts
multiplications with padding zeros, which both sides partly skip: it may exceed 100.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import torch

from projects.fp16_cnn import blocking, cpu, machine, micro, networks, timing
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.compiler import compile_function
from projects.fp16_cnn.crew import Jobs, crew
from projects.fp16_cnn.kernel import Layer
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.packing import aligned
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.shape import LayerShape

TURNS = 20_000  # of the peak's kernel in a call
PEERS = {"f32": torch.float32, "bf16": torch.bfloat16}
FC6 = LayerShape("dense", 1, 25088, 4096)  # VGG's first fully connected layer: 411 MB in fp32
PROMISED = {"peak": 90.0, "compile": 100.0, "threads": 1.8, "memory": 1.5}
Call = Callable[[], object]


def make(shape: LayerShape, name: str, tune: bool, threads: int = 1) -> tuple[Layer, Call]:
    """An own layer bound to its buffers."""
    precision = PRECISIONS[name]
    inputs = (shape.batch, shape.height, shape.width, shape.in_channels)
    source = Layout(*inputs, shape.padding, precision.activations)
    target = Layout(
        shape.batch, shape.out_height, shape.out_width, shape.out_channels, storage=precision.activations
    )
    chosen = blocking.best(shape, precision) if tune else None
    layer = build(
        shape, precision, weight(shape), np.zeros(shape.out_channels, np.float32), activation="relu",
        source=source, target=target, blocking=chosen, threads=threads,
    )  # fmt: skip
    x = Buffer(source)
    x.write(np.random.default_rng(0).random(inputs, np.float32))
    return layer, layer.bind(x, Buffer(target))


def weight(shape: LayerShape) -> np.ndarray:
    """Random weights of about unit gain."""
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    return np.random.default_rng(1).standard_normal(size, np.float32) / np.float32(np.sqrt(shape.terms))


def onednn(shape: LayerShape, dtype: torch.dtype) -> Call:
    """The same layer by oneDNN, its weights in oneDNN's own order."""
    x = torch.rand(shape.batch, shape.in_channels, shape.height, shape.width).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    pad, stride = [shape.padding[0], shape.padding[2]], list(shape.stride)
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
        torch.from_numpy(weight(shape)).to(dtype).to_mkldnn(),
        pad,
        stride,
        [1, 1],
        shape.groups,
        list(x.shape),
    )
    bias = torch.zeros(shape.out_channels, dtype=dtype)
    run = torch.ops.mkldnn._convolution_pointwise
    return lambda: run(x, packed, bias, pad, stride, [1, 1], shape.groups, "relu", [], "")


def peak(name: str) -> Call:
    """Bare multiplications of a precision's arithmetic."""
    memory = aligned((64,), np.float32)
    kernel = compile_function(micro.peak_ir(PRECISIONS[name]), "kernel", 1, 1).call
    return lambda: kernel(memory.ctypes.data, TURNS)


def measure(
    shape: LayerShape, names: list[str], options: argparse.Namespace
) -> tuple[dict[str, float], list[float]]:
    """Median seconds of every kernel of one layer, and the compile times."""
    made = {name: make(shape, name, options.tune) for name in names}
    calls: dict[str, Call] = {name: call for name, (_, call) in made.items()}
    for name, dtype in PEERS.items():
        if name in names:
            calls |= {f"onednn {name}": onednn(shape, dtype), f"peak {name}": peak(name)}
    found = timing.medians(timing.hot(calls, options.rounds, options.sample))
    return found, [layer.compile_seconds * 1e3 for layer, _ in made.values()]


def show(shape: LayerShape, count: int, found: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """Print a layer's line and return its ratios."""
    ratios = {f"{name} over f32": found["f32"] / found[name] for name in names if name != "f32"}
    for name in (name for name in PEERS if name in found):
        fastest = micro.peak_flops(PRECISIONS[name], TURNS) / found[f"peak {name}"]
        ratios[f"{name} % of peak"] = 100 * shape.flops / found[name] / fastest
        ratios[f"{name} over oneDNN"] = found[f"onednn {name}"] / found[name]
    times = " ".join(f"{name} {found[name] * 1e6:.0f}" for name in names)
    shown = "  ".join(
        f"{name} {ratio:.2f}" if ratio < 10 else f"{name} {ratio:.0f}" for name, ratio in ratios.items()
    )
    print(f"{shape!s:26} x{count}  us: {times}  |  {shown}", flush=True)
    return ratios


def threads(shapes: list[LayerShape], name: str, options: argparse.Namespace) -> dict[str, float]:
    """Speed-up of two threads by wall time, the best of single calls of each: medians over the layers.

    With other processes on the same cores only the best calls had both cores to themselves. "registers" are bare
    multiplications, what the machine gives at most: two cores at work may run at a lower clock than one.
    """

    def ratio(calls: Mapping[str, Call]) -> float:
        found = timing.hot(calls, 8 * options.rounds, 0.0, time.perf_counter)
        return min(found["1"]) / min(found["2"])

    ours = [ratio({str(n): make(shape, name, options.tune, n)[1] for n in (1, 2)}) for shape in shapes]
    peers = [
        ratio({str(n): on_torch_threads(onednn(shape, PEERS[name]), n) for n in (1, 2)}) for shape in shapes
    ]
    torch.set_num_threads(1)
    bare = ratio({"1": peak(name), "2": peak_on_two(name)})
    return {"ours": statistics.median(ours), "oneDNN": statistics.median(peers), "registers": bare}


def peak_on_two(name: str) -> Call:
    """The work of `peak`, shared by two threads."""
    memory = aligned((2, 64), np.float32)
    address = compile_function(micro.peak_ir(PRECISIONS[name]), "kernel", 1, 1).address
    jobs = Jobs([(address, (part.ctypes.data, TURNS // 2)) for part in memory])

    def call(_held: object = memory) -> None:
        crew(2).run(jobs)

    return call


def on_torch_threads(call: Call, count: int) -> Call:
    """A call of torch on so many threads."""

    def run() -> None:
        torch.set_num_threads(count)
        call()

    return run


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--rounds", type=int, default=9)
    parse.add_argument("--sample", type=float, default=0.005, help="seconds")
    parse.add_argument("--network", default="resnet50")
    parse.add_argument("--tune", action="store_true", help="measured blockings instead of those by rule")
    options = parse.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(cpu.announce())
    names = [name for name in machine.timed() if name in cpu.available()]
    counts: Counter[LayerShape] = Counter()
    for cell in networks.cells(networks.program_of(options.network)):
        counts[cell.shape] += cell.count
    rows, sums, compiled = [], Counter[str](), list[float]()
    for shape, count in counts.items():
        found, milliseconds = measure(shape, names, options)
        compiled += milliseconds
        rows.append((shape, show(shape, count, found, names)))
        sums.update({name: 1e3 * count * seconds for name, seconds in found.items()})
    summary([(shape, ratios) for shape, ratios in rows if shape.kind == "conv"], sums, compiled)
    wide = [shape for shape in counts if shape.kind == "conv" and shape.flops > 1e8][:8]
    for name in (name for name in PEERS if name in names):
        ratios = {key: round(value, 2) for key, value in threads(wide, name, options).items()}
        print(f"two threads over one, {name}: {ratios} (promised {PROMISED['threads']})")
    found, _ = measure(FC6, names, argparse.Namespace(rounds=5, sample=0.001, tune=options.tune))
    gains = {name: round(found["f32"] / found[name], 2) for name in names}
    print(f"{FC6}, weights from memory, over f32: {gains} (promised > {PROMISED['memory']} in fp16)")


def summary(rows: list, sums: Mapping[str, float], compiled: list[float]) -> None:
    """Medians over the convolutions, sums over the network."""
    for key in rows[0][1]:
        values = [ratios[key] for _, ratios in rows]
        promised = f" (promised {PROMISED['peak']:.0f})" if "peak" in key else ""
        print(
            f"{key}: median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}{promised}"
        )
    print(
        "sum over the network, ms:", {name: round(ms, 2) for name, ms in sums.items() if "peak" not in name}
    )
    middle, most = statistics.median(compiled), max(compiled)
    print(f"compilation: median {middle:.0f} ms, most {most:.0f} (promised {PROMISED['compile']:.0f})")


if __name__ == "__main__":
    main()
