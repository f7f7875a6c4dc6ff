"""Finds a layer's blocking by measuring, and remembers it in a file: about ten candidates of ten milliseconds."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from common.files import read_json, write_json
from projects.fp16_cnn import blocking, cpu
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.precision import Precision
from projects.fp16_cnn.shape import LayerShape

SECONDS = 0.01  # of CPU time a candidate
CLEAR = 0.98  # a candidate must beat the default by 2 % to replace it: less is noise
VERSION = 1  # of the kernels: blockings found for others are not used


def cache_file() -> Path:
    """$RETHESIS_CACHE/blockings.json, or that in ~/.cache/rethesis."""
    folder = os.environ.get("RETHESIS_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "rethesis") / "blockings.json"


def best(
    shape: LayerShape, precision: Precision, source: Layout | None = None, target: Layout | None = None
) -> Blocking:
    """The fastest candidate on this CPU, from the cache file or measured and added to it.

    Raises:
        BadInputError: the shape makes no layer.
    """
    border = source.border if source else shape.padding
    source = Layout(shape.batch, shape.height, shape.width, shape.in_channels, border, precision.activations)
    border = target.border if target else (0, 0, 0, 0)
    storage = target.storage if target else precision.activations
    target = Layout(shape.batch, shape.out_height, shape.out_width, shape.out_channels, border, storage)
    key = repr(
        (VERSION, cpu.cpu_name(), os.environ.get(cpu.OVERRIDE, ""), precision.name, shape, source, target)
    )
    known = _read()
    if key in known:
        return Blocking(*known[key])
    found = measure(shape, precision, source, target)
    _add(key, found)
    return found


def measure(shape: LayerShape, precision: Precision, source: Layout, target: Layout) -> Blocking:
    """Time every candidate: the fastest, or the default if none is clearly faster."""
    draws = np.random.default_rng(0)
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = draws.standard_normal(size, np.float32) / np.float32(np.sqrt(shape.terms))
    x, y = Buffer(source), Buffer(target)
    x.write(draws.standard_normal((source.batch, source.height, source.width, source.channels), np.float32))
    tried = blocking.candidates(shape, precision)
    seconds: list[float] = []
    for candidate in tried:
        layer = build(shape, precision, weight, None, source=source, target=target, blocking=candidate)
        seconds.append(_seconds(layer.bind(x, y)))
    fastest = int(np.argmin(seconds))
    return tried[fastest] if seconds[fastest] < CLEAR * seconds[0] else tried[0]


def _seconds(run: Any) -> float:
    """Least CPU time of a call, of as many as fit into `SECONDS`: another process then costs little."""
    run()
    times: list[float] = []
    stop = time.thread_time() + SECONDS
    while not times or time.thread_time() < stop:
        started = time.thread_time()
        run()
        times.append(time.thread_time() - started)
    return min(times)


def _read() -> dict[str, Any]:
    try:
        found = read_json(cache_file())
    except (OSError, ValueError):  # none yet, or damaged: measure again
        return {}
    return found if isinstance(found, dict) else {}


def _add(key: str, found: Blocking) -> None:
    """Write the file anew with one entry more; of two processes that do so at once, one's entry is measured again."""
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _read() | {key: dataclasses.astuple(found)})
