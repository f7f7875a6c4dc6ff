"""The benchmarks at a tiny size, and that the eager loop computes what the engine computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import opirl as bench
from benchmarks import resume
from benchmarks.opirl_eager import Eager

TINY = bench.Size(hidden=16, batch=32, members=2)


def fill(plain: nn.Module, parts: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, part in zip(plain.parameters(), parts, strict=True):
            parameter.copy_(part.T if part.dim() == 2 else part)


def assert_close(plain: nn.Module, parts: Sequence[Tensor]) -> None:
    for parameter, part in zip(plain.parameters(), parts, strict=True):
        torch.testing.assert_close(
            parameter.detach(), part.T if part.dim() == 2 else part, rtol=1e-3, atol=2e-5
        )


def pairs(
    net: Eager, agent: bench.Agent, discriminator: bench.Discriminator
) -> list[tuple[nn.Module, list[Tensor]]]:
    """The eager networks and the first member's, side by side."""
    n = agent.members
    result: list[tuple[nn.Module, list[Tensor]]] = [(net.actor, agent.actor.net.member(0))]
    for i in range(2):
        result.append((net.critics[i], agent.critic.net.member(i * n)))
        result.append((net.targets[i], agent.target.net.member(i * n)))
    return [
        *result, (net.reward, discriminator.reward.member(0)), (net.value, discriminator.value.member(0))
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["opirl", "sac"])
def test_both_loops_end_with_the_same_weights(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, discriminator = bench.networks(TINY)
    net, *drawn = bench.eager(TINY)
    for plain, parts in pairs(net, agent, discriminator):
        fill(plain, parts)
    monkeypatch.setattr(bench, "networks", lambda size: (agent, discriminator))
    monkeypatch.setattr(bench, "eager", lambda size: (net, *drawn))
    before = net.actor[0].weight.detach().clone()
    engine = {"opirl": bench.opirl_engine, "sac": bench.sac_engine}[method](TINY)
    plain_loop = {"opirl": bench.opirl_plain, "sac": bench.sac_plain}[method](TINY)
    for step in range(4):
        engine(step)
        plain_loop(step)
    assert not torch.equal(net.actor[0].weight, before)
    for plain, parts in pairs(net, agent, discriminator):
        assert_close(plain, parts)
    torch.testing.assert_close(net.log_alpha.detach(), agent.log_alpha[0].detach())


def test_updates(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.updates(TINY, steps=2, rounds=1, promised=0.0)
    assert capsys.readouterr().out.count("promised >= 0: kept") == 2


def test_a_broken_promise_is_said_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert not bench.ratio("x", [2.0, 1.0, 1.0], [1.0, 1.0, 9.0], promised=2.0)
    assert "ratio  1.00" in (out := capsys.readouterr().out) and "promised >= 2: broken" in out


def test_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.evaluation(TINY, episodes=1, rounds=1)
    assert "evaluation against bare steps" in capsys.readouterr().out


@pytest.mark.skipif(
    importlib.util.find_spec("stable_baselines3") is None, reason="the lock's bench group is not installed"
)
def test_against_stable_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.against_sb3(TINY, steps=2, rounds=1, promised=0.0)
    assert capsys.readouterr().out.count("promised >= 0: kept") == 2


def test_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume.measure(TINY, rows=resume.UPDATES + 40, between=10, rounds=1, folder=tmp_path)
    assert "promised < 5 s: kept" in capsys.readouterr().out
