"""Absorbing states: the rows, and what they change about endings under a reward of either sign."""

from __future__ import annotations

import pytest
import torch

from projects.opirl.absorbing import absorbing_state, features, transitions
from projects.opirl.replay import unpack


def sample(terminated):
    k = len(terminated)
    s = features(torch.arange(2.0 * k).view(k, 2) + 1, torch.zeros(2), torch.ones(2))
    return (
        s,
        torch.full((k, 1), 0.5),
        s + torch.tensor([2.0, 2.0, 0.0]),
        torch.arange(float(k)),
        torch.tensor(terminated),
    )


def test_features_are_normalised_and_flagged():
    s = features(torch.tensor([[3.0, 5.0]]), torch.tensor([-1.0, -1.0]), torch.tensor([0.5, 2.0]))
    assert s.tolist() == [[1.0, 8.0, 0.0]]


def test_rows_of_an_absorbing_chain():
    s, a, s2, r, ended = sample([False, True, False])
    batch = unpack(transitions(s, a, s2, r, ended, absorbing=2).unsqueeze(0), act_dim=1)
    void = absorbing_state(2)
    assert batch.s[0].tolist() == [s[0].tolist(), s[1].tolist(), void.tolist(), void.tolist(), s[2].tolist()]
    assert batch.s2[0].tolist() == [s2[0].tolist(), *[void.tolist()] * 3, s2[2].tolist()]
    assert batch.a[0, :, 0].tolist() == [0.5, 0.5, 0.0, 0.0, 0.5]
    assert batch.r[0].tolist() == [0.0, 1.0, 0.0, 0.0, 2.0]
    assert batch.m[0].tolist() == [1.0] * 5


def test_two_endings_in_a_row():
    rows = transitions(*sample([True, True]), absorbing=1)
    assert rows[:, 2].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_without_absorbing_states_an_ending_is_masked():
    s, a, s2, r, ended = sample([False, True])
    batch = unpack(transitions(s, a, s2, r, ended, absorbing=0).unsqueeze(0), act_dim=1)
    assert batch.m[0].tolist() == [1.0, 0.0]
    assert torch.equal(batch.s2[0], s2)


def test_time_out_is_an_ordinary_transition():
    s, a, s2, r, _ = sample([False, False])
    batch = unpack(transitions(s, a, s2, r, torch.zeros(2, dtype=torch.bool), absorbing=3).unsqueeze(0), 1)
    assert torch.equal(batch.s2[0], s2) and batch.m[0].tolist() == [1.0, 1.0]


def q_values(absorbing, bonus, expert_stays):
    """Q(stay), Q(end) of a one-state task by value iteration on the rows that the library makes.

    The reward of what the expert does (staying, or being in the absorbing state) is 1 + bonus, of the rest
    -1 + bonus: an imitation reward is known up to such a constant only.
    """
    gamma = 0.9
    s = features(torch.ones(2, 1), torch.zeros(1), torch.ones(1))
    a = torch.tensor([[0.0], [1.0]])  # stay, end
    rows = transitions(s, a, s, torch.zeros(2), torch.tensor([False, True]), absorbing)
    batch = unpack(rows.unsqueeze(0), 1)
    stays = (a_is := batch.a[0, :, 0]) == 0
    gone, next_gone = batch.s[0, :, -1] == 1, batch.s2[0, :, -1] == 1
    liked = (stays & ~gone) if expert_stays else (gone | (a_is == 1))
    reward = torch.where(liked, 1.0, -1.0) + bonus
    value = {False: 0.0, True: 0.0}
    for _ in range(300):
        following = torch.where(next_gone, value[True], value[False])
        q = reward + gamma * batch.m[0] * following
        value = {False: q[~gone].max().item(), True: q[gone].max().item() if gone.any() else 0.0}
    return q[0].item(), q[1].item()


@pytest.mark.parametrize("bonus", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("expert_stays", [True, False])
def test_with_absorbing_states_the_expert_is_preferred_under_any_offset(bonus, expert_stays):
    stay, end = q_values(1, bonus, expert_stays)
    assert (stay > end) == expert_stays


def test_without_them_the_offset_decides():
    stay, end = q_values(0, -3.0, expert_stays=True)
    assert end > stay  # survival is punished: ending early looks best although the expert stays
    stay, end = q_values(0, 3.0, expert_stays=False)
    assert stay > end  # survival is paid: ending is never chosen although the expert ends
