"""The stacked perceptrons and their rules, against autograd and against common.optim, in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import BadInputError
from common.optim import rules as published
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware
from projects.sam_batch_study import mlp
from projects.sam_batch_study.rules import Rule, Stack, _direction, blocks, gradient, rule_of
from tests.projects.sam_batch_study.support import WIDTHS, labels, numbers

B, RHO = 16, 0.3


def rows(k: int, seed: int = 0) -> torch.Tensor:
    return 0.4 * numbers(k, mlp.parameters(WIDTHS), seed=seed)


def stack(k: int) -> Stack:
    return Stack(WIDTHS, torch.full((k,), RHO, dtype=torch.float64), tuple((j, 0) for j in range(k)))


def vector(model: nn.Module) -> torch.Tensor:
    """The gradients of a module from `mlp.module`, in the order of a row."""
    parts: list[torch.Tensor] = []
    for layer in model:
        if isinstance(layer, nn.Linear):
            assert layer.weight.grad is not None and layer.bias.grad is not None
            parts += [layer.weight.grad.T.flatten(), layer.bias.grad]
    return torch.cat(parts)


def test_a_row_is_its_module() -> None:
    """Logits, losses and gradients of each net, by autograd."""
    w, x, y = rows(3), numbers(3, B, WIDTHS[0], seed=1), labels(3, B)
    losses, g = mlp.backprop(w, WIDTHS, x, y)
    for j in range(3):
        model = mlp.module(w[j], WIDTHS)
        loss = nn.functional.cross_entropy(model(x[j]), y[j])
        loss.backward()
        assert torch.allclose(mlp.logits(w, WIDTHS, x)[j], model(x[j]), atol=1e-12)
        assert torch.allclose(losses[j], loss, atol=1e-12)
        assert torch.allclose(g[j], vector(model), atol=1e-12)


@given(st.integers(1, 4), st.sampled_from([1, 2, 4, 8]), st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_groups_are_gradients_of_the_parts(k: int, groups: int, seed: int) -> None:
    w, x, y = rows(k, seed), numbers(k, B, WIDTHS[0], seed=seed), labels(k, B, seed=seed)
    _, parts = mlp.backprop(w, WIDTHS, x, y, groups)
    _, whole = mlp.backprop(w, WIDTHS, x, y)
    assert torch.allclose(parts.view(k, groups, -1).mean(1), whole, atol=1e-12)
    size = B // groups
    _, first = mlp.backprop(w, WIDTHS, x[:, :size], y[:, :size])
    assert torch.allclose(parts.view(k, groups, -1)[:, 0], first, atol=1e-12)


CASES = {
    "sam": (Rule("sam", B, B, B), published.SAM()),
    "m-SAM": (Rule("sam", B, 4, 4), published.SAM()),
    "m-SAM, sub-batch": (Rule("sam", B, 8, 2), published.SAM()),
    "sub-batch": (Rule("sam", B, B, 4), published.SAM()),
    "penalty": (Rule("penalty", B, B, B, 0.8), published.GradientNormPenalty(0.8 * RHO)),
    "m-penalty": (Rule("penalty", B, 4, 4, 0.8), published.GradientNormPenalty(0.8 * RHO)),
    "sgd": (Rule("sgd", B, B, B), published.Base()),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_optimiser(name: str) -> None:
    """A step of torch's SGD with learning rate 1 moves each net by its gradient."""
    rule, same = CASES[name]
    w, x, y = rows(3), numbers(3, B, WIDTHS[0], seed=1), labels(3, B)
    g, norms = gradient(rule, stack(3), w, x, y, 0)
    for j in range(3):
        model = mlp.module(w[j], WIDTHS)
        base = torch.optim.SGD(model.parameters(), lr=1.0)
        sub = rule.sub if rule.sub < rule.m else None
        rho = None if rule.kind == "sgd" else RHO
        optimizer = SharpnessAware(base, Settings(same, m=rule.m, rho=rho, sub=sub), module=model)

        def loss(batch: tuple[torch.Tensor, torch.Tensor], model: nn.Module = model) -> torch.Tensor:
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

        report = optimizer.step(loss, (x[j], y[j]))
        moved = torch.cat([t.flatten() for pair in layers_of(model) for t in pair])
        assert torch.allclose(w[j] - g[j], moved, atol=1e-12)
        if rule.kind != "sgd":
            assert float(norms[j]) == pytest.approx(report.norm, rel=1e-10)


def layers_of(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(layer.weight.data.T, layer.bias.data) for layer in model if isinstance(layer, nn.Linear)]


def test_the_random_direction_has_length_rho_and_is_the_same_for_all_nets_of_a_seed() -> None:
    rule = Rule("random", B, B, B)
    w, x, y = rows(1).expand(3, -1).contiguous(), numbers(3, B, WIDTHS[0], seed=1), labels(3, B)
    x, y = x[:1].expand(3, -1, -1), y[:1].expand(3, -1)
    seeds = ((0, 0), (0, 0), (0, 1))
    far = Stack(WIDTHS, torch.tensor([RHO, RHO, RHO], dtype=torch.float64), seeds)
    g, _ = gradient(rule, far, w, x, y, 5)
    assert torch.allclose(g[0], g[1], atol=1e-14) and not torch.allclose(g[0], g[2])
    again, _ = gradient(rule, far, w, x, y, 6)
    assert not torch.allclose(g[0], again[0])
    there = w[:1] + RHO * _direction(0, 0, 5, w)
    assert torch.allclose(g[0], mlp.backprop(there, WIDTHS, x[:1], y[:1])[1][0], atol=1e-14)
    assert float((there - w[:1]).norm()) == pytest.approx(RHO)
    none = Stack(WIDTHS, torch.zeros(3, dtype=torch.float64), seeds)
    _, plain = mlp.backprop(w, WIDTHS, x, y)
    assert torch.allclose(gradient(rule, none, w, x, y, 5)[0], plain, atol=1e-14)


def test_rho_zero_is_sgd() -> None:
    w, x, y = rows(2), numbers(2, B, WIDTHS[0], seed=1), labels(2, B)
    none = Stack(WIDTHS, torch.zeros(2, dtype=torch.float64), ((0, 0), (1, 0)))
    _, plain = mlp.backprop(w, WIDTHS, x, y)
    for rule in (Rule("sam", B, B, B), Rule("penalty", B, B, B, 0.8)):
        assert torch.allclose(gradient(rule, none, w, x, y, 0)[0], plain, atol=1e-14)


def test_a_gradient_of_zero_perturbs_nothing() -> None:
    """Two classes of equal logits and balanced labels: no direction, and no NaN."""
    w = torch.zeros(1, mlp.parameters((3, 2)), dtype=torch.float64)
    x, y = torch.ones(1, 4, 3, dtype=torch.float64), torch.tensor([[0, 1, 0, 1]])
    flat = Stack((3, 2), torch.tensor([RHO], dtype=torch.float64), ((0, 0),))
    g, norm = gradient(Rule("sam", 4, 4, 4), flat, w, x, y, 0)
    assert g.abs().max() == 0 and float(norm) == 0


def test_initial_weights_are_he_normal_and_a_function_of_seed_and_number() -> None:
    widths = (300, 200, 10)
    row = mlp.initial(widths, 3, 1)
    assert torch.equal(row, mlp.initial(widths, 3, 1))
    assert not torch.equal(row, mlp.initial(widths, 3, 2))
    for (w, b), (fan_in, _) in zip(mlp.layers(row[None], widths), pairwise(widths), strict=True):
        assert float(w.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert b.abs().max() == 0


@pytest.mark.parametrize(
    ("options", "batch", "expected"),
    [
        ({}, 512, (512, 512)),
        ({"parts": 4}, 512, (128, 128)),
        ({"m": 64}, 512, (64, 64)),
        ({"sub_parts": 4}, 512, (512, 128)),
    ],
)
def test_rule_of_a_config(options: dict[str, int], batch: int, expected: tuple[int, int]) -> None:
    given_options = {"kind": "sam", "m": None, "parts": 1, "sub_parts": 1, "share": 1.0} | options
    rule = rule_of(given_options, batch)
    assert (rule.m, rule.sub) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "same"}, "sam"),
        ({"m": 48}, "must divide batch = 64"),
        ({"parts": 3}, "must divide batch = 64"),
        ({"sub_parts": 3}, "must divide batch = 64"),
        ({"m": 0}, r"rule\.m must be at least 1, not 0"),
        ({"m": -64}, r"rule\.m must be at least 1, not -64"),
        ({"parts": 0}, r"rule\.parts must be at least 1, not 0"),
        ({"sub_parts": 0}, r"rule\.sub_parts must be at least 1, not 0"),
    ],
)
def test_a_rule_that_cannot_be(options: dict[str, object], message: str) -> None:
    bad = {"kind": "sam", "m": None, "parts": 1, "sub_parts": 1, "share": 1.0} | options
    with pytest.raises(BadInputError, match=message):
        rule_of(bad, 64)


def test_blocks_cover_all_nets_once() -> None:
    for nets, batch in ((7, 64), (40, 64), (3, 2048), (5, 4096)):
        covered = [j for block in blocks(nets, batch) for j in range(nets)[block]]
        assert covered == list(range(nets))
