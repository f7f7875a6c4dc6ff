"""PPO and AIRL: advantages against a plain loop, learning on a task with a known optimum, independence of members."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.opirl_eager import perceptron
from projects.opirl import demos
from projects.opirl.airl import AIRL
from projects.opirl.arm import Setting
from projects.opirl.artefacts import forward
from projects.opirl.envs import SPECS, spec
from projects.opirl.ppo import PPO, PPOOptions, Rollout
from projects.opirl.rollout import evaluate
from tests.projects.opirl.support import batch, fill, gradients, member_gradient, normal

MAZE, PENDULUM = "pointmaze_left", "inverted_double_pendulum"


def identity(env, n):
    return torch.zeros(n, SPECS[env].obs_dim), torch.ones(n, SPECS[env].obs_dim)


def ppo(env, seeds, **options):
    small = {"hidden": (16, 16), "lr": 1e-3, "copies": 4, "length": 16, "epochs": 2, "minibatches": 2}
    return PPO(env, seeds, *identity(env, len(seeds)), PPOOptions(**small | options))


def chase(obs):
    return np.clip(5 * (obs.numpy()[..., 3:5] - obs.numpy()[..., :2]), -1, 1)


def wobble(obs):
    return torch.tanh(-obs[..., 1:2] * 3)


def airl(env, seeds, state_only=False, absorbing=2):
    policy = chase if env == MAZE else wobble
    held = [demos.record(policy, env, 2, [seed])[0] for seed in seeds]
    cfg = {
        "axes": {"method": "airl"},
        "absorbing": {"per_episode": absorbing},
        "discriminator": {
            "hidden_reward": [16, 16], "hidden_value": [16, 16], "lr": 1e-3, "discount": 0.99, "penalty": 1.0,
            "state_only": state_only, "window": None,
        },
        "airl": {
            "batch": 32, "updates": 3,
            "ppo": {"hidden": [16, 16], "lr": 1e-3, "copies": 4, "length": 16, "epochs": 2, "minibatches": 2},
        },
    }  # fmt: skip
    shift = torch.stack([torch.from_numpy(one.shift) for one in held])
    scale = torch.stack([torch.from_numpy(one.scale).clamp(max=10.0) for one in held])
    return AIRL(Setting(env, spec(env), tuple(seeds), cfg, 10, held, shift, scale, Path()))


def state_bits(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


# --- PPO ---


def test_advantages_equal_a_plain_loop():
    learner = ppo(PENDULUM, [0, 1])
    rollout = learner.collect(0)
    assert rollout.terminated.any()
    ended = rollout.ended.clone()
    ended[0, 5, 1] = True  # a time-out among the terminations
    rollout = Rollout(rollout.s, rollout.u, rollout.s2, rollout.reward, rollout.terminated & ended, ended)
    ending = torch.tensor([-3.0, 2.0])
    advantage, target = learner._advantages(rollout, rollout.reward, ending)
    with torch.no_grad():
        v = learner.value(rollout.s.flatten(1, 2)).view(2, 16, 4).double()
        v2 = learner.value(rollout.s2.flatten(1, 2)).view(2, 16, 4).double()
    plain = np.zeros((2, 16, 4))
    for n in range(2):
        for b in range(4):
            carry = 0.0
            for t in reversed(range(16)):
                after = ending[n].item() if rollout.terminated[n, t, b] else v2[n, t, b].item()
                delta = rollout.reward[n, t, b].item() + 0.99 * after - v[n, t, b].item()
                carry = delta + (0.0 if rollout.ended[n, t, b] else 0.99 * 0.95 * carry)
                plain[n, t, b] = carry
    np.testing.assert_allclose(target.numpy(), (plain + v.numpy()).reshape(2, -1), rtol=1e-4, atol=1e-4)
    flat = plain.reshape(2, -1)
    standard = (flat - flat.mean(1, keepdims=True)) / flat.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(advantage.numpy(), standard, rtol=1e-3, atol=1e-4)


def test_density_equals_torch_distributions():
    learner = ppo(MAZE, [0, 1])
    s = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    u = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(1))
    log_pi, entropy = learner.log_density(s, u)
    reference = torch.distributions.Normal(learner.mean(s).tanh(), learner.options.init_std)
    torch.testing.assert_close(log_pi, reference.log_prob(u).sum(-1))
    torch.testing.assert_close(entropy.expand(2, 7), reference.entropy().sum(-1))


def test_sampled_actions_follow_the_density():
    learner = ppo(MAZE, [0], init_std=0.5)
    rollout = learner.collect(0)
    with torch.no_grad():
        eps = (rollout.u - learner.mean(rollout.s.flatten(1, 2)).tanh().view_as(rollout.u)) / 0.5
    assert abs(eps.mean().item()) < 0.3 and 0.8 < eps.std().item() < 1.2
    assert rollout.a.abs().max() <= 1.0


def test_reward_scale_is_the_standard_deviation_of_discounted_returns():
    learner = ppo(MAZE, [0, 1])
    seen = []
    total = np.zeros((2, 4))
    for k in range(3):
        rollout = learner.collect(k)
        sigma = learner._reward_scale(rollout.reward, rollout.ended)
        for t in range(16):
            total = 0.99 * total + rollout.reward[:, t].numpy()
            seen.append(total.copy())
            total = np.where(rollout.ended[:, t].numpy(), 0.0, total)
        np.testing.assert_allclose(sigma.flatten().numpy(), np.stack(seen).std((0, 2)), rtol=1e-4)


def test_interactions_are_counted():
    learner = ppo(MAZE, [0, 1])
    for k in range(3):
        rollout = learner.collect(k)
        learner.iterate(k, rollout, rollout.reward, torch.zeros(2))
    assert [one.training for one in learner.counters] == [3 * 64, 3 * 64]


def test_ppo_learns_the_double_pendulum():
    """Twice as long upright as at the start, in 8,000 interactions on the true reward."""
    learner = ppo(PENDULUM, [0], hidden=(64, 64), copies=16, length=64, epochs=10, minibatches=4)
    before = evaluate(learner.act, PENDULUM, 6, [50]).mean()
    for k in range(8):
        rollout = learner.collect(k)
        learner.iterate(k, rollout, rollout.reward, torch.zeros(1))
    assert evaluate(learner.act, PENDULUM, 6, [50]).mean() > 2 * before


def plain_of(net, member):
    result = perceptron(net.sizes[0], net.sizes[1:-1], net.sizes[-1]).double()
    fill(result, net.member(member))
    return result


def test_losses_and_gradients_equal_a_plain_transcription():
    """L_pi and L_V of the module's docstring, with ratios on both sides of the clip and standardised advantages."""
    learner = ppo(MAZE, [0, 1], entropy=0.02).double()
    s, u, rest = normal(2, 32, 7), normal(2, 32, 2, seed=1), normal(2, 32, 3, seed=2)
    with torch.no_grad():
        old, _ = learner.log_density(s, u)
        rest[..., 0] = old + 0.3 * rest[..., 0]
    for opt in learner.optimisers():
        opt.step = lambda: None
    got = learner._update(torch.cat((s, u, rest), -1))
    assert got["clipped"].min() > 0.1 and got["clipped"].max() < 0.9
    for i in range(2):
        mean, value = plain_of(learner.mean, i), plain_of(learner.value, i)
        log_std = torch.full((2,), np.log(0.6), dtype=torch.float64, requires_grad=True)
        policy = torch.distributions.Normal(mean(s[i]).tanh(), log_std.exp())
        ratio = (policy.log_prob(u[i]).sum(-1) - rest[i, :, 0]).exp()
        gain = torch.minimum(ratio * rest[i, :, 1], ratio.clamp(0.8, 1.2) * rest[i, :, 1])
        actor = -(gain + 0.02 * policy.entropy().sum(-1)).mean()
        critic = 0.5 * (value(s[i]).squeeze(-1) - rest[i, :, 2]).square().mean()
        (actor + critic).backward()
        torch.testing.assert_close(got["loss"][i], actor + critic, rtol=1e-6, atol=1e-8)
        for net, single in ((learner.mean, mean), (learner.value, value)):
            for one, other in zip(member_gradient(net, i), gradients(single), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(
            learner.log_std.grad[2 * i : 2 * i + 2], log_std.grad, rtol=1e-5, atol=1e-8
        )


# --- AIRL ---


def test_discriminator_loss_equals_a_plain_transcription():
    """Cross-entropies of h = f - log pi, nothing chosen in the absorbing state, and the penalties."""
    learner = airl(PENDULUM, [0, 1]).double()
    expert, policy = (batch(2, 32, 10, 1, seed=seed) for seed in (1, 2))
    mix = torch.rand(2, 2, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learner.discriminator.optimiser.step = lambda: None
    got = learner._update(expert, policy, mix)
    for i in range(2):
        reward, value = (plain_of(getattr(learner.discriminator, key), i) for key in ("reward", "value"))
        mean = plain_of(learner.ppo.mean, i)
        loss = torch.zeros((), dtype=torch.float64)
        for one, label in ((expert, 1.0), (policy, 0.0)):
            s, a, s2 = one.s[i], one.a[i], one.s2[i]
            f = (reward(torch.cat((s, a), -1)) + 0.99 * value(s2) - value(s)).squeeze(-1)
            log_pi = torch.distributions.Normal(mean(s).tanh(), 0.6).log_prob(a).sum(-1).detach()
            h = torch.where(s[:, -1] == 1, f, f - log_pi)
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(h, torch.full_like(h, label))
        same = (expert.s[i, :, -1] == policy.s[i, :, -1]).double()
        x, y = (torch.cat((one.s[i], one.a[i]), -1) for one in (expert, policy))
        for net, u, (low, high) in zip(
            (reward, value), mix[i], ((x, y), (x[:, :10], y[:, :10])), strict=True
        ):
            between = (low + u.unsqueeze(-1) * (high - low)).requires_grad_()
            (slope,) = torch.autograd.grad(net(between).sum(), between, create_graph=True)
            loss = loss + (same * (slope.norm(dim=-1) - 1.0) ** 2).mean()
        loss.backward()
        torch.testing.assert_close(got["disc_loss"][i], loss, rtol=1e-6, atol=0.0)
        for net, single in ((learner.discriminator.reward, reward), (learner.discriminator.value, value)):
            for one, other in zip(member_gradient(net, i), gradients(single), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("env", [MAZE, PENDULUM])
@pytest.mark.parametrize("state_only", [False, True])
def test_alone_equals_stacked_bit_for_bit(env, state_only):
    together = airl(env, [0, 1, 2, 3], state_only)
    alone = airl(env, [2], state_only)
    for k in range(4):
        stacked, single = together.iterate(k), alone.iterate(k)
        for key in stacked:
            assert torch.equal(stacked[key][2:3].nan_to_num(7.0), single[key].nan_to_num(7.0)), (k, key)
    for name in ("ppo.mean", "ppo.value", "discriminator.reward", "discriminator.value"):
        nets = [module.get_submodule(name) for module in (together, alone)]
        assert all(torch.equal(a, b) for a, b in zip(nets[0].member(2), nets[1].member(0), strict=True)), name


@pytest.mark.parametrize("env", [MAZE, PENDULUM])
def test_resumes_to_the_same_bits(env):
    learner = airl(env, [0, 1])
    for k in range(3):
        learner.step(k)
    file = io.BytesIO()
    optimisers = [one.state_dict() for one in learner.optimisers()]
    torch.save({"net": learner.state_dict(), "state": learner.state(), "optimisers": optimisers}, file)
    expected = [learner.iterate(k) for k in range(3, 6)]
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = airl(env, [0, 1])
    other.step(0)
    other.load_state_dict(saved["net"])
    other.load_state(saved["state"])
    for optimiser, state in zip(other.optimisers(), saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    for k, before in zip(range(3, 6), expected, strict=True):
        after = other.iterate(k)
        assert all(torch.equal(before[key].nan_to_num(7.0), after[key].nan_to_num(7.0)) for key in before)
    bits, others = state_bits(learner), state_bits(other)
    assert all(torch.equal(bits[key], others[key]) for key in bits)
    assert [one.training for one in other.counters] == [6 * 64, 6 * 64]


def test_logit_is_reward_plus_shaping_minus_log_pi():
    learner = airl(MAZE, [0])
    rollout = learner.ppo.collect(0)
    paid, _ = learner.pay(rollout)
    s, a, s2 = (part[0].flatten(0, 1) for part in (rollout.s, rollout.a, rollout.s2))
    r, v = (getattr(learner.discriminator, key).member(0) for key in ("reward", "value"))
    with torch.no_grad():
        f = forward(r, torch.cat((s, a), -1)) + 0.99 * forward(v, s2) - forward(v, s)
        mean = forward(learner.ppo.mean.member(0), s).tanh()
    log_pi = torch.distributions.Normal(mean, 0.6).log_prob(a).sum(-1)
    torch.testing.assert_close(paid.flatten(), f.squeeze(-1) - log_pi, rtol=1e-4, atol=1e-4)


def test_state_only_reward_ignores_the_action():
    learner = airl(MAZE, [0], state_only=True)
    s, a = torch.randn(1, 5, 7), torch.rand(1, 5, 2)
    assert torch.equal(learner.discriminator.rewards(s, a), learner.discriminator.rewards(s, -a))
    assert learner.rewards()[0].state_only


def test_an_ending_is_worth_the_absorbing_reward_for_ever():
    learner = airl(PENDULUM, [0])
    rollout = learner.ppo.collect(0)
    _, ending = learner.pay(rollout)
    void = torch.zeros(10)
    void[-1] = 1.0
    r, v = (getattr(learner.discriminator, key).member(0) for key in ("reward", "value"))
    with torch.no_grad():
        once = forward(r, torch.cat((void, torch.zeros(1)))) + (0.99 - 1.0) * forward(v, void)
    assert ending.item() == pytest.approx(once.item() / (1 - 0.99), rel=1e-4)
    assert airl(PENDULUM, [0], absorbing=0).pay(rollout)[1].item() == 0.0


def test_discriminator_sees_the_last_rollout_only():
    learner = airl(PENDULUM, [0])
    for k in range(3):
        learner.step(k)
    rollout = learner.ppo.collect(3)
    learner._remember(rollout)
    ends = int(rollout.terminated.sum())
    assert ends > 0 and learner.recent.sizes == [64 + 2 * ends]


def test_policy_artefact_acts_as_the_learner():
    learner = airl(MAZE, [0, 1])
    learner.step(0)
    policy = learner.policies()[1]
    obs = torch.randn(2, 5, 6)
    s = torch.nn.functional.pad((obs[1] + policy.shift) * policy.scale, (0, 1))
    torch.testing.assert_close(forward(policy.layers, s)[..., : policy.act_dim].tanh(), learner.act(obs)[1])
