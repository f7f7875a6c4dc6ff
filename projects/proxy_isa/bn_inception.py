"""BN-Inception, the backbone of most published figures of metric learning; timm has none.

The network of Ioffe and Szegedy 2015 (arXiv 1502.03167, figure 5) as it was trained with Caffe: convolutions keep their
bias beside batch norm, and the last block pools by maxima. Layers have the names of the published weights in
torch (``bn_inception-52deb4733.pth`` and ``bn_inception-239d2248.pth``), so that such a file loads as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from projects.proxy_isa.images import MEAN, STD

FEATURES = 1024
CAFFE = (104.0, 117.0, 128.0)  # blue, green, red of 255
LAST = "last_linear."  # the classes of ImageNet, not used here


class Block(NamedTuple):
    """Channels of an Inception block: 1 x 1, 3 x 3 and double 3 x 3 with what reduces before them, behind the pool.

    Without 1 x 1 the block halves the sides, and its pool (of maxima) passes its input on.
    """

    one: int
    reduce: int
    three: int
    double_reduce: int
    double: int
    projected: int
    maximum: bool = False

    @property
    def stride(self) -> int:
        """Of the last convolution of each branch."""
        return 1 if self.one else 2


BLOCKS = {
    "3a": Block(64, 64, 64, 64, 96, 32),
    "3b": Block(64, 64, 96, 64, 96, 64),
    "3c": Block(0, 128, 160, 64, 96, 0),
    "4a": Block(224, 64, 96, 96, 128, 128),
    "4b": Block(192, 96, 128, 96, 128, 128),
    "4c": Block(160, 128, 160, 128, 160, 128),
    "4d": Block(96, 128, 192, 160, 192, 128),
    "4e": Block(0, 128, 192, 192, 256, 0),
    "5a": Block(352, 192, 320, 160, 224, 128),
    "5b": Block(352, 192, 320, 192, 224, 128, maximum=True),
}


class BNInception(nn.Module):
    """Images, normalised as for timm's backbones, to the last feature maps (1,024 channels, a 32nd of the side).

    It turns them into what its weights were trained on: blue, green, red of 0 to 255, less a mean colour.
    """

    num_features = FEATURES
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", 3, 64, 7, 2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        channels = 192
        for name, block in BLOCKS.items():
            channels = self._add_block(f"inception_{name}", block, channels)
        assert channels == FEATURES
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("scale", 255 * std[:, None, None], persistent=False)
        self.register_buffer(
            "shift", (255 * mean - torch.tensor(CAFFE).flip(0))[:, None, None], persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1024 i j"]:
        """The last feature maps."""
        x = (images * self.scale + self.shift).flip(1)
        x = _halved(self._layer("conv1_7x7_s2", x))
        x = _halved(self._layer("conv2_3x3", self._layer("conv2_3x3_reduce", x)))
        for name, block in BLOCKS.items():
            x = self._block(f"inception_{name}", block, x)
        return x

    def _add(self, name: str, before: int, after: int, side: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(before, after, side, stride, side // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(after))

    def _add_block(self, name: str, block: Block, before: int) -> int:
        """Add a block's layers and return its number of channels."""
        if block.one:
            self._add(f"{name}_1x1", before, block.one, 1)
        self._add(f"{name}_3x3_reduce", before, block.reduce, 1)
        self._add(f"{name}_3x3", block.reduce, block.three, 3, block.stride)
        self._add(f"{name}_double_3x3_reduce", before, block.double_reduce, 1)
        self._add(f"{name}_double_3x3_1", block.double_reduce, block.double, 3)
        self._add(f"{name}_double_3x3_2", block.double, block.double, 3, block.stride)
        if block.projected:
            self._add(f"{name}_pool_proj", before, block.projected, 1)
        return block.one + block.three + block.double + (block.projected or before)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)))

    def _block(self, name: str, block: Block, x: Tensor) -> Tensor:
        def through(y: Tensor, *names: str) -> Tensor:
            for each in names:
                y = self._layer(f"{name}_{each}", y)
            return y

        parts = [through(x, "1x1")] if block.one else []
        parts.append(through(x, "3x3_reduce", "3x3"))
        parts.append(through(x, "double_3x3_reduce", "double_3x3_1", "double_3x3_2"))
        if block.projected:
            pool = functional.max_pool2d if block.maximum else functional.avg_pool2d
            parts.append(through(pool(x, 3, 1, 1), "pool_proj"))
        else:
            parts.append(_halved(x))
        return torch.cat(parts, 1)


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published file's weights without those of the classes; older files hold batch norm's numbers as rows."""
    return {
        name: value.reshape(-1) if "_bn." in name and value.ndim else value
        for name, value in state.items()
        if not name.startswith(LAST)
    }


def _halved(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, 2, ceil_mode=True)
