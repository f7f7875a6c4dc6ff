"""The demonstrations artefact: what goes in comes out, and everything that is wrong with one is named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import BadInputError
from projects.opirl.demos import ACTION_LIMIT, CARD, FILE, choose, demos_of, load, record, rows, save
from projects.opirl.replay import unpack
from projects.opirl.rollout import Counters, run


def chase(obs):
    """Straight to the target at full speed: actions at the limits (trap P6)."""
    return np.sign(obs.numpy()[..., 3:5] - obs.numpy()[..., :2]) * 1.0


def shove(obs):
    return torch.ones(*obs.shape[:-1], 1)


@pytest.fixture(scope="module")
def demos():
    return record(chase, "pointmaze_left", 4, [0])[0]


def test_round_trip_and_card(demos, tmp_path):
    save(demos, tmp_path, {"algorithm": "chase", "seed": 0})
    back = load(tmp_path)
    assert back.env == "pointmaze_left"
    for key in ("obs", "act", "next_obs", "reward", "terminated", "truncated", "episode"):
        np.testing.assert_array_equal(getattr(back.episodes, key), getattr(demos.episodes, key))
    np.testing.assert_array_equal(back.shift, demos.shift)
    card = json.loads((tmp_path / CARD).read_text())
    assert card["made"] == {"algorithm": "chase", "seed": 0}
    assert card["episodes"] == 4 and card["transitions"] == 400 and card["truncated"] == 4
    assert card["returns"] == pytest.approx(demos.episodes.returns.tolist())
    assert sorted(p.name for p in tmp_path.iterdir()) == [CARD, FILE]


def test_same_demonstrations_same_bytes(demos, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        save(demos, tmp_path / folder, {})
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_actions_at_the_limit_are_clipped_inwards(demos):
    """atanh(a) is finite in float32 and the largest action is as near 1 as the limit allows."""
    largest = np.abs(demos.episodes.act).max()
    assert largest == ACTION_LIMIT < 1
    assert torch.isfinite(torch.atanh(torch.from_numpy(demos.episodes.act))).all()


def test_normaliser(demos):
    normed = (demos.episodes.obs + demos.shift) * demos.scale
    varying = demos.episodes.obs.std(0) > 1e-6
    np.testing.assert_allclose(normed.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(normed.std(0)[varying], 1, atol=0.05)
    assert np.isfinite(demos.scale).all()


def test_demonstrator_of_two_goals_takes_both_and_the_task_does_not_say_which():
    counters = [Counters()]
    (demos,) = record(chase, "pointmaze_two_goals", 8, [0], counters)
    assert demos.env == "pointmaze_two_goals"
    assert np.unique(demos.episodes.obs[:, 3]).tolist() == [0.25]
    ends = demos.episodes.next_obs[99::100, 0]
    assert {end < 0.25 for end in ends} == {True, False}
    assert counters[0].reward_collection == 800 and counters[0].training == 0


def seen(demos, absorbing):
    return rows(demos, absorbing, torch.from_numpy(demos.shift), torch.from_numpy(demos.scale))


def test_rows_are_in_the_learner_s_normalisation(demos):
    shift, scale = torch.full((6,), 0.5), torch.full((6,), 2.0)
    batch = unpack(rows(demos, 0, shift, scale).unsqueeze(0), act_dim=2)
    for states, obs in ((batch.s, demos.episodes.obs), (batch.s2, demos.episodes.next_obs)):
        torch.testing.assert_close(states[0, :, :-1], (torch.from_numpy(obs) + 0.5) * 2.0)


def test_rows_have_true_successors_and_absorbing_chains():
    (demos,) = [
        demos_of("inverted_double_pendulum", e) for e in run(shove, "inverted_double_pendulum", 3, [1])
    ]
    lengths = demos.episodes.lengths
    batch = unpack(seen(demos, 10).unsqueeze(0), act_dim=1)
    assert batch.s.shape[1] == lengths.sum() + 30
    first = slice(0, lengths[0])
    np.testing.assert_allclose(batch.s[0, first][1:], batch.s2[0, first][:-1])
    assert (
        batch.s2[0, lengths[0] - 1, -1] == 1
    )  # the last transition is there, and leads to the absorbing state
    assert (batch.s[0, lengths[0] : lengths[0] + 10, -1] == 1).all()
    assert (batch.m == 1).all()
    plain = unpack(seen(demos, 0).unsqueeze(0), act_dim=1)
    assert (plain.m[0] == 0).sum() == 3


def test_time_outs_stay_bootstrapped(demos):
    batch = unpack(seen(demos, 10).unsqueeze(0), act_dim=2)
    assert batch.s.shape[1] == 400 and (batch.m == 1).all() and (batch.s[..., -1] == 0).all()


def test_choose_takes_whole_episodes(demos):
    one, again, other = (choose(demos, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.episodes.obs, again.episodes.obs)
    assert one.episodes.lengths.tolist() == [100, 100]
    assert set(one.episodes.returns) < set(demos.episodes.returns)
    assert set(other.episodes.returns) != set(one.episodes.returns) or not np.array_equal(
        one.episodes.obs, other.episodes.obs
    )
    np.testing.assert_array_equal(one.shift, demos.shift)
    with pytest.raises(BadInputError, match="holds 4"):
        choose(demos, 5, 0)


def test_absent(tmp_path):
    with pytest.raises(BadInputError, match="run the stage `expert` first"):
        load(tmp_path)


def rewrite(folder, **changes):
    with np.load(folder / FILE) as file:
        arrays = {key: file[key] for key in file.files} | changes
    with (folder / FILE).open("wb") as file:
        np.savez(file, **{key: value for key, value in arrays.items() if value is not None})


def and_terminated(x):
    return np.append(x[:-1], True)


def shifted(x):
    return np.roll(x, 1, axis=0)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("reward", lambda x: None, "missing reward"),
        ("schema", lambda x: x + 1, "schema 2"),
        ("env", lambda x: np.str_("moon"), "unknown environment"),
        ("obs", lambda x: x.astype(np.float64), "float64"),
        ("obs", lambda x: x[:-1], "shape"),
        ("obs", lambda x: np.where(np.arange(len(x))[:, None] == 7, np.nan, x).astype(np.float32), "finite"),
        ("act", np.ones_like, "outside"),
        ("next_obs", shifted, "not the observation that follows"),
        ("truncated", shifted, "last transition"),
        ("truncated", np.zeros_like, "last transition"),
        ("terminated", and_terminated, "not both"),
        ("episode", lambda x: x + 1, "numbered"),
        ("returns", lambda x: x + 1.0, "sums"),
    ],
)
def test_what_is_wrong_is_named(demos, tmp_path, key, change, message):
    save(demos, tmp_path, {})
    with np.load(tmp_path / FILE) as file:
        value = file[key]
    rewrite(tmp_path, **{key: change(value)})
    with pytest.raises(BadInputError, match=message):
        load(tmp_path)


def test_released_off_by_one_is_refused(demos, tmp_path):
    """The release overwrote next_obs by obs (notes A6.1)."""
    save(demos, tmp_path, {})
    rewrite(tmp_path, next_obs=demos.episodes.obs)
    with pytest.raises(BadInputError, match="not the observation that follows"):
        load(tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * 99])
def test_damaged_file(demos, tmp_path, damage):
    save(demos, tmp_path, {})
    (tmp_path / FILE).write_bytes(damage((tmp_path / FILE).read_bytes()))
    with pytest.raises(BadInputError, match="cannot be read"):
        load(tmp_path)


def test_a_flipped_bit_is_refused_or_harmless(demos, tmp_path):
    """Wherever it is, in the archive's own directory too: never other demonstrations, never another error."""
    save(demos, tmp_path, {})
    raw, refused = (tmp_path / FILE).read_bytes(), 0
    places = [*range(0, len(raw), 401), *range(len(raw) - 1200, len(raw))]
    for at in places:
        (tmp_path / FILE).write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            read = load(tmp_path)
        except BadInputError:
            refused += 1
        else:
            assert np.array_equal(read.episodes.obs, demos.episodes.obs)
            assert np.array_equal(read.episodes.act, demos.episodes.act)
    assert refused > len(places) / 2


def test_pickles_are_refused(demos, tmp_path):
    save(demos, tmp_path, {})
    rewrite(tmp_path, obs=np.array([{}], dtype=object))
    with pytest.raises(BadInputError, match="cannot be read"):
        load(tmp_path)


def test_wrong_demonstrations_are_not_saved(demos, tmp_path):
    wrong = replace(demos, episodes=replace(demos.episodes, next_obs=demos.episodes.obs))
    with pytest.raises(ValueError, match="not demonstrations"):
        save(wrong, tmp_path, {})
    assert not list(tmp_path.iterdir())
