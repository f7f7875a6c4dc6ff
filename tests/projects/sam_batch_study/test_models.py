"""Shapes, sizes and norms of the nets, and what a wrong config is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import BadInputError
from projects.sam_batch_study import mlp
from projects.sam_batch_study.models import build

NETS: list[tuple[dict[str, Any], tuple[int, int, int]]] = [
    ({"kind": "mlp", "hidden": [8, 6]}, (1, 16, 16)),
    ({"kind": "gn_resnet", "width": 8, "blocks": [1, 2, 1]}, (1, 16, 16)),
    ({"kind": "gn_resnet", "width": 4, "blocks": [2]}, (3, 32, 32)),
    ({"kind": "bn_resnet18"}, (3, 32, 32)),
    ({"kind": "bn_resnet18"}, (3, 96, 96)),
    ({"kind": "vit", "patch": 4, "width": 16, "depth": 2, "heads": 4}, (3, 16, 32)),
]


def made(options: Mapping[str, Any], shape: tuple[int, int, int], classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return build(options, shape, classes)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("options", "shape"), NETS, ids=str)
def test_logits_of_every_net(options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """One number a class; gradients everywhere; the same weights from the same generator."""
    model = made(options, shape)
    said = model(torch.randn(2, *shape))
    assert said.shape == (2, 7) and bool(said.isfinite().all())
    said.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    again = made(options, shape)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_an_mlp_takes_the_weights_of_the_stack() -> None:
    widths = (256, 8, 6, 7)
    model = made({"kind": "mlp", "hidden": [8, 6]}, (1, 16, 16))
    model.load_state_dict(mlp.module(mlp.initial(widths, 0), widths).state_dict())
    assert size(model) == mlp.parameters(widths)


def test_a_gn_resnet_has_no_statistics_of_the_batch() -> None:
    """No BatchNorm, no buffer: an example's logits do not depend on the others."""
    model = made({"kind": "gn_resnet", "width": 8, "blocks": [1, 1, 1]}, (3, 16, 16))
    norms = [part for part in model.modules() if isinstance(part, nn.GroupNorm)]
    assert len(norms) == 9 and {part.num_groups for part in norms} == {4}
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    assert not list(model.buffers())
    x = torch.randn(4, 3, 16, 16)
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)


def test_a_gn_resnet_has_the_size_that_its_config_says() -> None:
    """Counted by hand: 3 x 3 convolutions, norms of two numbers a channel, 1 x 1 projections, a linear layer."""

    def block(a: int, b: int) -> int:
        return 9 * a * b + 9 * b * b + 4 * b + (a * b + 2 * b if a != b else 0)

    expected = 9 * 3 * 8 + 16 + block(8, 8) + block(8, 16) + block(16, 16) + (16 * 7 + 7)
    assert size(made({"kind": "gn_resnet", "width": 8, "blocks": [1, 2]}, (3, 32, 32))) == expected
    wide = size(made({"kind": "gn_resnet", "width": 16, "blocks": [1, 2]}, (3, 32, 32)))
    assert 3.5 < wide / expected < 4.1


def test_small_images_keep_their_resolution_in_the_stem() -> None:
    """11.2 million parameters at ten classes; 1,728 of them in CIFAR's stem, 9,408 in ImageNet's."""
    small = made({"kind": "bn_resnet18"}, (3, 32, 32), 10)
    large = made({"kind": "bn_resnet18"}, (3, 96, 96), 10)
    assert (size(small), size(large)) == (11_173_962, 11_181_642)
    stems = [(model.conv1.stride, type(model.maxpool)) for model in (small, large)]  # pyright: ignore[reportAttributeAccessIssue]
    assert stems == [((1, 1), nn.Identity), ((2, 2), nn.MaxPool2d)]
    features = small.layer1(small.conv1(torch.zeros(1, 3, 32, 32)))  # pyright: ignore[reportCallIssue]
    assert features.shape == (1, 64, 32, 32)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "gn_resnt"}, r"unknown net.kind 'gn_resnt'. Did you mean 'gn_resnet'\?"),
    ({"kind": "gn_resnet", "width": 5, "blocks": [1, 1]}, "even width"),
    ({"kind": "gn_resnet", "width": 4, "blocks": []}, "blocks >= 1"),
    ({"kind": "gn_resnet", "width": 4, "blocks": [1]}, "two or more in all"),
    ({"kind": "gn_resnet", "width": 4, "blocks": [1] * 5}, "1 to 4 stages"),
    ({"kind": "vit", "patch": 5, "width": 16, "depth": 1, "heads": 4}, "patch = 5 must divide"),
    ({"kind": "vit", "patch": 4, "width": 18, "depth": 1, "heads": 4}, "heads = 4 must divide"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=str)
def test_what_does_not_go_together_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build(options, (3, 16, 16), 10)
