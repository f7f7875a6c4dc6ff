"""Tabular tasks with known answers: log(rho_E / rho_R), and the f-divergence-regularised optimum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from projects.opirl import algae
from projects.opirl.agent import Agent
from projects.opirl.algae import AlgaeOptions
from projects.opirl.replay import Batch
from tests.projects.opirl import support

GAMMA = 0.9
S, A = 3, 2
SIZE = 1000
# deterministic: the state that follows (s, a); reward of (s, a); what the replay buffer holds of each (s, a)
FOLLOWS = np.array([[1, 2], [2, 0], [0, 1]])
REWARD = np.array([[0.1, 0.4], [0.0, 0.7], [0.5, 0.2]])
HELD = np.array([[3, 1], [2, 2], [1, 3]])
P = np.eye(S)[FOLLOWS]


def occupancy(pi: np.ndarray, start: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Discounted, of mass 1: d(s, a) = (1 - gamma) sum_t gamma^t Pr(s_t = s, a_t = a)."""
    moves = np.einsum("sa,sat->st", pi, P)
    states = np.linalg.solve(np.eye(S) - gamma * moves.T, (1.0 - gamma) * start)
    return states[:, None] * pi


def one_hot(index: Any, size: int) -> Tensor:
    return nn.functional.one_hot(torch.as_tensor(index), size).double()


# --- the discriminator ---


def rows_of(mass: np.ndarray) -> Batch:
    """SIZE transitions (s, a, s'), each pair as often as its share of the mass says."""
    picks = np.searchsorted(mass.ravel().cumsum() / mass.sum(), (np.arange(SIZE) + 0.5) / SIZE)
    s, a = np.unravel_index(picks, mass.shape)
    flag = torch.zeros(len(s), 1, dtype=torch.float64)
    states, after = (torch.cat((one_hot(x, S), flag), -1).unsqueeze(0) for x in (s, FOLLOWS[s, a]))
    nothing = torch.zeros(1, len(s), dtype=torch.float64)
    return Batch(states, one_hot(a, A).unsqueeze(0), after, nothing, nothing + 1.0)


def test_discriminator_recovers_the_density_ratio() -> None:
    """Of two occupancies of the same task, solved by linear algebra, within 5 %."""
    start = np.array([0.5, 0.25, 0.25])
    expert = occupancy(np.array([[0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]), start)
    replay = occupancy(np.array([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]), start)
    batches = rows_of(expert), rows_of(replay)
    net = support.discriminator(1, S + 1, A, penalty=0.0, lr=1e-2, hidden_reward=(32,), hidden_value=(32,))
    for _ in range(400):
        net.update(*batches, torch.zeros(1, 2, SIZE, dtype=torch.float64))
    every = rows_of(np.ones((S, A)))
    f = net.logits(every).detach().squeeze(0)
    picks = [int(np.flatnonzero(of_pair(every, s, a))[0]) for s in range(S) for a in range(A)]
    ratio = np.exp(f.numpy()[picks]).reshape(S, A)
    np.testing.assert_allclose(ratio, expert / replay, rtol=0.05)


def of_pair(batch: Batch, s: int, a: int) -> np.ndarray:
    return (batch.s[0, :, s] * batch.a[0, :, a]).numpy() == 1.0


# --- AlgaeDICE ---


class Tables(nn.Module):
    """An agent whose critics are tables and whose policy a softmax table, both of the whole MDP.

    Its "action" is the vector of probabilities and its critics are linear in it: the expectation over actions is
    exact, so the objective is the one that the optimum is solved for. There is no temperature.
    """

    def __init__(self, preferences: Sequence[float]) -> None:
        super().__init__()
        self.preferences = nn.Parameter(
            torch.tensor(preferences, dtype=torch.float64)
        )  # of the second action
        self.values = nn.Parameter(torch.zeros(2, S, A, dtype=torch.float64))
        self.options = support.agent(1, S, A, discount=GAMMA).options
        self.alpha = torch.zeros(1, 1, dtype=torch.float64)

    def policy(self) -> Tensor:
        return torch.stack((torch.zeros_like(self.preferences), self.preferences), 1).softmax(-1)

    def act(self, s: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        return s @ self.policy(), torch.zeros(s.shape[:2], dtype=s.dtype)

    def critic(self, x: Tensor, frozen: bool = False) -> Tensor:
        s, a = x.split((S, A), -1)
        return torch.einsum("nbs,ksa,nba->knb", s, self.values.detach() if frozen else self.values, a)

    def target(self, x: Tensor, frozen: bool = False) -> Tensor:
        """That has caught up."""
        return self.critic(x, frozen=True)


def replay() -> Batch:
    """Every (s, a) as often as HELD says."""
    s, a = (np.repeat(index.ravel(), HELD.ravel()) for index in np.indices((S, A)))
    reward = torch.from_numpy(REWARD[s, a]).unsqueeze(0)
    states, after = (one_hot(x, S).unsqueeze(0) for x in (s, FOLLOWS[s, a]))
    return Batch(states, one_hot(a, A).unsqueeze(0), after, reward, torch.ones_like(reward))


def solve(tables: Tables, options: AlgaeOptions, also_policy: bool) -> None:
    """Bring the gradients of the critics' loss, and of the actor's, to zero: descent, then Newton's method."""
    batch, eps, agent = replay(), torch.zeros(1, 2, int(HELD.sum()), 1), cast(Agent, tables)
    chosen = [tables.values, *([tables.preferences] if also_policy else [])]

    def differentiate() -> list[Tensor]:
        tables.zero_grad()
        algae.critic_loss(agent, batch, batch.r, eps, options).sum().backward()
        algae.actor_loss(agent, batch, batch.r, eps, options, None)[0].sum().backward()
        return [cast(Tensor, one.grad) for one in chosen]

    def gradient(x: np.ndarray) -> np.ndarray:
        nn.utils.vector_to_parameters(torch.from_numpy(x), chosen)
        return torch.cat([one.flatten() for one in differentiate()]).numpy()

    optimiser = torch.optim.Adam(chosen, lr=0.03)
    for _ in range(300):
        differentiate()
        optimiser.step()
    found = scipy.optimize.root(gradient, nn.utils.parameters_to_vector(chosen).detach().numpy())
    assert found.success and np.abs(gradient(found.x)).max() < 1e-6


def slopes(tables: Tables, options: AlgaeOptions) -> np.ndarray:
    """f'(y - Q) of every (s, a), from the tables alone."""
    q, pi = tables.values.detach().numpy()[0], tables.policy().detach().numpy()
    delta = REWARD + GAMMA * (pi * q).sum(1)[FOLLOWS] - q
    return np.sign(delta) * np.abs(delta) ** (options.exponent - 1.0)


@pytest.mark.parametrize("own", [1.0, 0.05])
def test_critics_know_the_density_ratio(own: float) -> None:
    """f'(y - Q) = kappa w, w of the flow that the gradient knows: all of it, or a share c = 0.05 of it."""
    options = AlgaeOptions(exponent=1.5, kappa=1.0, own=own, cover_weight=0.0)
    tables = Tables([1.0, -0.5, 1.0])
    solve(tables, options, also_policy=False)
    held = HELD / HELD.sum()
    flow = occupancy(tables.policy().detach().numpy(), held.sum(1), own * GAMMA)
    mass = (1.0 - GAMMA) / (1.0 - own * GAMMA)
    np.testing.assert_allclose(slopes(tables, options), options.kappa * mass * flow / held, rtol=1e-5)


def regularised_optimum(options: AlgaeOptions) -> np.ndarray:
    """max over flows d of sum d r - E_R[(kappa d / R)^q / q] / kappa, q conjugate to p: a convex programme."""
    held = (HELD / HELD.sum()).ravel()
    q = options.exponent / (options.exponent - 1.0)
    start = HELD.sum(1) / HELD.sum()
    flow = np.repeat(np.eye(S), A, 1) - GAMMA * P.reshape(S * A, S).T

    def cost(d: np.ndarray) -> float:
        return float(-(d * REWARD.ravel()).sum() + held @ (options.kappa * d / held) ** q / q / options.kappa)

    def slope(d: np.ndarray) -> np.ndarray:
        return -REWARD.ravel() + (options.kappa * d / held) ** (q - 1.0)

    found = scipy.optimize.minimize(
        cost, occupancy(np.full((S, A), 0.5), start).ravel(), jac=slope, method="SLSQP",
        bounds=[(0.0, 1.0)] * (S * A), options={"ftol": 1e-14, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda d: flow @ d - (1.0 - GAMMA) * start, "jac": lambda d: flow},
    )  # fmt: skip
    assert found.success
    return found.x.reshape(S, A)


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_algae_finds_the_regularised_optimum(exponent: float) -> None:
    """Policy, density ratio and value of the saddle point against a convex programme over flows."""
    options = AlgaeOptions(exponent, kappa=0.5, own=1.0, actor_weight=1.0, cover_weight=0.0)
    best = regularised_optimum(options)
    tables = Tables([0.0, 0.0, 0.0])
    solve(tables, options, also_policy=True)
    pi = best / best.sum(1, keepdims=True)
    assert pi.min() > 0.02  # the optimum is inside, so it says something
    np.testing.assert_allclose(tables.policy().detach().numpy(), pi, atol=1e-4)
    np.testing.assert_allclose(slopes(tables, options), options.kappa * best / (HELD / HELD.sum()), rtol=1e-3)
