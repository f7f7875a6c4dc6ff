"""Programs against the torch models that they were imported from, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from common.errors import BadInputError
from projects.fp16_cnn import reference
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.network import compile_network
from projects.fp16_cnn.program import Activate, Add, Fallback, Flatten, Layer, Pool, Scale
from tests.projects.fp16_cnn.nets import Block, Odd, calibrate


def vgg_like() -> nn.Module:
    vgg = torchvision.models.vgg
    features = vgg.make_layers([8, "M", 16, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 32),
    "resnet50": (lambda: torchvision.models.resnet50(num_classes=10, width_per_group=16), 32),
    "vgg": (vgg_like, 24),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25), 32),
    "mobilenet_v3_large": (
        lambda: torchvision.models.mobilenet_v3_large(num_classes=10, width_mult=0.25),
        32,
    ),
    "lite_same": (
        lambda: timm.create_model("tf_efficientnet_lite0", num_classes=10),
        33,
    ),
    "efficientnet": (
        lambda: timm.create_model("efficientnet_b0", num_classes=10),
        32,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_a_program_equals_its_model(name: str) -> None:
    make, size = NETS[name]
    torch.manual_seed(0)
    model = calibrate(make(), size).double()
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    program = import_model(model, x)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(
        reference.run(program, x), expected, rtol=1e-9, atol=1e-9 * float(expected.std())
    )
    assert all(layer.shape.batch == 2 for layer in program.layers)


def test_layers_carry_module_paths_and_fuse_what_follows() -> None:
    program = import_model(torchvision.models.resnet18(), torch.empty(1, 3, 64, 64))
    assert [type(node).__name__ for node in program.nodes].count("Layer") == 21 == len(program.layers)
    assert not any(isinstance(node, Add | Activate) for node in program.nodes)
    by_name = {layer.name: layer for layer in program.layers}
    assert {"conv1", "layer1.0.conv2", "layer4.0.downsample.0", "fc"} <= set(by_name)
    assert by_name["layer1.0.conv2"].residual
    assert by_name["layer1.0.conv2"].activation == "relu"
    assert by_name["conv1"].shape.padding == (3, 3, 3, 3)
    assert by_name["fc"].shape.kind == "dense"


def test_kinds_of_layers() -> None:
    program = import_model(torchvision.models.mobilenet_v3_large(width_mult=0.25), torch.empty(1, 3, 64, 64))
    kinds = {layer.name: layer.shape.kind for layer in program.layers}
    assert kinds["features.1.block.0.0"] == "depthwise"
    assert kinds["features.4.block.2.fc1"] == "dense"
    assert kinds["features.0.0"] == "conv"
    assert sum(isinstance(node, Scale) for node in program.nodes) == 8


def test_odd_constructs() -> None:
    """What torchvision's networks do not have: see `Odd`."""
    torch.manual_seed(0)
    model = calibrate(Odd(), 19).double()
    x = torch.randn(3, 3, 19, 19, dtype=torch.float64)
    program = import_model(model, x)
    with torch.no_grad():
        torch.testing.assert_close(reference.run(program, x), model(x), rtol=1e-10, atol=1e-10)
    kinds = {type(node) for node in program.nodes}
    assert {Layer, Pool, Add, Activate, Flatten} <= kinds
    assert program.layers[0].shape.padding == (0, 1, 1, 2)


def test_a_value_read_twice_is_not_fused_away() -> None:
    torch.manual_seed(0)
    model = calibrate(Block(), 8).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(reference.run(import_model(model, x), x), model(x), rtol=1e-10, atol=1e-10)


def test_import_leaves_the_model_as_it_was() -> None:
    model = calibrate(Block(), 8).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    import_model(model, torch.empty(1, 3, 8, 8))
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.odd = nn.GELU()
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.odd(self.stem(x)).chunk(2, dim=1)
        return torch.softmax(self.head(first + second).mean((2, 3)), 1)


def test_an_unsupported_operator_is_named_and_falls_back() -> None:
    torch.manual_seed(0)
    model = Gelu().double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(BadInputError, match=r"odd: no kernel for gelu.*fallback=True"):
        import_model(model, x)
    program = import_model(model, x, fallback=True)
    operators = {node.operator for node in program.nodes if isinstance(node, Fallback)}
    assert operators == {"gelu", "chunk", "softmax"}
    with torch.no_grad():
        torch.testing.assert_close(reference.run(program, x), model(x), rtol=1e-10, atol=1e-10)
        more = torch.randn(5, 3, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(reference.run(program, more), model(more), rtol=1e-10, atol=1e-10)


class DependsOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_control_flow_on_values_is_refused() -> None:
    with pytest.raises(BadInputError, match="DependsOnValues cannot be imported"):
        import_model(DependsOnValues(), torch.empty(1, 3, 8, 8))


def test_an_example_must_be_images() -> None:
    with pytest.raises(BadInputError, match=r"\[N, channels, height, width\]"):
        import_model(Block(), torch.empty(3, 8, 8))


class Doubled(nn.Module):
    """A layer's value added to itself, and an image whose parts are put side by side as a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.again(y + y)
        parts = self.mix(z.permute(0, 2, 3, 1).reshape(-1, 8)).reshape(1, -1, 8)
        return self.head(parts.mean(1))


def test_a_layer_added_to_itself_and_parts_as_a_batch() -> None:
    torch.manual_seed(0)
    model = Doubled().double().eval()
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    with pytest.raises(BadInputError, match="no kernel for permute"):
        import_model(model, x)
    program = import_model(model, x, fallback=True)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(reference.run(program, x), expected, rtol=1e-10, atol=1e-10)
    network = compile_network(import_model(model.float(), x.float(), fallback=True), "f32", 1, tune=False)
    torch.testing.assert_close(
        torch.from_numpy(network.run(x.float().numpy())), expected.float(), rtol=1e-4, atol=1e-5
    )


def test_attention_falls_back() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.attention, self.head = nn.Conv2d(3, 8, 4, 4), attention, nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.stem(x).flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))

    model = Attends().double().eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(
        reference.run(import_model(model, x, fallback=True), x), expected, rtol=1e-10, atol=1e-10
    )
