"""Soft actor-critic (Haarnoja et al. 2018), stacked: the optimiser of a reward that is given.

y     = r + gamma m (min_i Qbar_i(s', a') - alpha log pi(a'|s')),  a' ~ pi(.|s')
L_Q   = sum_i E_R[(Q_i(s, a) - y)^2] / 2
L_pi  = E_R[alpha log pi(a|s) - min_i Q_i(s, a)],                  a ~ pi(.|s)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from projects.opirl.agent import Agent
from projects.opirl.replay import Batch


def critic_loss(agent: Agent, batch: Batch, reward: Tensor, eps: Tensor) -> Float[Tensor, " n"]:
    """L_Q of each member; `reward` (n, b), `eps` (n, b, a) standard normal."""
    with torch.no_grad():
        a2, log_prob = agent.act(batch.s2, eps)
        q2 = agent.target(torch.cat((batch.s2, a2), -1)).amin(0) - agent.alpha * log_prob
        y = reward + agent.options.discount * batch.m * q2
    q = agent.critic(torch.cat((batch.s, batch.a), -1))
    return 0.5 * (q - y).square().mean(-1).sum(0)


def actor_loss(agent: Agent, batch: Batch, eps: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, "n b"]]:
    """L_pi of each member, and log pi for the temperature."""
    a, log_prob = agent.act(batch.s, eps)
    q1, q2 = agent.critic(torch.cat((batch.s, a), -1), frozen=True)
    return (agent.alpha * log_prob - torch.minimum(q1, q2)).mean(-1), log_prob.detach()


def update(agent: Agent, batch: Batch, reward: Tensor, eps: Tensor, step: int) -> Float[Tensor, " n"]:
    """One update: critics, target; every `actor_every`-th also actor and temperature. The critics' loss.

    `eps` is (n, 2, b, a).
    """
    value = critic_loss(agent, batch, reward, eps[:, 0])
    agent.step_critic(value)
    if step % agent.options.actor_every == 0:
        loss, log_prob = actor_loss(agent, batch, eps[:, 1])
        agent.step_actor(loss)
        agent.step_alpha(batch.s, log_prob)
    agent.step_target()
    return value.detach()
