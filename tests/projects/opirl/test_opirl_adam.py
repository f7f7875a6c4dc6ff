"""Our Adam against torch's, to the bit: weights, state and a checkpoint that either can continue."""

from __future__ import annotations

import torch
from torch import nn

from projects.opirl.adam import Adam
from projects.opirl.networks import StackedMLP


def train(optimiser: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    """Gradients are a function of the step; the second parameter has none in every third."""
    for k in steps:
        optimiser.zero_grad()
        noise = torch.Generator().manual_seed(k)
        loss = (params[0] * torch.randn(params[0].shape, generator=noise)).sum()
        if k % 3:
            loss = loss + params[1].square().sum()
        loss.backward()
        optimiser.step()


def parameters() -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=draws)) for size in (192, 61)]


def same(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> bool:
    a, b = first.state_dict(), second.state_dict()
    assert a["param_groups"] == b["param_groups"] and a["state"].keys() == b["state"].keys()
    return all(
        torch.equal(a["state"][i][key], b["state"][i][key]) for i in a["state"] for key in a["state"][i]
    )


def test_adam_is_that_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    fast, plain = Adam(ours, 1e-2), torch.optim.Adam(theirs, lr=1e-2, fused=True)
    for optimiser, params in ((fast, ours), (plain, theirs)):
        train(optimiser, params, range(20))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert same(fast, plain)


def test_adam_continues_the_checkpoint_of_torch() -> None:
    whole = parameters()
    optimiser = Adam(whole, 1e-2)
    train(optimiser, whole, range(20))
    halves = parameters()
    first = torch.optim.Adam(halves, lr=1e-2, fused=True)
    train(first, halves, range(11))
    second = Adam(halves, 1e-2)
    second.load_state_dict(first.state_dict())
    train(second, halves, range(11, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
    assert same(optimiser, second)


def test_a_networks_kept_views_follow_its_parameters() -> None:
    nets = [StackedMLP([torch.Generator().manual_seed(seed)], (3, 8, 1)) for seed in (1, 2)]
    x = torch.randn(1, 5, 3)
    before, wanted = (net(x) for net in nets)
    nets[0].load_state_dict(nets[1].state_dict())
    assert torch.equal(nets[0](x), wanted) and not torch.equal(before, wanted)
    nets[0].flat.data = torch.zeros_like(nets[0].flat)  # other memory
    assert not nets[0](x).any()
