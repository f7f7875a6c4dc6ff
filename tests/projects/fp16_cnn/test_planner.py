"""The dynamic programme against brute force, with and without borders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadInputError
from projects.fp16_cnn.planner import Border, Choice, Problem, best_plan, tail_greedy, uniform

NAMES = ("f32", "f16w", "f16s", "bf16")
BUCKETS = 64


def brute_force(problem: Problem, budget: float) -> float:
    """The least time of any plan within the budget; infinite if there is none."""
    layers = list(problem.table)
    times = [
        problem.seconds(plan)
        for chosen in itertools.product(NAMES, repeat=len(layers))
        if problem.error(plan := dict(zip(layers, chosen, strict=True))) <= budget * (1 + 1e-9)
    ]
    return min(times, default=math.inf)


@st.composite
def problems(draw: st.DrawFn, whole: bool) -> Problem:
    """Up to four layers and three borders; `whole`: squared errors are whole buckets of the budget 1."""
    layers = [f"layer{number}" for number in range(draw(st.integers(1, 4)))]
    times = st.integers(1, 20)
    errors = st.integers(0, BUCKETS) if whole else st.floats(0.0, BUCKETS)
    table = {
        layer: {
            name: Choice(draw(times), 0.0 if name == "f32" else math.sqrt(draw(errors) / BUCKETS))
            for name in NAMES
        }
        for layer in layers
    }
    borders = []
    for _ in range(draw(st.integers(0, 3))):
        readers = draw(st.lists(st.sampled_from(layers), min_size=1, unique=True))
        cut = draw(st.integers(1, len(readers)))
        copies = {"float16": float(draw(times)), "bfloat16": float(draw(times))}
        borders.append(Border(tuple(readers[:cut]), tuple(readers[cut:]), draw(st.booleans()), copies))
    return Problem(table, borders)


@given(problems(whole=True))
@settings(deadline=None, max_examples=150)
def test_the_plan_is_the_best_of_all_plans(problem: Problem) -> None:
    plan = best_plan(problem, 1.0, BUCKETS)
    assert problem.error(plan) <= 1.0 + 1e-9
    assert problem.seconds(plan) == pytest.approx(brute_force(problem, 1.0))


@given(problems(whole=False))
@settings(deadline=None, max_examples=100)
def test_rounding_to_buckets_costs_at_most_a_bucket_a_layer_and_never_breaks_the_budget(
    problem: Problem,
) -> None:
    plan = best_plan(problem, 1.0, BUCKETS)
    assert problem.error(plan) <= 1.0 + 1e-9
    assert brute_force(problem, 1.0) <= problem.seconds(plan) + 1e-9
    least = math.sqrt(1 - len(problem.table) / BUCKETS)
    assert problem.seconds(plan) <= brute_force(problem, least) + 1e-9


@given(problems(whole=False), st.floats(0.1, 3.0))
@settings(deadline=None, max_examples=60)
def test_no_rival_within_the_budget_is_much_better_and_more_budget_is_never_slower(
    problem: Problem, budget: float
) -> None:
    seconds = problem.seconds(best_plan(problem, budget, 4000))
    assert seconds <= problem.seconds(uniform(problem, "f32"))
    greedy = tail_greedy(problem, "bf16", budget)
    assert problem.error(greedy) <= budget * (1 + 1e-8)
    assert problem.seconds(best_plan(problem, 2 * budget, 4000)) <= seconds
    assert problem.seconds(best_plan(problem, 1.01 * budget, 4000)) <= problem.seconds(greedy)


def layers(seconds: Sequence[float], errors: Sequence[float]) -> dict[str, dict[str, Choice]]:
    """Layers that take 10 in f32."""
    return {
        f"layer{number}": {"f32": Choice(10, 0.0), "bf16": Choice(time, error)}
        for number, (time, error) in enumerate(zip(seconds, errors, strict=True))
    }


def test_greedy_stops_at_the_first_layer_that_does_not_fit_and_the_plan_goes_past_it() -> None:
    problem = Problem(layers([1, 1, 9], [0.3, 2.0, 0.3]))
    assert tail_greedy(problem, "bf16", 0.5) == {"layer0": "f32", "layer1": "f32", "layer2": "bf16"}
    assert best_plan(problem, 0.5) == {"layer0": "bf16", "layer1": "f32", "layer2": "bf16"}


def test_a_dear_border_keeps_its_readers_in_one_storage() -> None:
    copies = {"float16": 8.0, "bfloat16": 8.0}
    table = layers([4, 4], [0.1, 5.0])
    assert best_plan(Problem(table), 1.0) == {"layer0": "bf16", "layer1": "f32"}
    border = Border(("layer0", "layer1"), (), False, copies)
    assert best_plan(Problem(table, [border]), 1.0) == {"layer0": "f32", "layer1": "f32"}
    behind = Border(("layer1",), ("layer0",), False, copies)  # layer1 multiplies it as it is: nothing to copy
    assert best_plan(Problem(table, [behind]), 1.0) == {"layer0": "bf16", "layer1": "f32"}
    read_in_fp32 = Border(("layer0",), (), True, copies)
    assert best_plan(Problem(table, [read_in_fp32]), 1.0) == {"layer0": "f32", "layer1": "f32"}


def test_impossible_budgets() -> None:
    problem = Problem({"layer": {"f32": Choice(1, 0.2)}})
    with pytest.raises(BadInputError, match=r"within 0\.1: the least is 0\.2"):
        best_plan(problem, 0.1)
    for budget in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BadInputError, match="positive number"):
            best_plan(problem, budget)
