"""timm's LARS and LAMB with our settings, against the papers' equations; and around them, SAM."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.optim import large_batch
from common.optim.rules import SAM
from common.optim.settings import Settings
from common.optim.sharpness import SharpnessAware

STEPS = 3


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


def gradients(step: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step)
    return [50 * torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((3, 4), (3,))]


def stepped(optimizer: torch.optim.Optimizer, net: nn.Linear) -> None:
    for step in range(STEPS):
        net.weight.grad, net.bias.grad = gradients(step)
        optimizer.step()


def test_lars() -> None:
    net = layer()
    w, b = net.weight.detach().clone(), net.bias.detach().clone()
    stepped(large_batch.lars(net, 0.5, momentum=0.9, weight_decay=0.1, trust=0.02), net)
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    for step in range(STEPS):
        gw, gb = gradients(step)
        vw = 0.9 * vw + 0.02 * w.norm() / (gw.norm() + 0.1 * w.norm()) * (gw + 0.1 * w)
        vb = 0.9 * vb + gb
        w, b = w - 0.5 * vw, b - 0.5 * vb
    torch.testing.assert_close((net.weight.detach(), net.bias.detach()), (w, b))


def test_lamb_does_not_clip_by_itself() -> None:
    net = layer()
    w, b = net.weight.detach().clone(), net.bias.detach().clone()
    stepped(large_batch.lamb(net, 0.01, weight_decay=0.1), net)
    m, v = [torch.zeros_like(w), torch.zeros_like(b)], [torch.zeros_like(w), torch.zeros_like(b)]
    for step in range(STEPS):
        update: list[Tensor] = []
        for i, g in enumerate(gradients(step)):
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            hat = m[i] / (1 - 0.9 ** (step + 1)), v[i] / (1 - 0.999 ** (step + 1))
            update.append(hat[0] / (hat[1].sqrt() + 1e-6))
        update[0] = update[0] + 0.1 * w
        w, b = w - 0.01 * w.norm() / update[0].norm() * update[0], b - 0.01 * update[1]
    torch.testing.assert_close((net.weight.detach(), net.bias.detach()), (w, b))


@pytest.mark.parametrize("base", [large_batch.lars, large_batch.lamb])
def test_sam_around_them_trains_and_resumes(base: object) -> None:
    def make(net: nn.Linear) -> SharpnessAware:
        return SharpnessAware(base(net, 0.05), Settings(SAM(), m=4, rho=0.05))  # type: ignore[operator]

    def train(optimizer: SharpnessAware, net: nn.Linear, steps: int) -> None:
        for _ in range(steps):
            optimizer.step(lambda x: (net(x) - x[:, :3]).square().mean(), torch.eye(4).double())

    whole, half, again = layer(), layer(), layer()
    train(make(whole), whole, 4)
    first, second = make(half), make(again)
    train(first, half, 2)
    again.load_state_dict(half.state_dict())
    second.load_state_dict(first.state_dict())
    train(second, again, 2)
    assert torch.equal(whole.weight, again.weight)
    assert not torch.equal(whole.weight, layer().weight)
