"""Networks that embed images: a small one for glyphs, and timm's backbones with their pooling named.

The published figures differ in pooling without saying so: average alone, or average + maximum. Here it is an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from common.data.source import root
from common.errors import BadInputError, unknown
from common.training.weights import put_weights, read_weights
from projects.proxy_isa.bn_inception import BNInception, published

POOLS = ("avg", "avg+max")
BN_INCEPTION = "bn_inception"
GROUPS = 8


class Embedder(nn.Module):
    """Features -> one linear layer -> points on the unit sphere.

    Args:
        features: images to (b, f).
        width: f.
        dim: of the embedding.
    """

    def __init__(self, features: nn.Module, width: int, dim: int) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(width, dim)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of length one."""
        return functional.normalize(self.head(self.features(images)), dim=1)


class Pooled(nn.Module):
    """A backbone's last feature maps, averaged over places; with `maximum`, plus their maxima."""

    def __init__(self, backbone: nn.Module, maximum: bool) -> None:
        super().__init__()
        self.backbone, self.maximum = backbone, maximum

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """Pooled features."""
        maps = self.backbone(images)
        average = maps.mean((2, 3))
        return average + maps.amax((2, 3)) if self.maximum else average


class Largest(torch.autograd.Function):
    """The largest of each 2 x 2 places, called by `Largest.apply(x)`; sides are even.

    torch's max_pool2d with the same value and gradient (of equal places another may get it), and twice as fast on a
    CPU, where it is the most expensive part of a small network.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        largest = torch.maximum(rows[..., ::2], rows[..., 1::2])
        ctx.save_for_backward(x, rows, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, rows, largest = ctx.saved_tensors
        (g,) = grads
        across, down = torch.empty_like(rows), torch.empty_like(x)
        torch.mul(g, rows[..., ::2] == largest, out=across[..., ::2])
        torch.sub(g, across[..., ::2], out=across[..., 1::2])
        torch.mul(across, x[..., ::2, :] == rows, out=down[..., ::2, :])
        torch.sub(across, down[..., ::2, :], out=down[..., 1::2, :])
        return down


class Halved(nn.Module):
    """`Largest` as a layer."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """The largest of each 2 x 2 places."""
        return Largest.apply(x)  # pyright: ignore[reportReturnType]


def build(options: Mapping[str, Any], shape: Sequence[int]) -> Embedder:
    """The embedder that the config section `net` describes.

    Args:
        options: `kind` "glyph_cnn" (`channels`), or "bn_inception" or the name of a timm model (`pool`, `weights`: a
            file of its state dict, below the folder of data sets, or null for random ones); `dim`.
        shape: (channels, height, width) of an image.

    Raises:
        BadInputError: an unknown name, channels or an image side that the small network cannot have, or a file of
            weights that is not there or does not fit.
    """
    kind, dim = str(options["kind"]), int(options["dim"])
    if kind == "glyph_cnn":
        widths = [int(width) for width in options["channels"]]
        _check_glyph_cnn(widths, shape)
        features = _glyph_cnn(int(shape[0]), widths)
        with torch.no_grad():
            width = features(torch.zeros(1, *shape)).shape[1]
        return Embedder(features, width, dim)
    return _pooled(kind, options, dim)


def _check_glyph_cnn(widths: Sequence[int], shape: Sequence[int]) -> None:
    for width in widths:
        if width < 1 or width % min(GROUPS, width):
            raise BadInputError(
                f"net.channels = {list(widths)}: {width} channels cannot be normalised in {GROUPS} groups. Give 1 to "
                f"{GROUPS}, or a multiple of {GROUPS}."
            )
    halved = 2 ** len(widths)
    if any(side % halved for side in shape[1:]):
        raise BadInputError(
            f"data.size: images of {shape[-2]} x {shape[-1]} pixels, and each of the {len(widths)} layers of "
            f"net.channels halves the side. Give a multiple of {halved}, or fewer layers."
        )


def _glyph_cnn(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolutions that halve the side, flattened rather than pooled: where a stroke is tells letters apart."""
    parts: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        parts += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.GroupNorm(min(GROUPS, after), after),
            Halved(),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts, nn.Flatten())


def _pooled(kind: str, options: Mapping[str, Any], dim: int) -> Embedder:
    pool, weights = str(options["pool"]), options["weights"]
    backbone: Any = BNInception() if kind == BN_INCEPTION else _timm(kind)
    if pool not in POOLS:
        raise unknown("net.pool", pool, POOLS)
    if weights is not None:
        _load(backbone, str(weights), kind)
    return Embedder(Pooled(backbone, pool == "avg+max"), int(backbone.num_features), dim)


def _timm(kind: str) -> nn.Module:
    import timm

    if not timm.is_model(kind):
        raise unknown("net.kind", kind, ("glyph_cnn", BN_INCEPTION, *timm.list_models()))
    return timm.create_model(kind, num_classes=0, global_pool="")


def _load(backbone: nn.Module, name: str, kind: str) -> None:
    path = root() / name
    if not path.is_file():
        raise BadInputError(
            f"net.weights: there is no file {path} (RETHESIS_DATA chooses the folder). {_source(kind)} Scale laptop "
            "needs none."
        )
    state = read_weights(path)
    put_weights(backbone, published(state) if kind == BN_INCEPTION else state, f"net.weights: {path}")


def _source(kind: str) -> str:
    if kind == BN_INCEPTION:
        return (
            "Put one of the published files bn_inception-52deb4733.pth or bn_inception-239d2248.pth there (46 MB, "
            "ImageNet weights ported from Caffe, without a stated licence)."
        )
    return (
        f"Save timm's pretrained {kind} there, on a machine with a network (the licence is on its model card): "
        f"torch.save(timm.create_model({kind!r}, pretrained=True, num_classes=0).state_dict(), ...)."
    )
