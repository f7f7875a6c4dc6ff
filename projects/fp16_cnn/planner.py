"""Which precision for which layer: least time within an error budget.

    minimise  sum_l t_l(p_l) + sum_v c_v(p)    subject to    sum_l e_l(p_l)^2 <= budget^2

t_l: seconds of layer l in precision p_l. e_l: relative change of the logits when layer l alone is lowered; the layers'
errors are taken as uncorrelated, so their squares add up. c_v: the converted copies of value v where the layers that
multiply it disagree on how it is stored; where they agree, its producer stores it so and a border costs nothing.

A multiple-choice knapsack (Sinha and Zoltners 1979) whose items are coupled by the borders: a dynamic programme over
the layers in their order and over buckets of the squared budget. Its state holds the storage of those layers alone
whose border has a reader still to come. An error is rounded up to whole buckets, so a plan never exceeds its budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from common.errors import BadInputError
from projects.fp16_cnn.precision import PRECISIONS

BUCKETS = 2000
OPEN = 6  # layers whose border is undecided at once, at most: beyond it the states are too many
SLACK = 1e-9  # of a bucket: rounding noise


@dataclass(frozen=True)
class Choice:
    """A layer in one precision: seconds, and relative change of the logits."""

    seconds: float
    error: float


@dataclass(frozen=True)
class Border:
    """A value that several layers read.

    Attributes:
        multiply: layers that multiply it.
        others: layers behind operators that pass its storage on (pooling, sums): they have a say, and need no copy.
        fixed: whether something reads it in fp32 in any plan.
        seconds: of a converted copy, by its storage.
    """

    multiply: tuple[str, ...]
    others: tuple[str, ...]
    fixed: bool
    seconds: Mapping[str, float]

    @property
    def readers(self) -> tuple[str, ...]:
        """All layers that have a say."""
        return self.multiply + self.others

    def cost(self, stored: Mapping[str, str]) -> float:
        """Seconds of the copies, given what every reader wants."""
        kinds = {stored[name] for name in self.readers} | ({"float32"} if self.fixed else set())
        if len(kinds) == 1:
            return 0.0
        copies = {stored[name] for name in self.multiply} - {"float32"}
        return sum(self.seconds[kind] for kind in copies)


Table = Mapping[str, Mapping[str, Choice]]
"""Layer -> precision -> choice, layers in the order of execution; every layer has f32."""
Precisions = dict[str, str]


@dataclass(frozen=True)
class Problem:
    """What is known of a network.

    Attributes:
        rest: seconds of what no plan changes.
    """

    table: Table
    borders: Sequence[Border] = ()
    rest: float = 0.0

    def seconds(self, plan: Mapping[str, str]) -> float:
        """Predicted, of all layers, converted copies and the rest."""
        stored = {name: str(PRECISIONS[plan[name]].activations) for name in self.table}
        layers = sum(self.table[name][plan[name]].seconds for name in self.table)
        return layers + sum(border.cost(stored) for border in self.borders) + self.rest

    def error(self, plan: Mapping[str, str]) -> float:
        """Predicted relative change of the logits."""
        return math.sqrt(sum(self.table[name][plan[name]].error ** 2 for name in self.table))


def uniform(problem: Problem, precision: str) -> Precisions:
    """All layers in one precision."""
    return dict.fromkeys(problem.table, precision)


def tail_greedy(problem: Problem, precision: str, budget: float) -> Precisions:
    """The obvious rule: lower layers from the last one on, until the next one would exceed the budget."""
    plan = uniform(problem, "f32")
    for name in reversed(list(problem.table)):
        lowered = plan | {name: precision}
        if problem.error(lowered) > budget * (1 + SLACK):
            break
        plan = lowered
    return plan


def check_budget(budget: float) -> None:
    """Refuse a budget that is none.

    Raises:
        BadInputError: it is not a positive number.
    """
    if not (budget > 0 and math.isfinite(budget)):
        raise BadInputError(f"an error budget must be a positive number, not {budget}.")


def best_plan(problem: Problem, budget: float, buckets: int = BUCKETS) -> Precisions:
    """The fastest plan within the budget, exact but for the rounding of errors to buckets.

    Raises:
        BadInputError: the budget is not a positive number, even fp32 exceeds it, or too many layers share borders.
    """
    check_budget(budget)
    states: dict[_State, Float64[NDArray[np.float64], " buckets"]] = {(): np.zeros(buckets + 1)}
    steps: list[dict[_State, _Back]] = []
    names = list(problem.table)
    for place, name in enumerate(names):
        states, back = _step(problem, names, place, states, _units(problem.table[name], budget, buckets))
        steps.append(back)
    ((state, seconds),) = states.items()
    if not math.isfinite(seconds[buckets]):
        least = math.sqrt(
            sum(min(c.error for c in choices.values()) ** 2 for choices in problem.table.values())
        )
        raise BadInputError(f"no plan has an error within {budget:g}: the least is {least:.2g}.")
    return _walk_back(names, steps, state, buckets)


_State = tuple[tuple[str, str], ...]
"""Storage of each layer that has an undecided border."""


@dataclass
class _Back:
    """Per bucket: which precision was taken, from which state, and the buckets that it used."""

    names: list[str]
    origins: list[_State]
    units: list[int]
    taken: Int64[NDArray[np.int64], " buckets"]


def _units(choices: Mapping[str, Choice], budget: float, buckets: int) -> dict[str, int]:
    """Buckets that each precision of a layer uses."""
    return {
        name: math.ceil((choice.error / budget) ** 2 * buckets - SLACK) for name, choice in choices.items()
    }


def _step(
    problem: Problem,
    names: Sequence[str],
    place: int,
    states: Mapping[_State, NDArray[np.float64]],
    units: Mapping[str, int],
) -> tuple[dict[_State, NDArray[np.float64]], dict[_State, _Back]]:
    """Decide one more layer."""
    name, later = names[place], set(names[place + 1 :])
    closing = [
        border for border in problem.borders if name in border.readers and not later & set(border.readers)
    ]
    undecided = {
        reader for border in problem.borders if later & set(border.readers) for reader in border.readers
    }
    if len(undecided - later) > OPEN:
        raise BadInputError(
            f"{name}: more than {OPEN} layers share values with layers behind it; plan without borders."
        )
    after: dict[_State, NDArray[np.float64]] = {}
    back: dict[_State, _Back] = {}
    for state, seconds in states.items():
        for precision, choice in problem.table[name].items():
            stored = {**dict(state), name: str(PRECISIONS[precision].activations)}
            extra = choice.seconds + sum(border.cost(stored) for border in closing)
            key = tuple((reader, kind) for reader, kind in stored.items() if reader in undecided)
            used = units[precision]
            moved = np.full_like(seconds, np.inf)
            if used < len(seconds):
                moved[used:] = seconds[: len(seconds) - used] + extra
            if key not in after:
                after[key] = np.full_like(seconds, np.inf)
                back[key] = _Back([], [], [], np.full(len(seconds), -1))
            kept = back[key]
            kept.taken[moved < after[key]] = len(kept.names)
            after[key] = np.minimum(after[key], moved)
            kept.names.append(precision)
            kept.origins.append(state)
            kept.units.append(used)
    return after, back


def _walk_back(
    names: Sequence[str], steps: Sequence[Mapping[_State, _Back]], state: _State, at: int
) -> Precisions:
    plan: Precisions = {}
    for name, step in zip(reversed(names), reversed(steps), strict=True):
        back = step[state]
        taken = int(back.taken[at])
        plan[name] = back.names[taken]
        at, state = at - back.units[taken], back.origins[taken]
    return {name: plan[name] for name in names}
