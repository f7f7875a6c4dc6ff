"""The policy's objective: off-policy distribution matching in the form of AlgaeDICE (Nachum et al. 2019).

With f(x) = |x|^p / p, pi maximises and the critics Q_i minimise

    J     = E_R[f(y_i - Q_i(s, a))] + (1 - gamma) kappa E[Q_i(s0, a0)],         a0 ~ pi(.|s0)
    y_i   = r + gamma m (Qmix_i(s', a') - alpha log pi(a'|s')),                 a' ~ pi(.|s')
    Qmix_i = c Q_i + (1 - c) min(Qbar_1, Qbar_2),                                c = 0.05

    L_Q   = sum_i J_i                                  (the gradient flows through y_i too)
    L_pi  = -1/2 sum_i { E_R[sg(f'(y_i - Q_i)) (y_i - Q_i)] + (1 - gamma) kappa E[Q_i(s0, a0)] }

f' = sign(x) |x|^(p-1) in both; in the actor its positive part alone, where `positive_part` says so. kappa
(algae_alpha) is the strength of the f-divergence. With c = 1 this is AlgaeDICE's saddle point: f'(y - Q) = kappa w,
w the density ratio of the policy to the replay data, so Q is shifted by about -kappa^(1/(p-1)) a step. With the
lagging targets of its released code and of OPIRL's, c = 0.05, the gradient knows a share c of the flow:
f'(y - Q) = kappa w_c, w_c the ratio for the discount c gamma and of mass (1 - gamma) / (1 - c gamma). Every replay
state is an initial state, s0 = s (as in ValueDICE). m is 1 where absorbing states stand.

Mode covering (L_C) is added as  c_pi L_pi + c_C L_C: in mode `paper` the forward KL to the expert,
-E_E[log pi(a_E|s_E)]; in mode `release` a regression on those replay actions that the critics prefer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from projects.opirl.agent import Agent
from projects.opirl.replay import Batch


@dataclass(frozen=True)
class AlgaeOptions:
    """`positive_part` and `cover_replay` are defects of the release (projects/opirl/release.py).

    Attributes:
        exponent: p.
        kappa: algae_alpha.
        own: c.
        actor_weight, cover_weight: c_pi, c_C.
        positive_part: f'(x) = max(x, 0)^(p-1) in the actor, beside |x|^p / p in the critics.
        cover_replay: L_C regresses on replay actions, filtered by the critics, not on the expert's.
    """

    exponent: float = 1.5
    kappa: float = 0.01
    own: float = 0.05
    actor_weight: float = 1e-3
    cover_weight: float = 1.0 / 256.0
    positive_part: bool = False
    cover_replay: bool = False


def f_prime(x: Tensor, exponent: float, positive_part: bool = False) -> Tensor:
    """f'(x) = sign(x) |x|^(p-1), or its positive part."""
    if positive_part:
        return x.clamp(0.0, 1e6).pow(exponent - 1.0)
    return x.sign() * x.abs().pow(exponent - 1.0)


def residuals(
    agent: Agent,
    batch: Batch,
    reward: Tensor,
    actions: tuple[Tensor, Tensor, Tensor],
    options: AlgaeOptions,
    frozen: bool,
) -> tuple[Float[Tensor, "2 n b"], Float[Tensor, "2 n b"]]:
    """y_i - Q_i(s, a) and Q_i(s0, a0), given (a', log pi(a'|s'), a0)."""
    a2, log_prob, a0 = actions
    b = batch.s.shape[1]
    states = torch.cat((batch.s2, batch.s, batch.s), 1)
    q = agent.critic(torch.cat((states, torch.cat((a2, batch.a, a0), 1)), -1), frozen)
    q_next, q_here, q_init = q.split(b, 2)
    bar = agent.target(torch.cat((batch.s2, a2), -1), frozen=True).amin(0)
    mix = options.own * q_next + (1.0 - options.own) * bar - agent.alpha * log_prob
    return reward + agent.options.discount * batch.m * mix - q_here, q_init


def act(agent: Agent, batch: Batch, eps: Float[Tensor, "n 2 b a"]) -> tuple[Tensor, Tensor, Tensor]:
    """(a', log pi(a'|s'), a0) of the current policy."""
    b = batch.s.shape[1]
    a, log_prob = agent.act(torch.cat((batch.s2, batch.s), 1), eps.flatten(1, 2))
    return a[:, :b], log_prob[:, :b], a[:, b:]


def critic_loss(
    agent: Agent, batch: Batch, reward: Tensor, eps: Tensor, options: AlgaeOptions
) -> Float[Tensor, " n"]:
    """A function with the gradient of L_Q (its value has f'(x) x in place of f(x))."""
    with torch.no_grad():
        actions = act(agent, batch, eps)
    delta, q_init = residuals(agent, batch, reward, actions, options, frozen=False)
    weight = f_prime(delta.detach(), options.exponent)
    initial = (1.0 - agent.options.discount) * options.kappa
    return (weight * delta + initial * q_init).mean(-1).sum(0)


def actor_loss(
    agent: Agent, batch: Batch, reward: Tensor, eps: Tensor, options: AlgaeOptions, expert: Batch | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n b"]]:
    """c_pi L_pi + c_C L_C of each member, and log pi(a'|s') for the temperature."""
    actions = act(agent, batch, eps)
    delta, q_init = residuals(agent, batch, reward, actions, options, frozen=True)
    weight = f_prime(delta.detach(), options.exponent, options.positive_part)
    initial = (1.0 - agent.options.discount) * options.kappa
    matching = -0.5 * (weight * delta + initial * q_init).mean(-1).sum(0)
    log_prob = actions[1].detach()
    if options.cover_weight == 0.0:
        return options.actor_weight * matching, log_prob
    if options.cover_replay:
        covering = filtered_regression(agent, batch, actions[2], q_init)
    else:
        assert expert is not None
        ordinary = 1.0 - expert.s[..., -1]  # in the absorbing state nobody acts
        covering = -(ordinary * agent.actor.log_prob(expert.s, expert.a)).mean(-1)
    return options.actor_weight * matching + options.cover_weight * covering, log_prob


def filtered_regression(agent: Agent, batch: Batch, a0: Tensor, q_init: Tensor) -> Float[Tensor, " n"]:
    """The release's L_C: E_R[1(Q(s, a) > Q(s, a0)) (a0 - a)^2] with Q = Q_1 + Q_2, a from the replay buffer."""
    with torch.no_grad():
        better = agent.critic(torch.cat((batch.s, batch.a), -1)).sum(0) > q_init.detach().sum(0)
    return ((a0 - batch.a).square() * better.unsqueeze(-1)).mean((-1, -2))


def update(
    agent: Agent,
    batch: Batch,
    reward: Tensor,
    eps: Float[Tensor, "n 4 b a"],
    options: AlgaeOptions,
    expert: Batch | None,
    step: int,
) -> Float[Tensor, " n"]:
    """One update of the critics; every `actor_every`-th also of actor, temperature and target. Critics' loss."""
    value = critic_loss(agent, batch, reward, eps[:, :2], options)
    agent.step_critic(value)
    if step % agent.options.actor_every == 0:
        loss, log_prob = actor_loss(agent, batch, reward, eps[:, 2:], options, expert)
        agent.step_actor(loss)
        agent.step_alpha(batch.s2, log_prob)
        agent.step_target()
    return value.detach()
