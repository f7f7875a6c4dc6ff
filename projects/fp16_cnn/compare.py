"""Stage `compare`: one row for each tool of a finished `peers` job, for the report's table and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.study.model import Member, Metrics
from projects.fp16_cnn import peers


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics of a tool in a precision: `one_ms`, `all_ms` (one and all cores), `own_ahead_one`, `own_ahead_all` (its
    time over that of our best in the same class, fp32 or half), `ran_f32`, `ran_bf16`, `ran_f16` (share of the
    multiplying layers that executed in that type).

    A job on a noisy machine gives `ran_...` alone; a tool that was not run gives nothing.
    """
    lines = peers.read(members[0].inputs["peers"][0].folder)
    noisy = bool(members[0].inputs["peers"][0].metrics["noisy"])
    return [row(lines, str(member.axes["tool"]), noisy) for member in members]


def row(lines: Sequence[dict[str, Any]], name: str, noisy: bool) -> dict[str, float]:
    """The metrics of one tool."""
    found: dict[str, float] = {}
    for line in (line for line in lines if line["name"] == name):
        total = sum(line["ran"].values())
        found |= {f"ran_{kind}": line["ran"].get(kind, 0) / total for kind in ("f32", "bf16", "f16")}
        if noisy:
            continue
        found[f"{line['label']}_ms"] = line["ms"]
        kinds = ("f32",) if line["kind"] == "f32" else peers.HALF
        mine = [
            other["ms"]
            for other in lines
            if other["tool"] == peers.OWN and other["label"] == line["label"] and other["kind"] in kinds
        ]
        if mine:
            found[f"own_ahead_{line['label']}"] = line["ms"] / min(mine)
    return found
