"""Coverage on cases whose answer is known without it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.opirl.coverage import coverage, goals_reached, overlap, regions
from projects.opirl.rollout import run

RNG = np.random.default_rng(0)
LEFT = RNG.normal([-3.0, 0.0, 1.0], 0.3, (300, 3))
RIGHT = RNG.normal([3.0, 0.0, -1.0], 0.3, (300, 3))
BOTH = np.concatenate([LEFT, RIGHT])
REGIONS = regions(BOTH, 20)


def test_the_expert_covers_itself():
    assert coverage(REGIONS, BOTH) == 1.0


def test_one_of_two_modes_is_about_half():
    assert coverage(REGIONS, LEFT) == pytest.approx(0.5, abs=0.15)
    assert coverage(REGIONS, LEFT) + coverage(REGIONS, RIGHT) == pytest.approx(1.0)


def test_elsewhere_is_nothing():
    assert coverage(REGIONS, BOTH + np.array([0.0, 50.0, 0.0])) == 0.0
    assert coverage(REGIONS, np.empty((0, 3))) == 0.0


def test_the_same_states_with_other_actions_do_not_count():
    assert coverage(REGIONS, LEFT * [1.0, 1.0, -1.0]) == 0.0


def test_between_the_modes_is_not_a_mode():
    """The average of two modes, where a mode-averaging policy goes, visits neither."""
    assert coverage(REGIONS, RNG.normal(0.0, 0.05, (500, 3))) == 0.0


def test_a_feature_that_never_varies_may_be_there():
    constant = np.concatenate([BOTH, np.full((600, 1), 7.0)], 1)
    assert coverage(regions(constant, 20), constant) == 1.0


def test_fewer_pairs_than_regions():
    few = np.array([[0.0, 0.0], [1.0, 1.0]])
    cut = regions(few, 50)
    assert len(cut.centres) <= 2
    assert coverage(cut, few) == 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 600))
def test_order_does_not_matter_more_pairs_never_cover_less(seed, count):
    rng = np.random.default_rng(seed)
    policy = BOTH[rng.permutation(600)[:count]]
    value = coverage(REGIONS, policy)
    assert 0.0 <= value <= 1.0
    assert coverage(REGIONS, rng.permutation(policy)) == value
    assert coverage(REGIONS, np.concatenate([policy, BOTH[:5]])) >= value


def test_order_of_the_expert_does_not_matter():
    again = regions(np.random.default_rng(5).permutation(BOTH), 20)
    np.testing.assert_array_equal(again.centres, REGIONS.centres)
    np.testing.assert_array_equal(again.radii, REGIONS.radii)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ([0, 1, 0, 1], 1.0),
        ([0, 0, 0, 0], 0.5),
        ([0, 0, 0, 1], 0.75),
        ([-1, -1, -1, -1], 0.0),
        ([0, -1, 1, -1], 0.5),
        ([], 0.0),
    ],
)
def test_overlap(policy, expected):
    assert overlap(np.array(policy, int), np.array([0, 1])) == pytest.approx(expected)


def test_goals_reached():
    def to(goal):
        def act(obs):
            aim = np.where(obs.numpy()[..., 1:2] < 0.4, [goal, 0.42], [goal, 0.5])
            return np.clip(10 * (aim - obs.numpy()[..., :2]), -1, 1)

        return act

    for goal, mode in ((0.0, 0), (0.5, 1), (0.25, -1)):
        (episodes,) = run(to(goal), "pointmaze_two_goals", 3, [0])
        assert goals_reached(episodes).tolist() == [mode] * 3
