"""Stage `shown`: what the figures show of the first seed's test, in the table, since figures are drawn from it.

Parts are worst_0, worst_1, best_0, best_1, a query of the worst or best class and its nearest images (place_0, …);
class_0 to class_5, some images of a class on the map (image_0, x_0, y_0, …; explained), see `examples`; weights_half
and weights_end, the weights of a batch's pairs in the middle and at the end of the first fold's training (step, and
the shares of `diagnostics.histogram`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import read_json
from common.study.model import Member, Metrics
from common.tracking.record import HISTORY

FILE = "examples.json"
LOOKS = {"weights_half": 0.5, "weights_end": 1.0}  # share of the training
BINS = ("positive_weight_", "negative_weight_")


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: see the module; indices are those of test images, of gallery images where there is a gallery."""
    return [part(member) for member in members]


def part(member: Member) -> Metrics:
    """Of one part."""
    first = min(member.inputs["learn"], key=lambda job: int(job.axes["seed"]))
    found: dict[str, Any] = {} if first.metrics["inert"] else read_json(first.folder / FILE)
    name = str(member.axes["part"])
    metrics = {"of_seed": float(first.axes["seed"])}
    if name in LOOKS:
        return metrics | weights(first.folder / HISTORY, LOOKS[name])  # pyright: ignore[reportOperatorIssue]
    if name not in found:  # fewer classes than the map has places, or a rule that was inert
        return metrics
    if not name.startswith("class"):
        return metrics | {f"place_{k}": float(index) for k, index in enumerate(found[name])}
    metrics["explained"] = float(found["explained"])
    for k, (index, (x, y)) in enumerate(zip(found[name]["images"], found[name]["points"], strict=True)):
        metrics |= {f"image_{k}": float(index), f"x_{k}": float(x), f"y_{k}": float(y)}
    return metrics


def weights(history: Path, share: float) -> Metrics:
    """The histogram at the last look within a share of the training."""
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    row = max((row for row in rows if row["step"] <= share * rows[-1]["step"]), key=lambda row: row["step"])
    return {key: float(value) for key, value in row.items() if key == "step" or key.startswith(BINS)}
