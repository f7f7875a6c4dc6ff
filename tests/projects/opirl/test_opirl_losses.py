"""Losses and gradients of SAC, AlgaeDICE and the discriminator against their literal transcription, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import opirl_eager as eager
from projects.opirl import algae, sac
from projects.opirl.agent import Agent
from projects.opirl.algae import AlgaeOptions
from tests.projects.opirl import support
from tests.projects.opirl.support import Plain, gradients, member_gradient, normal, rows

N, B, D, A = 3, 24, 5, 2
EXACT: dict[str, float] = {"rtol": 1e-9, "atol": 1e-11}


def close(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def critics_gradient(one: Agent, member: int) -> list[Tensor]:
    return [g for i in range(2) for g in member_gradient(one.critic.net, i * N + member)]


@pytest.fixture
def agent() -> Agent:
    return support.agent(N, D, A)


# --- SAC ---


def test_sac_critic_loss(agent: Agent) -> None:
    batch, eps = support.batch(N, B, D, A), normal(N, 2, B, A)
    loss = sac.critic_loss(agent, batch, batch.r, eps[:, 0])
    loss.sum().backward()
    for i in range(N):
        net = support.plain(agent, i)
        critic, _, _ = eager.sac_losses(net, rows(batch, i), eps[i], 0.99)
        critic.backward()
        torch.testing.assert_close(loss[i], critic, **EXACT)
        close(critics_gradient(agent, i), gradients(net.critics))


def test_sac_actor_loss(agent: Agent) -> None:
    batch, eps = support.batch(N, B, D, A), normal(N, 2, B, A)
    loss, log_prob = sac.actor_loss(agent, batch, eps[:, 1])
    loss.sum().backward()
    for i in range(N):
        net = support.plain(agent, i)
        _, actor, density = eager.sac_losses(net, rows(batch, i), eps[i], 0.99)
        actor.backward()
        torch.testing.assert_close(loss[i], actor, **EXACT)
        torch.testing.assert_close(log_prob[i], density, **EXACT)
        close(member_gradient(agent.actor.net, i), gradients(net.actor))
    assert agent.critic.net.flat.grad is None


def test_temperature_is_that_of_the_states_that_are_not_absorbing(agent: Agent) -> None:
    batch = support.batch(N, B, D, A)
    _, log_prob = agent.act(batch.s, normal(N, B, A))
    agent.step_alpha(batch.s, log_prob)
    for i in range(N):
        alive = batch.s[i, :, -1] == 0
        log_alpha = torch.full((), 0.3, dtype=torch.float64).log().requires_grad_()
        (log_alpha.exp() * (-log_prob[i][alive].detach() + A)).mean().backward()
        assert agent.log_alpha.grad is not None and log_alpha.grad is not None
        torch.testing.assert_close(agent.log_alpha.grad[i], log_alpha.grad, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_targets_track_by_tau_and_actors_move_every_so_often(every: int) -> None:
    agent = support.agent(N, D, A, actor_every=every, tau=0.1)
    batch = support.batch(N, B, D, A)
    for step in range(2 * every):
        target, actor = agent.target.net.flat.clone(), agent.actor.net.flat.clone()
        sac.update(agent, batch, batch.r, normal(N, 2, B, A, seed=step), step)
        torch.testing.assert_close(agent.target.net.flat, 0.9 * target + 0.1 * agent.critic.net.flat)
        assert torch.equal(actor, agent.actor.net.flat) == (step % every != 0)


# --- AlgaeDICE ---


def algae_reference(
    net: Plain, one: Any, eps: Tensor, options: AlgaeOptions, expert: Any
) -> tuple[Tensor, ...]:
    """(L_Q, actor's loss, log pi): literal, with autograd through |x|^p / p."""
    constants = eager.Constants(
        0.99, options.exponent, options.kappa, options.actor_weight, options.cover_weight
    )
    critic = eager.algae_critic_loss(net, one, eps[:2], constants)
    actor, log_prob = eager.algae_actor_loss(net, one, eps[2:], constants, expert, options.positive_part)
    return critic, actor, log_prob


@pytest.mark.parametrize(("exponent", "kappa"), [(1.5, 0.01), (1.5, 1.0), (2.0, 0.3)])
def test_algae_critic_gradient(agent: Agent, exponent: float, kappa: float) -> None:
    """The value differs (f'(x) x in place of f(x)), the gradient is that of |x|^p / p."""
    batch, eps, options = support.batch(N, B, D, A), normal(N, 4, B, A), AlgaeOptions(exponent, kappa)
    algae.critic_loss(agent, batch, batch.r, eps[:, :2], options).sum().backward()
    for i in range(N):
        net = support.plain(agent, i)
        algae_reference(net, rows(batch, i), eps[i], options, rows(batch, i))[0].backward()
        close(critics_gradient(agent, i), gradients(net.critics))


@pytest.mark.parametrize("positive_part", [False, True])
def test_algae_actor_loss(agent: Agent, positive_part: bool) -> None:
    batch, eps = support.batch(N, B, D, A), normal(N, 4, B, A)
    expert = support.batch(N, B, D, A, seed=7, absorbing=False)
    options = AlgaeOptions(kappa=0.5, actor_weight=0.3, cover_weight=0.2, positive_part=positive_part)
    loss, log_prob = algae.actor_loss(agent, batch, batch.r, eps[:, 2:], options, expert)
    loss.sum().backward()
    for i in range(N):
        net = support.plain(agent, i)
        _, actor, density = algae_reference(net, rows(batch, i), eps[i], options, rows(expert, i))
        actor.backward()
        torch.testing.assert_close(loss[i], actor, **EXACT)
        torch.testing.assert_close(log_prob[i], density, **EXACT)
        close(member_gradient(agent.actor.net, i), gradients(net.actor))
    assert agent.critic.net.flat.grad is None


def test_positive_part_changes_the_actor_alone() -> None:
    x = torch.tensor([-4.0, -0.25, 0.0, 0.25, 4.0])
    assert algae.f_prime(x, 1.5).tolist() == [-2.0, -0.5, 0.0, 0.5, 2.0]
    assert algae.f_prime(x, 1.5, positive_part=True).tolist() == [0.0, 0.0, 0.0, 0.5, 2.0]


def test_covering_leaves_absorbing_states_out(agent: Agent) -> None:
    batch, eps = support.batch(N, B, D, A), normal(N, 4, B, A)
    expert, options = support.batch(N, B, D, A, seed=7), AlgaeOptions(actor_weight=0.0, cover_weight=1.0)
    loss, _ = algae.actor_loss(agent, batch, batch.r, eps[:, 2:], options, expert)
    for i in range(N):
        alive = expert.s[i, :, -1] == 0
        assert 0 < alive.sum() < B
        log_prob = support.plain(agent, i).log_prob(expert.s[i][alive], expert.a[i][alive])
        torch.testing.assert_close(loss[i], -log_prob.sum() / B, **EXACT)


def test_covering_off_is_the_objective_alone(agent: Agent) -> None:
    batch, eps = support.batch(N, B, D, A), normal(N, 4, B, A)
    with_weight = AlgaeOptions(actor_weight=0.25, cover_weight=0.0)
    loss, _ = algae.actor_loss(agent, batch, batch.r, eps[:, 2:], with_weight, None)
    for i in range(N):
        net = support.plain(agent, i)
        actor = algae_reference(net, rows(batch, i), eps[i], with_weight, rows(batch, i))[1]
        torch.testing.assert_close(loss[i], actor, **EXACT)


def test_cover_replay_is_a_filtered_regression_on_replay_actions(agent: Agent) -> None:
    """The release: mean(1[Q1 + Q2 (s, a) > Q1 + Q2 (s, pi(s))] (pi(s) - a)^2) over batch and action dimensions."""
    batch, eps = support.batch(N, B, D, A), normal(N, 4, B, A)
    options = AlgaeOptions(actor_weight=0.0, cover_weight=1.0, cover_replay=True)
    loss, _ = algae.actor_loss(agent, batch, batch.r, eps[:, 2:], options, None)
    loss.sum().backward()
    for i in range(N):
        net = support.plain(agent, i)
        s, a, *_ = rows(batch, i)
        pi, _ = net.act(s, eps[i, 3])
        better = sum(net.q(net.critics, s, a)) > sum(net.q(net.critics, s, pi))
        assert 0 < better.sum() < B
        covering = (better.unsqueeze(-1) * (pi - a) ** 2).mean()
        covering.backward()
        torch.testing.assert_close(loss[i], covering, **EXACT)
        close(member_gradient(agent.actor.net, i), gradients(net.actor))


# --- the absorbing state ---


def test_nobody_acts_in_the_absorbing_state(agent: Agent) -> None:
    batch = support.batch(N, B, D, A)
    gone = batch.s[..., -1] == 1
    a, log_prob = agent.act(batch.s, normal(N, B, A))
    free, density = agent.actor(batch.s, normal(N, B, A))
    assert gone.any() and not a[gone].any() and not log_prob[gone].any()
    assert torch.equal(a[~gone], free[~gone]) and torch.equal(log_prob[~gone], density[~gone])


@pytest.mark.parametrize("engine", ["sac", "algae"])
def test_the_absorbing_state_is_worth_its_reward_for_ever(engine: str) -> None:
    """Whatever the critics extrapolate to actions that the buffer never holds there."""
    agent = support.agent(1, 3, 1, discount=0.5, tau=0.5, critic_lr=1e-2, hidden=(16,))
    void = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(1, 8, 3)
    zero, one = torch.zeros(1, 8, 1, dtype=torch.float64), torch.ones(1, 8, dtype=torch.float64)
    batch = support.Batch(void, zero, void, -one, one)
    for step in range(400):
        eps = normal(1, 4, 8, 1, seed=step)
        if engine == "sac":
            sac.update(agent, batch, batch.r, eps[:, :2], step)
        else:
            algae.update(agent, batch, batch.r, eps, AlgaeOptions(kappa=0.0), batch, step)
    values = agent.critic(torch.cat((void, zero), -1)).detach()
    torch.testing.assert_close(values, torch.full_like(values, -1.0 / (1.0 - 0.5)), rtol=0.02, atol=0.0)


# --- the discriminator ---


@pytest.mark.parametrize("penalty", [10.0, 0.0])
def test_discriminator_loss(agent: Agent, penalty: float) -> None:
    """input_gradient against double backward; with pairs whose absorbing flags differ, which are left out."""
    net = support.discriminator(N, D, A, penalty=penalty)
    expert, replay = (support.batch(N, B, D, A, seed=seed) for seed in (1, 2))
    differ = expert.s[..., -1] != replay.s[..., -1]
    assert differ.any() and not differ.all()
    mix = torch.rand(N, 2, B, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss = net.loss(expert, replay, mix)
    loss.sum().backward()
    for i in range(N):
        single = support.plain(agent, i, net)
        wanted = eager.discriminator_loss(single, rows(expert, i), rows(replay, i), mix[i])
        if penalty == 0.0:
            wanted = sum(logistic(single, rows(expert, i), rows(replay, i)))
        wanted.backward()
        torch.testing.assert_close(loss[i], wanted, rtol=1e-7, atol=0.0)
        for ours, theirs in ((net.reward, single.reward), (net.value, single.value)):
            for one, other in zip(member_gradient(ours, i), gradients(theirs), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def logistic(net: Plain, expert: Any, replay: Any) -> list[Tensor]:
    """The two cross-entropies, f = r + 0.9 V(s') - V(s)."""
    result = []
    for (s, a, s2, _, _), label in ((expert, 1.0), (replay, 0.0)):
        f = (net.reward(torch.cat((s, a), -1)) + 0.9 * net.value(s2) - net.value(s)).squeeze(-1)
        labels = torch.full_like(f, label)
        result.append(torch.nn.functional.binary_cross_entropy_with_logits(f, labels))
    return result


def test_dead_log_pi_halves_the_logistic_part(agent: Agent) -> None:
    """The release's loss over [f, log pi], log pi without gradient: half of f's own, plus a constant."""
    expert, replay = (support.batch(N, B, D, A, seed=seed) for seed in (1, 2))
    mix = torch.rand(N, 2, B, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    losses = [
        support.discriminator(N, D, A, dead_log_pi=on).loss(expert, replay, mix) for on in (True, False)
    ]
    net = support.discriminator(N, D, A)
    for i in range(N):
        parts = sum(logistic(support.plain(agent, i, net), rows(expert, i), rows(replay, i)))
        torch.testing.assert_close(losses[1][i] - losses[0][i], 0.5 * parts, **EXACT)


def test_state_only_reward_sees_no_action(agent: Agent) -> None:
    net = support.discriminator(N, D, A, state_only=True)
    batch = support.batch(N, B, D, A)
    assert torch.equal(net.rewards(batch.s, batch.a), net.rewards(batch.s, -batch.a))
    wide = support.discriminator(N, D, A)
    assert not torch.equal(wide.rewards(batch.s, batch.a), wide.rewards(batch.s, -batch.a))


def test_dac_loss(make_arm: Callable[..., Any]) -> None:
    learner = make_arm("dac", seeds=(0, 1, 2))
    learner.network.double()
    d, a = learner.setting.spec.obs_dim + 1, learner.setting.spec.act_dim
    expert, replay = (support.batch(N, B, d, a, seed=seed) for seed in (1, 2))
    mix = torch.rand(N, B, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    loss = learner.loss(expert, replay, mix)
    for i in range(N):
        net = eager.perceptron(d + a, learner.network.sizes[1:-1], 1).double()
        support.fill(net, learner.network.member(i))
        x, y = (torch.cat((one.s[i], one.a[i]), -1) for one in (expert, replay))
        wanted = torch.nn.functional.softplus(-net(x)).mean() + torch.nn.functional.softplus(net(y)).mean()
        between = (x + mix[i].unsqueeze(-1) * (y - x)).requires_grad_()
        (slope,) = torch.autograd.grad(net(between).sum(), between)
        same = (expert.s[i, :, -1] == replay.s[i, :, -1]).double()
        wanted = wanted + learner.penalty * (same * (slope.norm(dim=-1) - 1.0) ** 2).mean()
        torch.testing.assert_close(loss[i], wanted, rtol=1e-7, atol=0.0)
