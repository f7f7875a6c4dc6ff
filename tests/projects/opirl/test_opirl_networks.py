"""Stacked networks against plain torch modules, torch.distributions and double backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from projects.opirl.networks import Actor, StackedMLP, TwinCritic


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def plain(parts: list[Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight, bias in zip(parts[::2], parts[1::2], strict=True):
        linear = nn.Linear(weight.shape[0], weight.shape[1], dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [(7,), (7, 5), (6, 5, 4)])
def test_stacked_equals_plain_modules(hidden: tuple[int, ...]) -> None:
    net = StackedMLP(generators(1, 2, 3), (4, *hidden, 2), dtype=torch.float64)
    x = torch.randn(3, 9, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 9, 2, dtype=torch.float64)
    y = net(x)
    (y * upstream).sum().backward()
    assert net.flat.grad is not None and x.grad is not None
    for index in range(3):
        single = plain(net.member(index))
        xi = x[index].detach().requires_grad_()
        yi = single(xi)
        (yi * upstream[index]).sum().backward()
        torch.testing.assert_close(y[index], yi)
        torch.testing.assert_close(x.grad[index], xi.grad)
        for slot, parameter in zip(net.views(net.flat.grad), single.parameters(), strict=True):
            expected = parameter.grad.T if slot.dim() == 3 else parameter.grad  # type: ignore[union-attr]
            torch.testing.assert_close(slot[index], expected)


def test_frozen_stops_at_the_parameters() -> None:
    net = StackedMLP(generators(1), (3, 8, 1))
    x = torch.randn(1, 5, 3, requires_grad=True)
    net(x, frozen=True).sum().backward()
    assert net.flat.grad is None and x.grad is not None


@pytest.mark.parametrize("hidden", [(7,), (7, 5), (6, 5, 4)])
def test_input_gradient_equals_double_backward(hidden: tuple[int, ...]) -> None:
    net = StackedMLP(generators(1, 2), (4, *hidden, 1), dtype=torch.float64)
    with torch.no_grad():
        net.flat.add_(torch.randn(net.flat.shape, dtype=torch.float64, generator=generators(5)[0]), alpha=0.3)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    penalty = (net.input_gradient(x).norm(dim=-1) - 1).square().sum()
    penalty.backward()
    assert net.flat.grad is not None
    for index in range(2):
        single = plain(net.member(index))
        xi = x[index].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(single(xi).sum(), xi, create_graph=True)
        torch.testing.assert_close(net.input_gradient(x)[index].detach(), gradient.detach())
        wanted = torch.autograd.grad(
            (gradient.norm(dim=-1) - 1).square().sum(), list(single.parameters()), allow_unused=True
        )
        for slot, expected in zip(net.views(net.flat.grad), wanted, strict=True):
            if expected is None:
                assert not slot[index].any()
            else:
                torch.testing.assert_close(slot[index], expected.T if slot.dim() == 3 else expected)


def test_initial_weights_belong_to_the_member() -> None:
    together = StackedMLP(generators(1, 2, 3), (4, 16, 16, 1))
    alone = StackedMLP(generators(2), (4, 16, 16, 1))
    assert all(torch.equal(a, b) for a, b in zip(together.member(1), alone.member(0), strict=True))
    assert not torch.equal(together.member(0)[0], together.member(1)[0])
    first = together.member(0)[2]
    torch.testing.assert_close(first @ first.T, 2 * torch.eye(16))


def test_the_output_gain_is_the_output_layer_s_alone() -> None:
    """Also where a hidden layer has the output layer's shape."""
    _, _, hidden, _, output, _ = StackedMLP(generators(1), (4, 8, 8, 8), gain=0.01).member(0)
    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(8))
    torch.testing.assert_close(output @ output.T, 1e-4 * torch.eye(8))


def test_twin_critics_differ() -> None:
    critic = TwinCritic(generators(1, 2), (3, 8))
    values = critic(torch.randn(2, 5, 3))
    assert values.shape == (2, 2, 5)
    assert not torch.allclose(values[0], values[1])


def test_log_prob_equals_torch_distributions() -> None:
    actor = Actor(generators(1, 2), (3, 8), act_dim=2)
    with torch.no_grad():
        actor.net.flat.add_(torch.randn(actor.net.flat.shape, generator=generators(5)[0]), alpha=0.3)
    s, eps = torch.randn(2, 50, 3), torch.randn(2, 50, 2)
    action, log_prob = actor(s, eps)
    mean, log_std = actor.moments(s)
    base = torch.distributions.Normal(mean, log_std.exp())
    tanh = torch.distributions.transforms.TanhTransform(cache_size=1)
    policy = torch.distributions.TransformedDistribution(base, [tanh])
    raw = mean + log_std.exp() * eps
    torch.testing.assert_close(log_prob, policy.log_prob(tanh(raw)).sum(-1), rtol=1e-4, atol=1e-4)
    inside = action.abs().amax(-1) < 0.99
    torch.testing.assert_close(actor.log_prob(s, action)[inside], log_prob[inside], rtol=1e-3, atol=1e-3)


def test_log_prob_of_a_saturated_action_is_finite() -> None:
    actor = Actor(generators(1), (3, 8), act_dim=2)
    value = actor.log_prob(torch.zeros(1, 2, 3), torch.tensor([[[1.0, -1.0], [0.0, 1.0]]]))
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(actor.net.flat.grad).all()  # type: ignore[arg-type]
