"""The replay buffer and the streams: what is drawn, from where, and that members keep to themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from projects.opirl.replay import Replay, unpack, width
from projects.opirl.streams import BLOCK, Streams

D, A = 3, 2


def numbered(first: int, count: int) -> Tensor:
    """Rows whose every element is the row's number."""
    return torch.arange(first, first + count).float().unsqueeze(1).expand(count, width(D, A))


def buffer(*sizes: int, capacity: int = 8) -> Replay:
    """Member i holds the numbers 1000 i, 1000 i + 1, ..."""
    result = Replay(len(sizes), capacity, D, A)
    for member, size in enumerate(sizes):
        result.add(member, numbered(1000 * member, size))
    return result


def test_rows_unpack_to_their_parts() -> None:
    row = torch.arange(float(width(D, A)))
    batch = unpack(row.view(1, 1, -1), A)
    assert batch.s[0, 0].tolist() == [0, 1, 2] and batch.a[0, 0].tolist() == [3, 4]
    assert batch.s2[0, 0].tolist() == [5, 6, 7] and (batch.r.item(), batch.m.item()) == (8, 9)


def test_fractions_are_places_in_each_member_s_own_buffer() -> None:
    drawn = buffer(4, 2).sample(torch.tensor([[0.0, 0.25, 0.5, 0.999], [0.0, 0.25, 0.5, 0.999]])).r
    assert drawn.tolist() == [[0, 1, 2, 3], [1000, 1000, 1001, 1001]]


def test_largest_fraction_stays_inside() -> None:
    u = torch.full((1, 1), 1.0 - 2.0**-24)
    assert buffer(7).sample(u).r.item() == 6


@pytest.mark.parametrize("window", [1, 3, 10])
def test_window_holds_the_last_rows(window: int) -> None:
    u = torch.rand(2, 400, generator=torch.Generator().manual_seed(0))
    drawn = buffer(6, 2).sample(u, window).r
    assert set(drawn[0].tolist()) == set(range(max(0, 6 - window), 6))
    assert set(drawn[1].tolist()) == {1000.0 + i for i in range(max(0, 2 - window), 2)}


def test_every_row_is_drawn_equally_often() -> None:
    u = torch.rand(1, 40000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(buffer(5).sample(u).r.long().flatten(), minlength=5)
    assert (counts / 8000.0 - 1.0).abs().max() < 0.05


def test_growing_changes_neither_rows_nor_draws() -> None:
    u = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    small, large = buffer(9, 3, capacity=4), buffer(9, 3, capacity=64)
    assert small.rows.shape[1] < large.rows.shape[1]
    for _ in range(3):
        small.add(1, numbered(1003, 20))
        large.add(1, numbered(1003, 20))
        assert torch.equal(small.sample(u).r, large.sample(u).r)
    small.reserve(200)
    assert small.rows.shape[1] >= 200 and torch.equal(small.sample(u).r, large.sample(u).r)


def test_a_member_draws_as_if_it_were_alone() -> None:
    u = torch.rand(3, 32, generator=torch.Generator().manual_seed(0))
    together, alone = buffer(5, 40, 7), Replay(1, 2, D, A)
    alone.add(0, numbered(1000, 40))
    assert torch.equal(together.sample(u).r[1:2], alone.sample(u[1:2]).r)


DRAWS = {"u": ("uniform", (4,)), "eps": ("normal", (2, 3))}


def streams(*seeds: int, name: str = "x") -> Streams:
    return Streams(seeds, name, DRAWS)  # type: ignore[arg-type]


def test_a_step_s_draws_do_not_depend_on_what_was_drawn_before() -> None:
    forwards, backwards = streams(0, 1), streams(0, 1)
    steps = [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5]
    drawn = {step: {k: v.clone() for k, v in forwards.at(step).items()} for step in steps}
    for step in reversed(steps):
        assert all(torch.equal(drawn[step][key], value) for key, value in backwards.at(step).items())


def test_members_draw_from_their_own_seed_s_stream() -> None:
    together = streams(7, 8, 9).at(70)
    alone = streams(8).at(70)
    assert all(torch.equal(together[key][1:2], alone[key]) for key in DRAWS)
    assert not torch.equal(together["eps"][0], together["eps"][1])


def test_names_steps_and_keys_have_disjoint_draws() -> None:
    one, other = streams(0), streams(0, name="y")
    rows = [s.at(step)["u"].clone() for s in (one, other) for step in (0, 1, BLOCK)]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == len(rows)


def test_distributions() -> None:
    many = Streams((0,), "x", {"u": ("uniform", (1000,)), "eps": ("normal", (1000,))}).at(0)
    assert many["u"].min() >= 0.0 and many["u"].max() < 1.0
    assert abs(many["u"].mean().item() - 0.5) < 0.05
    assert abs(many["eps"].mean().item()) < 0.15 and abs(many["eps"].std().item() - 1.0) < 0.1
