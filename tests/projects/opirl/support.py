"""Settings, demonstrations and plain networks that several tests of OPIRL need."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.opirl_eager import Eager
from common.study.config import compose
from common.study.jobs import _with_variants
from projects.opirl import demos
from projects.opirl.agent import Agent, AgentOptions
from projects.opirl.arm import Arm, Setting, build
from projects.opirl.demos import Demos
from projects.opirl.discriminator import Discriminator, DiscriminatorOptions
from projects.opirl.envs import spec
from projects.opirl.replay import Batch
from projects.opirl.study import METHODS, STUDY

MAZE, PENDULUM = "pointmaze_left", "inverted_double_pendulum"


@functools.cache
def _smoke() -> dict[str, Any]:
    return compose("opirl", "smoke")


def config(
    method: str = "opirl", env: str = MAZE, stage: str = "imitate", **changes: Mapping[str, Any]
) -> dict[str, Any]:
    """A job's config at scale smoke, with sections changed: ``config(collect={"start": 5})``."""
    axes = {"method": method, "env": env, "target": "", "seed": 0}
    cfg = copy.deepcopy(_with_variants(STUDY.stage(stage), axes, _smoke()))
    for section, change in changes.items():
        cfg.setdefault(section, {})
        cfg[section].update(change)
    return cfg | {"axes": {"method": method, "env": env}}


def somehow(env: str, seed: int) -> Any:
    """A smooth deterministic policy of raw observations."""
    facts = spec(env)
    weights = np.random.default_rng(seed).normal(size=(facts.obs_dim, facts.act_dim)) / facts.obs_dim

    def act(obs: Tensor) -> np.ndarray:
        return np.tanh(obs.numpy().astype(np.float64) @ weights)

    return act


@functools.cache
def held(env: str, seed: int, episodes: int = 3) -> Demos:
    """Demonstrations of a policy of no merit."""
    return demos.record(somehow(env, seed), env, episodes, [seed])[0]


def setting(
    out: Path,
    method: str = "opirl",
    env: str = MAZE,
    seeds: Sequence[int] = (0, 1),
    steps: int = 100,
    cfg: Mapping[str, Any] | None = None,
) -> Setting:
    """Where `method` learns, in its own fresh folder below `out`."""
    cfg = config(method, env) if cfg is None else cfg
    chosen = [held(env, seed) for seed in seeds]
    shift = torch.stack([torch.from_numpy(one.shift) for one in chosen])
    scale = torch.stack([torch.from_numpy(one.scale).clamp(max=10.0) for one in chosen])
    folder = out / f"{method} {env} {seeds}"
    folder.mkdir(parents=True)
    return Setting(env, spec(env), tuple(seeds), cfg, steps, chosen, shift, scale, folder)


def arm(out: Path, method: str = "opirl", **options: Any) -> Arm:
    """A method, ready for its first step."""
    return build(METHODS[method], setting(out, method, **options))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def agent(members: int, obs_dim: int, act_dim: int, seed: int = 0, **options: Any) -> Agent:
    """In float64, away from its initialisation, with a target that differs from the critics."""
    chosen = {"hidden": (8, 8), "actor_lr": 3e-4, "critic_lr": 1e-3, "alpha_lr": 1e-3, "alpha_init": 0.3}
    result = Agent(
        generators(*range(seed, seed + members)), obs_dim, act_dim, AgentOptions(**chosen | options)
    )
    result = result.double()
    with torch.no_grad():
        for offset, net in enumerate((result.actor.net, result.critic.net, result.target.net)):
            net.flat.add_(normal(*net.flat.shape, seed=seed + offset), alpha=0.2)
    return result


def discriminator(members: int, obs_dim: int, act_dim: int, **options: Any) -> Discriminator:
    """In float64, away from its initialisation."""
    chosen = {"hidden_reward": (8, 8), "hidden_value": (8, 8), "lr": 1e-3}
    result = Discriminator(
        generators(*range(members)), obs_dim, act_dim, DiscriminatorOptions(**chosen | options)
    ).double()
    with torch.no_grad():
        for offset, net in enumerate((result.reward, result.value)):
            net.flat.add_(normal(*net.flat.shape, seed=50 + offset), alpha=0.2)
    return result


def batch(
    members: int, size: int, obs_dim: int, act_dim: int, seed: int = 0, absorbing: bool = True
) -> Batch:
    """Random transitions; a third of them in the absorbing state, where a = 0, and some end without one."""
    draw = torch.Generator().manual_seed(seed)
    s, s2 = (torch.randn(members, size, obs_dim, generator=draw, dtype=torch.float64) for _ in range(2))
    a = torch.rand(members, size, act_dim, generator=draw, dtype=torch.float64) * 2.0 - 1.0
    r, u = (torch.randn(members, size, generator=draw, dtype=torch.float64) for _ in range(2))
    void = torch.nn.functional.one_hot(torch.tensor(obs_dim - 1), obs_dim).double()
    s[..., -1], s2[..., -1] = 0.0, 0.0
    if absorbing:
        ends, gone = (u > 0.0).unsqueeze(-1), (u > 0.5).unsqueeze(-1)
        s2, s, a = torch.where(ends, void, s2), torch.where(gone, void, s), torch.where(gone, 0.0, a)
    return Batch(s, a, s2, r, (u > -1.0).double())


def rows(one: Batch, member: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One member's batch as the plain transcription takes it."""
    return one.s[member], one.a[member], one.s2[member], one.r[member], one.m[member]


def fill(plain: nn.Module, parts: Sequence[Tensor]) -> None:
    """Give a chain of nn.Linear the weights of a stacked network's member."""
    with torch.no_grad():
        for parameter, part in zip(plain.parameters(), parts, strict=True):
            parameter.copy_(part.T if part.dim() == 2 else part)


class Plain(Eager):
    """The transcription, with nothing to choose in the absorbing state."""

    def act(self, s: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        a, log_prob = super().act(s, eps)
        alive = 1.0 - s[..., -1]
        return a * alive.unsqueeze(-1), log_prob * alive


def plain(one: Agent, member: int, reward_and_value: Discriminator | None = None) -> Plain:
    """A member's networks as plain modules in float64."""
    hidden = one.options.hidden
    act_dim = one.actor.act_dim
    obs_dim = one.actor.net.sizes[0]
    result = Plain(obs_dim, act_dim, hidden, hidden).double()
    fill(result.actor, one.actor.net.member(member))
    for index in range(2):
        fill(result.critics[index], one.critic.net.member(index * one.members + member))
        fill(result.targets[index], one.target.net.member(index * one.members + member))
    with torch.no_grad():
        result.log_alpha.fill_(one.log_alpha[member].item())
    if reward_and_value is not None:
        fill(result.reward, reward_and_value.reward.member(member))
        fill(result.value, reward_and_value.value.member(member))
    return result


def member_gradient(net: Any, member: int) -> list[Tensor]:
    """The gradient of a member's weights (out, in) and biases, as nn.Linear has them."""
    return [view[member].T if view.dim() == 3 else view[member] for view in net.views(net.flat.grad)]


def gradients(module: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
