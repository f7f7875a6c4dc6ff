"""fp16_cnn's whole networks against torch, ONNX Runtime and OpenVINO, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/fp16_networks.py      (half an hour; --quick: less)

A cell is a network, a batch and a number of threads. In it every tool runs the same torchvision model with random
weights (they change no time) on the same images of 224 x 224; a round times one sample of each, so that a slow spell
hits all alike, and medians over the rounds are compared: of the process's CPU time on one thread, which other
processes disturb less, of wall time on more. What each tool really executed stands beside its time: a tool's "fp16" is
often something else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from projects.fp16_cnn import cpu, networks, peers, timing, tools

NETWORKS = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "vgg11", "resnet18")
OWN = ("own_f32", "own_f16w", "own_f16s", "own_bf16", "own_f16")
PEERS = ("torch_f32", "torch_bf16", "ort_f32", "ort_f16", "openvino_f32", "openvino_f16", "openvino_bf16")
COMPILED = ("inductor_f32", "inductor_bf16")
PROMISED = 0.5  # of the cells


def best(times: Mapping[str, float], own: bool, half: bool) -> str:
    """The fastest of a side: ours or the peers', in fp32 or in any half precision."""
    side = [name for name in times if name.startswith("own") == own and name.endswith("_f32") != half]
    return min(side, key=lambda name: times[name])


def cell(net: str, batch: int, threads: int, options: argparse.Namespace) -> dict[bool, float]:
    """Print the times of one cell; the best peer's time over ours, in fp32 (False) and in half precision (True)."""
    model, images = networks.torchvision_model(net), tools.seeded_images(batch, 224, 0)
    names = [*OWN, *PEERS, *(() if options.quick else COMPILED)]
    with tempfile.TemporaryDirectory() as folder:
        ready = peers.prepare(names, model, images, threads, Path(folder))
    clock = time.process_time if threads == 1 else time.perf_counter
    calls = {name: peer.call for name, peer in ready.items()}
    times = timing.medians(timing.hot(calls, options.rounds, options.sample, clock, options.patience))
    print(f"\n{net}, batch {batch}, {threads} thread(s)")
    for name in sorted(times, key=lambda name: times[name]):
        print(f"  {name:14s} {1e3 * times[name]:9.2f} ms  {ready[name].how[:110]}")
    ratios: dict[bool, float] = {}
    for half, words in ((False, "fp32"), (True, "half")):
        mine, theirs = best(times, True, half), best(times, False, half)
        ratios[half] = times[theirs] / times[mine]
        print(f"  {words}: {mine} is {ratios[half]:.2f} times as fast as {theirs}", flush=True)
    return ratios


def summary(found: Mapping[str, Mapping[bool, float]]) -> None:
    """How many cells are won, and the distance in the others."""
    for half, words in ((False, "fp32"), (True, "half precision")):
        ratios = {label: held[half] for label, held in found.items()}
        won = sum(ratio >= 1 for ratio in ratios.values())
        behind = ", ".join(f"{label} {ratio:.2f}" for label, ratio in ratios.items() if ratio < 1)
        print(
            f"{words}: ahead of the best peer in {won} of {len(ratios)} cells (promised {PROMISED:.0%})",
            end="",
        )
        print(f"; behind in {behind}" if behind else "")


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--networks", nargs="+", default=NETWORKS)
    parse.add_argument("--batches", type=int, nargs="+", default=(1, 8))
    parse.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parse.add_argument("--rounds", type=int, default=7)
    parse.add_argument("--sample", type=float, default=0.05, help="seconds")
    parse.add_argument(
        "--patience", type=float, default=20.0, help="seconds after which a tool gets no more samples"
    )
    parse.add_argument(
        "--quick", action="store_true", help="without torch.compile, which takes most of the time"
    )
    options = parse.parse_args(arguments if arguments is None else list(arguments))
    torch.set_grad_enabled(False)
    print(cpu.announce())
    found = {
        f"{net} x{batch} on {threads}": cell(net, batch, threads, options)
        for net in options.networks
        for batch in options.batches
        for threads in options.threads
    }
    print()
    summary(found)


if __name__ == "__main__":
    main()
