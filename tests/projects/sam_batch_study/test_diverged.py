"""A net that diverged, or learned nothing, costs its own seed the worst value of a claim, and its stack nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.curvature.landscape import Landscape
from common.files import write_json
from common.study.model import JobRef, Member, Metrics
from common.tracking.record import read_history
from projects.sam_batch_study import probe, search
from projects.sam_batch_study.arms import LAMBDA, SPREAD
from projects.sam_batch_study.law import spread
from projects.sam_batch_study.plan import plan_of
from projects.sam_batch_study.sweep import Point, best
from projects.sam_batch_study.trained import load_weights
from tests.projects.sam_batch_study import support
from tests.projects.sam_batch_study.conftest import Stages

SAM = {"kind": "sam", "tuned_as": "sam_batch"}
AXES = {"task": "clean", "method": "sam_batch", "batch": 128}
TRAIN = {"steps": 48, "looks": 12, "fit": 0.0}
GOOD, HUGE, TINY = 0.04, 1e6, 1e-9  # learning rates


def same_seed(ref: JobRef, seed: int) -> bool:
    return ref.axes["seed"] == seed


def chosen(stages: Stages, rates: Mapping[int, float]) -> None:
    """As if the search of each seed had come to this learning rate."""
    refs: list[JobRef] = []
    for seed, lr in rates.items():
        folder = stages.root / f"search {seed}"
        folder.mkdir()
        write_json(folder / search.TRIALS, [{"lr": lr, "rho": 0.1, "error": 0.1, "fitted": True}])
        refs.append(JobRef({"seed": seed}, folder, {}))
    stages.finished["search"] = refs


def probed(
    stages: Stages, rates: Mapping[int, float], train: Mapping[str, Any] = TRAIN
) -> tuple[list[Member], list[Metrics]]:
    """Retrain and probe seeds as one stack."""
    chosen(stages, rates)
    cfg = support.config(rule=SAM, retrain={"inits": 1}, train=train, probe={"m": 64})
    seeds = tuple(rates)
    stages.run("retrain", stages.members("retrain", cfg, seeds, {"search": same_seed}, **AXES))
    members = stages.members("probe", cfg, seeds, {"retrain": same_seed}, **AXES)
    return members, stages.run("probe", members)


def assert_json(found: Metrics) -> None:
    json.dumps(dict(found), allow_nan=False)


def test_the_worst_lambda_counts_for_a_net_that_diverged_and_the_rest_of_the_stack_is_measured(
    stages: Stages,
) -> None:
    members, (bad, good) = probed(stages, {0: HUGE, 1: GOOD})
    last = load_weights(members[0].inputs["retrain"][0].folder)["last"]
    assert not all(bool(value.isfinite().all()) for value in last.values())
    assert bad["lambda_max"] == LAMBDA.worst and "trace" not in bad
    assert 0 < good["lambda_max"] < 1000 and {"trace", "cosine", "middle_lambda"} <= set(good)
    assert probe.measure(members[1]) == good
    assert_json(bad)


def at_the_end(scale: float, shift: float = 0.0) -> dict[str, float]:
    """Of a net whose weights are a net's by He times `scale`, its hidden biases `shift`."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()),
        nn.Linear(16, 4),
    )
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(scale)
                layer.bias.mul_(scale).add_(shift if layer is not model[-1] else 0.0)
    x, y = torch.randn(32, 8), torch.randint(4, (32,))
    options = {"rho": 0.1, "m": 16, "lanczos": 10, "products": 6, "ascent": 2}
    return probe._at_the_end(Landscape(model, nn.functional.cross_entropy, x, y), options)


@pytest.mark.parametrize("scale", [1e7, 1e9, 1e30])
def test_weights_that_are_finite_and_too_large_for_a_curvature_have_diverged_too(scale: float) -> None:
    """At 1e7 and 1e9 loss and gradient are finite and a product overflows; at 1e30 the loss is NaN."""
    assert at_the_end(scale) == {"lambda_max": LAMBDA.worst}


def test_no_measured_lambda_is_worse_than_the_worst() -> None:
    assert 0 < at_the_end(1.0)["lambda_max"] < 100
    found = at_the_end(1e5)
    assert found["lambda_max"] == LAMBDA.worst and found["gradient_norm"] > 1e6


def test_the_flatness_of_a_dead_net_is_no_merit() -> None:
    """No hidden unit answers and the softmax is saturated, on wrong answers: the Hessian is 0, the gradient not."""
    found = at_the_end(1e4, shift=-1e9)
    assert found["lambda_max"] == LAMBDA.worst and found["gradient_norm"] > 0


def test_a_net_that_comes_down_to_no_level_has_no_middle(stages: Stages) -> None:
    members, (slow, good) = probed(stages, {0: TINY, 1: GOOD})
    assert not {"middle_lambda", "middle_norm"} & set(slow) and slow["trace"] > 0
    assert {"middle_lambda", "middle_norm"} <= set(good)
    assert not read_history(members[0].out / "history.jsonl")
    assert_json(slow)


def test_after_the_last_step_there_is_no_edge(stages: Stages) -> None:
    """The only look is the last: the learning rate of the step that would come next is exactly 0."""
    train = TRAIN | {"looks": 1}
    members, (found,) = probed(stages, {0: GOOD}, train)
    assert plan_of(members[0].cfg, 128).rate(48) == 0.0
    rows = read_history(members[0].out / "history.jsonl")
    assert [row["step"] for row in rows] == [48] * len(rows) and rows
    assert all("full_batch_edge" not in row and row["lambda_max"] > 0 for row in rows)
    assert_json(found)


def job(batch: int, **metrics: float) -> JobRef:
    return JobRef({"batch": batch}, Path(), metrics)


@pytest.mark.parametrize("missing", ["norm", "middle_lambda"])
def test_a_law_without_its_quantities_has_the_worst_spread(missing: str) -> None:
    tuned = [job(64, best_rho=0.1, norm=2.0), job(256, best_rho=0.2, norm=2.0)]
    curved = [job(64, middle_lambda=10.0), job(256, middle_lambda=5.0)]
    if missing == "norm":
        tuned[0] = job(64, best_rho=0.1)
    else:
        curved[0] = job(64, lambda_max=LAMBDA.worst if isinstance(LAMBDA.worst, float) else 0.0)

    def of(law: str) -> float:
        return spread(Member({}, {"sweep": tuned, "probe": curved}, Path(), {"law": law}))

    assert of("scaled") == of("shuffled") == SPREAD.worst
    assert of("plain") == pytest.approx(math.log(2) / math.sqrt(2))


def test_the_norm_at_the_best_rho_is_from_the_nets_that_have_one() -> None:
    """The neighbour above diverged, and the parabola's lowest point lies towards it."""
    curve = {
        0.1: Point(0.3, 0.3, 1.0, fitted=True),
        0.2: Point(0.1, 0.1, 2.0, fitted=True),
        0.4: Point(0.2, 0.2, math.nan, fitted=False),
    }
    found = best(curve)
    assert found["best_rho"] > 0.2 and found["norm"] == pytest.approx(2.0)
    none = {rho: Point(1.0, 1.0, math.nan, fitted=False) for rho in curve}
    assert "norm" not in best(none) and math.isfinite(best(none)["best_rho"])


def test_a_sweep_with_a_strength_at_which_nets_diverge_can_be_kept(stages: Stages) -> None:
    chosen(stages, {0: GOOD})
    cfg = support.config(rule=SAM, train=TRAIN, sweep={"rhos": [0.05, 0.1, 1e30], "inits": 1})
    (found,) = stages.run("sweep", stages.members("sweep", cfg, (0,), {"search": same_seed}, **AXES))
    assert found["error_at_1e+30"] == 1.0 and 0 < found["norm"] < 100
    assert_json(found)
