"""The nets of the study, by the config section `net`; convolutional nets and transformers are timm's.

Residual branches do not start at zero (timm's `zero_init_last`): behind an identity shortcut such a net stands exactly
on the kinks of its ReLUs, where SAM's first gradient does not tend to SGD's as rho tends to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from common.errors import BadInputError, unknown

Shape = tuple[int, int, int]
SMALL = 64  # images at most so wide keep their resolution in a ResNet's stem
GROUPS = 8  # of GroupNorm, at most
STAGES = 4  # of a ResNet, at most


def build(options: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    """A net with its library's own initialisation, drawn from torch's global generator.

    Args:
        options: `kind`, and what it needs: mlp `hidden`; gn_resnet `width`, `blocks` (of each stage); vit `patch`,
            `width`, `depth`, `heads`.
        shape: of one image, (channels, height, width).
        classes: outputs.

    Raises:
        BadInputError: an unknown kind, or sizes that do not go together.
    """
    kind = str(options["kind"])
    if kind not in KINDS:
        raise unknown("net.kind", kind, KINDS)
    return KINDS[kind](options, shape, classes)


def _mlp(options: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    parts: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise((math.prod(shape), *options["hidden"], classes)):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _gn_resnet(options: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    """Basic blocks of `width`, 2 `width`, 4 `width`, ... channels, GroupNorm in place of BatchNorm."""
    from timm.layers.norm import GroupNorm
    from timm.models.resnet import BasicBlock, ResNet

    width, blocks = int(options["width"]), [int(count) for count in options["blocks"]]
    if width < 2 or width % 2 or len(blocks) > STAGES or sum(blocks) < 2 or min(blocks) < 1:
        raise BadInputError(
            f"net: a gn_resnet needs an even width, and blocks >= 1 in each of 1 to {STAGES} stages, two or more in "
            f"all; not {width} and {blocks}."
        )
    groups = math.gcd(width // 2, GROUPS)  # half the width: timm builds norms of that size for the stem, too
    net = ResNet(
        BasicBlock,  # pyright: ignore[reportArgumentType]  (timm annotates the class as an instance)
        tuple(blocks),
        num_classes=classes,
        in_chans=shape[0],
        stem_type="deep",  # the only stem of timm whose width is free: 2 stem_width; its convolution is replaced
        stem_width=width // 2,
        channels=tuple(width * 2**stage for stage in range(len(blocks))),
        zero_init_last=False,
        norm_layer=partial(GroupNorm, num_groups=groups),  # pyright: ignore[reportArgumentType]
    )
    for stage in range(len(blocks), STAGES):
        setattr(net, f"layer{stage + 1}", nn.Identity())  # timm's forward pass goes through all four
    return _with_small_stem(net, shape[0], width)


def _bn_resnet18(options: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    from timm.models.resnet import resnet18

    net = resnet18(num_classes=classes, in_chans=shape[0], zero_init_last=False)
    return _with_small_stem(net, shape[0], 64) if shape[2] <= SMALL else net


def _vit(options: Mapping[str, Any], shape: Shape, classes: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    patch, width, heads = (int(options[name]) for name in ("patch", "width", "heads"))
    if shape[1] % patch or shape[2] % patch:
        raise BadInputError(f"net.patch = {patch} must divide the images' sides, {shape[1]} and {shape[2]}.")
    if width % heads:
        raise BadInputError(f"net.heads = {heads} must divide net.width = {width}.")
    return VisionTransformer(
        img_size=(shape[1], shape[2]),
        patch_size=patch,
        in_chans=shape[0],
        num_classes=classes,
        embed_dim=width,
        depth=int(options["depth"]),
        num_heads=heads,
    )


def _with_small_stem(net: nn.Module, channels: int, width: int) -> nn.Module:
    """3 x 3 convolution of stride 1 and no pooling, as for CIFAR (He et al. 2016, section 4.2)."""
    stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as timm's other convolutions
    net.conv1, net.maxpool = stem, nn.Identity()
    return net


KINDS: Mapping[str, Callable[[Mapping[str, Any], Shape, int], nn.Module]] = {
    "mlp": _mlp,
    "gn_resnet": _gn_resnet,
    "bn_resnet18": _bn_resnet18,
    "vit": _vit,
}
