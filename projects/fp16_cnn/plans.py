"""Stage `plan`: a plan within an error budget, its rivals, and all of them on held-out images, timed in turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.files import write_json
from common.study.model import Inputs, Metrics
from projects.fp16_cnn import machine, planning, timing
from projects.fp16_cnn.subjects import of_job
from projects.fp16_cnn.timetable import Effort

FILE = "plan.json"


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """Plan for one network and one budget (relative error of the logits).

    Metrics: `predicted_error`, `measured_error`, `measured_agreement`, `within_budget` (1 or 0), `over_predicted`
    (measured error over predicted); `predicted_ms`, `planned_ms`; `f32_ms`, `half_ms`, `greedy_ms`; `gain`,
    `greedy_gain`, `half_gain` (measured, over fp32); `predicted_gain`; `ahead_of_greedy` (predicted time of greedy over
    that of the plan); `half_error`, `greedy_error` (measured); `lowered`, `layers`; `noisy`.
    """
    options, axes = cfg["plan"], cfg["axes"]
    batch, effort, budget = int(options["batch"]), Effort.of(options), float(axes["budget"])
    learned = inputs.get("learn") or ()
    subject = of_job(cfg, learned[0].folder if learned else None)
    quiet = timing.Quiet(machine.quiet_work())
    quiet.read()
    problem = planning.problem_of(subject, batch, effort)
    planned = planning.make(subject, problem, "error", budget)
    measured = planning.measure(subject, planned.plans, batch, effort)
    quiet.read()
    plan = planned.plans["planned"]
    write_json(out / FILE, plan)
    predicted = {name: problem.seconds(each) for name, each in planned.plans.items()}
    own, f32 = measured["planned"], measured["f32"].seconds
    return {
        "predicted_error": problem.error(plan),
        "measured_error": own.error,
        "measured_agreement": own.agreement,
        "within_budget": float(own.error <= budget),
        "over_predicted": own.error / max(problem.error(plan), 1e-12),
        "predicted_ms": 1e3 * predicted["planned"],
        "planned_ms": 1e3 * own.seconds,
        **{f"{name}_ms": 1e3 * measured[name].seconds for name in ("f32", "half", "greedy")},
        "gain": f32 / own.seconds,
        "greedy_gain": f32 / measured["greedy"].seconds,
        "half_gain": f32 / measured["half"].seconds,
        "predicted_gain": predicted["f32"] / predicted["planned"],
        "ahead_of_greedy": predicted["greedy"] / predicted["planned"],
        "half_error": measured["half"].error,
        "greedy_error": measured["greedy"].error,
        "lowered": float(sum(name != "f32" for name in plan.values())),
        "layers": float(len(plan)),
        "noisy": float(quiet.noisy),
    }
