"""Two small networks in torchvision's style, made of its own blocks, for grey images of 24 x 24."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Conv2dNormActivation

from common.errors import unknown

INVERTED = [[1, 16, 1, 1], [4, 24, 2, 1], [4, 40, 2, 2], [4, 80, 2, 2]]
"""MobileNetV2's settings: expansion, channels, blocks, stride of the first. Its head has 1,280 channels."""


class SmallResNet(nn.Module):
    """Three basic blocks and a bottleneck, from 16 to 256 channels: its longest sum has 2,304 terms."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = Conv2dNormActivation(1, 16, 3)
        self.blocks = nn.Sequential(
            BasicBlock(16, 32, 2, _shortcut(16, 32)),
            BasicBlock(32, 64, 2, _shortcut(32, 64)),
            BasicBlock(64, 256, 2, _shortcut(64, 256)),
            Bottleneck(256, 64),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(256, classes)

    def forward(self, x: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))


def _shortcut(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))


def small_mobilenet(classes: int) -> nn.Module:
    """torchvision's MobileNetV2 with fewer blocks and a grey stem: inverted residuals, ReLU6, depthwise layers."""
    net = MobileNetV2(classes, inverted_residual_setting=INVERTED, dropout=0.0)
    net.features[0] = Conv2dNormActivation(1, 32, 3, stride=2, activation_layer=nn.ReLU6)
    return net


NETS: Mapping[str, Callable[[int], nn.Module]] = {
    "small_resnet": SmallResNet,
    "small_mobilenet": small_mobilenet,
}


def build(name: str, classes: int) -> nn.Module:
    """A network with random weights, drawn from torch's global generator.

    Raises:
        BadInputError: there is none of that name.
    """
    if name not in NETS:
        raise unknown("net", name, NETS)
    return NETS[name](classes)
