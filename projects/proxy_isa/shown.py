"""Stage `shown`: what the figures show of the first seed's test, in the table, since figures are drawn from it.

Parts are worst_0, worst_1, best_0, best_1, a query of the worst or best class and its nearest images (place_0, …), and
class_0 to class_5, some images of a class on the map (image_0, x_0, y_0, …; explained). See `examples`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.files import read_json
from common.study.model import Member, Metrics

FILE = "examples.json"


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: see the module; indices are those of test images, of gallery images where there is a gallery."""
    return [part(member) for member in members]


def part(member: Member) -> Metrics:
    """Of one part."""
    first = min(member.inputs["learn"], key=lambda job: int(job.axes["seed"]))
    found: dict[str, Any] = {} if first.metrics["inert"] else read_json(first.folder / FILE)
    name = str(member.axes["part"])
    metrics = {"of_seed": float(first.axes["seed"])}
    if name not in found:  # fewer classes than the map has places, or a rule that was inert
        return metrics
    if not name.startswith("class"):
        return metrics | {f"place_{k}": float(index) for k, index in enumerate(found[name])}
    metrics["explained"] = float(found["explained"])
    for k, (index, (x, y)) in enumerate(zip(found[name]["images"], found[name]["points"], strict=True)):
        metrics |= {f"image_{k}": float(index), f"x_{k}": float(x), f"y_{k}": float(y)}
    return metrics
