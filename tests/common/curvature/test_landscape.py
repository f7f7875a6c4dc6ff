from __future__ import annotations

import pytest
import torch
from torch import nn

from common.curvature.landscape import Landscape
from common.errors import BadInputError
from tests.common.curvature.nets import conv, dense, draws, mlp, seeded


@pytest.mark.parametrize("build", [mlp, conv])
@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_products_are_the_dense_hessian(build, chunk):
    landscape = build(chunk=chunk)
    matrix, w = dense(landscape), landscape.weights()
    for seed in range(3):
        v = torch.randn(w.shape, generator=draws(seed), dtype=w.dtype)
        torch.testing.assert_close(landscape.hvp(w, v), matrix @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [mlp, conv])
def test_value_and_gradient_are_autograd_s(build):
    landscape = build()
    value, gradient = landscape.gradient(landscape.weights())
    landscape.model.eval()
    loss = landscape.loss(landscape.model(landscape.inputs), landscape.targets)
    loss.backward()
    expected = torch.cat([p.grad.reshape(-1) for p in landscape.model.parameters()])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    assert value == pytest.approx(loss.item(), rel=1e-13)
    assert landscape.value(landscape.weights()) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(broken):
    landscape = conv()
    model = landscape.model
    model[1].eval()  # a module whose mode differs from its parent's
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, rng, w = (
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        landscape.weights(),
    )
    if broken:
        with pytest.raises(BadInputError, match="the loss over 12 examples is nan"):
            landscape.gradient(w * float("nan"))
    else:
        landscape.hvp(w, w)
        landscape.gradient(w + 1)
        landscape.value(w + 1)
    assert [module.training for module in model.modules()] == modes == [True, True, False, *[True] * 4]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_frozen_parameters_are_constants_and_tied_ones_count_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.scale = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.scale.requires_grad_(False)

        def forward(self, x):
            return self.second(torch.tanh(self.scale(self.first(x))))

    model = seeded(Tied(), 0)
    x = torch.randn(6, 3, generator=draws(1), dtype=torch.float64)
    landscape = Landscape(model, nn.functional.mse_loss, x, x)
    w = landscape.weights()
    assert w.numel() == 9 + 3 + 3
    h, v = 1e-5, torch.randn(w.shape, generator=draws(2), dtype=w.dtype)
    difference = (landscape.gradient(w + h * v)[1] - landscape.gradient(w - h * v)[1]) / (2 * h)
    torch.testing.assert_close(landscape.hvp(w, v), difference, rtol=1e-6, atol=1e-8)


def test_attention_has_second_derivatives():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(*self.qkv(x)[:, None].chunk(3, -1))[:, 0]

    model = seeded(Attention(), 0)
    x = torch.randn(3, 5, 4, generator=draws(1), dtype=torch.float64)
    landscape = Landscape(model, nn.functional.mse_loss, x, x)
    w = landscape.weights()
    h, v = 1e-5, torch.randn(w.shape, generator=draws(2), dtype=w.dtype)
    difference = (landscape.gradient(w + h * v)[1] - landscape.gradient(w - h * v)[1]) / (2 * h)
    torch.testing.assert_close(landscape.hvp(w, v), difference, rtol=1e-6, atol=1e-8)


def test_works_where_gradients_are_off():
    landscape = mlp()
    w = landscape.weights()
    expected = landscape.hvp(w, w)
    with torch.no_grad():
        assert torch.equal(landscape.hvp(w, w), expected)
    with torch.inference_mode():
        inside = Landscape(landscape.model, landscape.loss, landscape.inputs * 1, landscape.targets * 1, 7)
        assert torch.equal(inside.hvp(inside.weights(), w), expected)


def test_a_linear_loss_has_no_curvature():
    x = torch.ones(4, 2)
    landscape = Landscape(nn.Linear(2, 1), lambda out, _: out.mean(), x, x)
    w = landscape.weights()
    assert not landscape.hvp(w, torch.ones_like(w)).any()


def test_bad_input_is_named():
    x, y = torch.ones(4, 2), torch.ones(4, 1)
    with pytest.raises(BadInputError, match="as many targets as inputs: 4 and 3"):
        Landscape(nn.Linear(2, 1), nn.functional.mse_loss, x, y[:3])
    with pytest.raises(BadInputError, match="at least one example"):
        Landscape(nn.Linear(2, 1), nn.functional.mse_loss, x, y, 0)
    with pytest.raises(BadInputError, match="no trainable parameter"):
        Landscape(nn.Linear(2, 1).requires_grad_(False), nn.functional.mse_loss, x, y)
    with pytest.raises(BadInputError, match=r"torch.float32, torch.float64"):
        Landscape(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1).double()), nn.functional.mse_loss, x, y)
    landscape = Landscape(nn.Linear(2, 1), nn.MSELoss(reduction="none"), x, y)
    with pytest.raises(BadInputError, match=r"shape \(4, 1\): use its mean"):
        landscape.value(landscape.weights())
    with pytest.raises(BadInputError, match="m = 3 does not divide the 4 examples"):
        landscape.micro_batches(3)


def test_micro_batches_average_to_the_whole():
    landscape = mlp()
    w = landscape.weights()
    parts = landscape.micro_batches(6)
    assert len(parts) == 4
    mean = torch.stack([part.gradient(w)[1] for part in parts]).mean(0)
    torch.testing.assert_close(mean, landscape.gradient(w)[1])
