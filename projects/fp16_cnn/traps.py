"""Stage `traps`: two ways in which half precision does fail, so that a study that finds no failure is known to see one.

raw: a network gets grey values from 0 to 255 in place of normalised images, and fp16 (at most 65504) overflows.
sum: n equal terms c are added up in fp16. Once the sum S has c <= ulp(S) / 2, it does not grow any more: for c = 0.5
at S = 1024, where ulp is 1, however many terms follow. A flush into fp32 every 64 terms gives n c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import unknown
from common.files import write_json
from common.study.model import Inputs, Metrics
from projects.fp16_cnn import execute, reference
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.program import Program
from projects.fp16_cnn.subjects import named

TERM = 0.5
CHANNELS, SIDE = 512, 3
TERMS = CHANNELS * SIDE * SIDE
"""4,608: the longest sum of a ResNet-50."""
MEAN, DEVIATION = 127.5, 255 / math.sqrt(12)
"""Of uniform grey values."""


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """One trap.

    Metrics of raw: `largest_normal`, `largest_raw` (activation in fp32), `overflows_normal`, `overflows_raw` (share of
    images with a value that is not finite in fp16 storage), `first_layer` (place of the first such value, -1: none; its
    name stands in traps.json). Of sum: `stops_at`, `exact`, `flushed`.
    """
    trap = str(cfg["axes"]["trap"])
    if trap not in TRAPS:
        raise unknown("trap", trap, TRAPS)
    return TRAPS[trap](cfg, out)


def raw(cfg: Mapping[str, Any], out: Path) -> Metrics:
    """The same images, normalised and not, through a torchvision network whose batch norm is calibrated."""
    options, seed = cfg["traps"], int(cfg["axes"]["seed"])
    subject = named(str(options["net"]), seed, int(options["images"]), int(options["size"]))
    grey = torch.rand(subject.held.shape, generator=torch.Generator().manual_seed(seed)) * 255
    normal = (grey - MEAN) / DEVIATION
    first = overflow(subject.program, grey)
    write_json(out / "traps.json", {"net": str(options["net"]), "first": first})
    names = [node.name for node in subject.program.nodes]
    return {
        "largest_normal": largest(subject.program, normal),
        "largest_raw": largest(subject.program, grey),
        "overflows_normal": overflowing(subject.program, normal),
        "overflows_raw": overflowing(subject.program, grey),
        "first_layer": float(names.index(first)) if first else -1.0,
    }


def constant_sum(cfg: Mapping[str, Any], out: Path) -> Metrics:
    """A convolution of ones over an image of constants: `TERMS` terms of one sign in each output."""
    layer = nn.Conv2d(CHANNELS, 16, SIDE, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.full((1, CHANNELS, SIDE, SIDE), TERM)
    program = import_model(nn.Sequential(layer, nn.Flatten()), x)
    return {
        "stops_at": float(execute.logits(program, "f16e", x)[0, 0]),
        "flushed": float(execute.logits(program, "f16e64", x)[0, 0]),
        "exact": float(reference.run(program, x)[0, 0]),
    }


TRAPS = {"raw": raw, "sum": constant_sum}


def largest(program: Program, x: Tensor) -> float:
    """Largest activation in fp32."""
    return max(float(value.abs().max()) for value in reference.values(program, x, torch.float32).values())


def overflow(program: Program, x: Tensor) -> str | None:
    """The first value, in the order of execution, that is not finite in fp16 storage; None if all are."""
    held = reference.values(program, x, torch.float32, "f16s")
    return next((name for name, value in held.items() if not value.isfinite().all()), None)


def overflowing(program: Program, x: Tensor) -> float:
    """Share of the images that have a value that is not finite in fp16 storage."""
    held = reference.values(program, x, torch.float32, "f16s")
    finite = torch.stack([value.flatten(1).isfinite().all(1) for value in held.values()]).all(0)
    return float((~finite).float().mean())
