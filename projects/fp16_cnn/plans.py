"""Stage `plan`: plans within error budgets, their rivals, and all of them on held-out images, timed in turn."""

from __future__ import annotations

from collections.abc import Sequence

from common.files import write_json
from common.study.model import Member, Metrics
from projects.fp16_cnn import machine, planning, timing
from projects.fp16_cnn.planner import Problem
from projects.fp16_cnn.planning import Measured, Planned
from projects.fp16_cnn.subjects import of_job
from projects.fp16_cnn.timetable import Effort

FILE = "plan.json"


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Plan for one network, whose layers are measured once, and for each budget (relative error of the logits).

    Metrics: see `metrics`; `noisy`.
    """
    first = members[0]
    options = first.cfg["plan"]
    batch, effort = int(options["batch"]), Effort.of(options)
    learned = first.inputs.get("learn") or ()
    subject = of_job(first.cfg, learned[0].folder if learned else None)
    quiet = timing.Quiet(machine.quiet_work())
    quiet.read()
    problem = planning.problem_of(subject, batch, effort)
    rows: list[Metrics] = []
    for member in members:
        budget = float(member.axes["budget"])
        planned = planning.make(subject, problem, "error", budget)
        measured = planning.measure(subject, planned.plans, batch, effort)
        quiet.read()
        write_json(member.out / FILE, planned.plans["planned"])
        rows.append({**metrics(problem, planned, measured, budget), "noisy": float(quiet.noisy)})
    return rows


def metrics(
    problem: Problem, planned: Planned, measured: dict[str, Measured], budget: float
) -> dict[str, float]:
    """`predicted_error`, `measured_error`, `measured_agreement`, `within_budget` (1 or 0), `over_predicted` (measured
    error over predicted); `predicted_ms`, `planned_ms`; `f32_ms`, `half_ms`, `greedy_ms`; `gain`, `greedy_gain`,
    `half_gain` (measured, over fp32); `predicted_gain`; `ahead_of_greedy` (predicted time of greedy over that of the
    plan); `half_error`, `greedy_error` (measured); `lowered`, `layers`.
    """
    plan = planned.plans["planned"]
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
    }
