"""Small float64 models with data, and their dense Hessians."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian

from common.curvature.landscape import Landscape


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeded(model: nn.Module, seed: int, scale: float = 0.5) -> nn.Module:
    """The model in float64 with parameters from an own generator."""
    generator = draws(seed)
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def mlp(n: int = 24, chunk: int = 7) -> Landscape:
    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), 0)
    x = torch.randn(n, 4, generator=draws(1), dtype=torch.float64)
    y = torch.randint(3, (n,), generator=draws(2))
    return Landscape(model, nn.functional.cross_entropy, x, y, chunk)


def conv(n: int = 12, chunk: int = 5) -> Landscape:
    """Convolution and batch norm with running statistics that are not the batch's; some modules in train mode."""
    layers = [
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(27, 2),
    ]
    model = seeded(nn.Sequential(*layers), 3)
    model[1].running_mean.fill_(0.3)
    model[1].running_var.fill_(2.0)
    x = torch.randn(n, 1, 5, 5, generator=draws(4), dtype=torch.float64)
    y = torch.randn(n, 2, generator=draws(5), dtype=torch.float64)
    return Landscape(model, nn.functional.mse_loss, x, y, chunk)


def quadratic(hessians: Tensor, shifts: Tensor, w: Tensor) -> Landscape:
    """Example i has the loss ½ wᵀ A_i w + b_iᵀ w; its data is (A_i | b_i)."""

    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(w.clone())

        def forward(self, data: Tensor) -> Tensor:
            return 0.5 * (data[:, :, :-1] @ self.w) @ self.w + data[:, :, -1] @ self.w

    def mean(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.mean()

    return Landscape(
        Quadratic(), mean, torch.cat([hessians, shifts[..., None]], -1), torch.zeros(len(shifts))
    )


def dense(landscape: Landscape) -> Tensor:
    """The Hessian by torch.func over the whole batch, with the model in evaluation mode."""
    model, names = landscape.model, dict(landscape.model.named_parameters())

    def loss(w: Tensor) -> Tensor:
        parts = w.split([p.numel() for p in names.values()])
        state = {name: part.view(p.shape) for (name, p), part in zip(names.items(), parts, strict=True)}
        return landscape.loss(functional_call(model, state, (landscape.inputs,)), landscape.targets)

    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # torch.func's first forward mode compiles with torch.jit
        matrix = hessian(loss)(landscape.weights())
    for module, training in modes:
        module.training = training
    return matrix
