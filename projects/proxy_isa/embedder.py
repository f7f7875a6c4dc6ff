"""Networks that embed images: a small one for glyphs, and timm's backbones with their pooling named.

The published figures differ in pooling without saying so: average alone, or average + maximum. Here it is an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from common.errors import BadInputError, unknown

POOLS = ("avg", "avg+max")
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


def build(options: Mapping[str, Any], shape: Sequence[int]) -> Embedder:
    """The embedder that the config section `net` describes.

    Args:
        options: `kind` "glyph_cnn" (`channels`), or the name of a timm model (`pool`, `weights`: a file of its state
            dict, or null for random ones); `dim`.
        shape: (channels, height, width) of an image.

    Raises:
        BadInputError: an unknown name, or a file of weights that is not there or does not fit.
    """
    kind, dim = str(options["kind"]), int(options["dim"])
    if kind == "glyph_cnn":
        features = _glyph_cnn(int(shape[0]), [int(width) for width in options["channels"]])
        with torch.no_grad():
            width = features(torch.zeros(1, *shape)).shape[1]
        return Embedder(features, width, dim)
    return _timm(kind, options, dim)


def _glyph_cnn(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolutions that halve the side, flattened rather than pooled: where a stroke is tells letters apart."""
    parts: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        parts += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.GroupNorm(min(GROUPS, after), after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*parts, nn.Flatten())


def _timm(kind: str, options: Mapping[str, Any], dim: int) -> Embedder:
    import timm

    if not timm.is_model(kind):
        raise unknown("net.kind", kind, ("glyph_cnn", *timm.list_models()))
    pool, weights = str(options["pool"]), options["weights"]
    if pool not in POOLS:
        raise unknown("net.pool", pool, POOLS)
    backbone: Any = timm.create_model(kind, num_classes=0, global_pool="")
    if weights is not None:
        _load(backbone, str(weights), kind)
    return Embedder(Pooled(backbone, pool == "avg+max"), int(backbone.num_features), dim)


def _load(backbone: nn.Module, path: str, kind: str) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        backbone.load_state_dict(state)
    except FileNotFoundError as error:
        raise BadInputError(
            f"net.weights: there is no file {path}. Save timm's pretrained {kind} there, on a machine with a network: "
            f"torch.save(timm.create_model({kind!r}, pretrained=True, num_classes=0).state_dict(), ...). Scale laptop "
            "needs none."
        ) from error
    except RuntimeError as error:
        raise BadInputError(f"net.weights: {path} does not fit {kind}: {error}") from error
