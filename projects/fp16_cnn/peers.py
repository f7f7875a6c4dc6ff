"""Stage `peers`: a whole network by our kernels and by every peer, interleaved in one process, on one and all cores.

Weights are random: they change no time. What each tool really executed is read from the tool (see `tools`).
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import unknown
from common.files import write_text
from common.study.model import Inputs, Metrics
from common.tracking.provenance import usable_cores
from projects.fp16_cnn import cpu, machine, networks, timing, tools
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.tools import Peer

if TYPE_CHECKING:
    import torch
    from torch import nn

FILE = "peers.jsonl"
OWN = "own"
HALF = ("f16w", "f16s", "f16", "bf16")
MULTIPLIED = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """Time every tool of `peers.tools`; a line for each in peers.jsonl, printed as well.

    Metrics, for threads in one, all: `ahead_f32_<threads>`, the time of the best peer in fp32 over ours, and
    `ahead_half_<threads>`, the best of any half precision over our best; `noisy`, `drift`. A noisy machine leaves
    only the last two.

    Raises:
        BadInputError: an unknown network, or a tool that is none.
    """
    import torch

    options, axes = cfg["peers"], cfg["axes"]
    net, batch, seed = str(axes["net"]), int(axes["batch"]), int(axes["seed"])
    names = [str(name) for name in options["tools"]]
    model = networks.architecture(net, seed)
    images = tools.seeded_images(batch, int(options["side"]), seed)
    quiet = timing.Quiet(machine.quiet_work())
    lines: list[dict[str, Any]] = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        for label, threads in (("one", 1), ("all", usable_cores())):
            peers = prepare(names, model, images, threads, Path(scratch), bool(options["tune"]))
            for _ in quiet.attempts(int(options["attempts"])):
                seconds = measure(peers, options)
            lines += [
                _line(name, label, threads, peers[name], seconds[name]) for name in peers
            ]  # fmt: skip
            del peers
    write_text(out / FILE, "".join(json.dumps(line) + "\n" for line in lines))
    print(cpu.announce())
    print(table(lines))
    watched = {"noisy": float(quiet.noisy), "drift": quiet.drift}
    return watched if quiet.noisy else {**watched, **summary(lines)}


def prepare(
    names: Sequence[str],
    model: nn.Module,
    images: torch.Tensor,
    threads: int,
    folder: Path,
    tune: bool = False,
) -> dict[str, Peer]:
    """Every tool that this CPU can run, ready.

    Args:
        names: tool and precision: own_f16s, torch_bf16, ...
        tune: our own networks' blockings are found by measuring.

    Raises:
        BadInputError: an unknown tool or precision.
    """
    found: dict[str, Peer] = {}
    for name in names:
        tool, _, kind = name.partition("_")
        if tool == OWN:
            if kind not in PRECISIONS:
                raise unknown("precision", kind, PRECISIONS)
            if kind in cpu.available():
                found[name] = own(model, images, kind, threads, tune)
        elif tool not in tools.TOOLS or kind not in tools.TYPES:
            valid = [f"{each}_{word}" for each in tools.TOOLS for word in tools.TYPES]
            raise unknown("tool in peers.tools", name, valid)
        else:
            found[name] = tools.TOOLS[tool](model, images, kind, threads, folder)
    return found


def own(model: nn.Module, images: torch.Tensor, kind: str, threads: int, tune: bool = False) -> Peer:
    """Our own network of one precision."""
    from projects.fp16_cnn.graph import import_model
    from projects.fp16_cnn.network import compile_network

    program = import_model(model, images)
    network = compile_network(program, kind, len(images), threads, tune)
    given, precision = images.numpy(), PRECISIONS[kind]
    ran = Counter({MULTIPLIED[precision.multiplies]: len(program.layers)})
    return Peer(lambda: network.run(given), ran, f"{len(program.layers)} x {precision.words}")


def measure(peers: Mapping[str, Peer], options: Mapping[str, Any]) -> dict[str, list[float]]:
    """Seconds an inference by the wall clock, interleaved."""
    calls = {name: peer.call for name, peer in peers.items()}
    rounds, sample, patience = int(options["rounds"]), float(options["sample"]), float(options["patience"])
    return timing.hot(calls, rounds, sample, time.perf_counter, patience)


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How far our best is ahead of the best peer: above 1 it is faster."""
    found: dict[str, float] = {}
    for threads in ("one", "all"):
        for label, kinds in (("f32", ("f32",)), ("half", HALF)):
            times = {
                mine: [
                    line["ms"]
                    for line in lines
                    if line["label"] == threads and line["kind"] in kinds and (line["tool"] == OWN) == mine
                ]
                for mine in (True, False)
            }
            if all(times.values()):
                found[f"ahead_{label}_{threads}"] = min(times[False]) / min(times[True])
    return found


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as text, each with what was executed."""
    rows = [
        f"{line['tool']:9s} {line['kind']:5s} {line['threads']:2d} threads {line['ms']:9.2f} ms   {line['how']}"
        for line in sorted(lines, key=lambda line: (line["threads"], line["ms"]))
    ]
    return "\n".join(rows)


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a finished job."""
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def _line(name: str, label: str, threads: int, peer: Peer, seconds: Sequence[float]) -> dict[str, Any]:
    tool, _, kind = name.partition("_")
    return {
        "name": name,
        "tool": tool,
        "kind": kind,
        "label": label,
        "threads": threads,
        "ms": 1e3 * statistics.median(seconds),
        "samples": len(seconds),
        "ran": dict(peer.ran),
        "how": peer.how,
    }
