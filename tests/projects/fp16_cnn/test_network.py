"""Whole networks on the kernels against torch in float64 and against the reference with the same roundings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from common.errors import BadInputError
from projects.fp16_cnn import blocking, chunks, cpu, reference
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.network import Network, compile_network
from projects.fp16_cnn.precision import Precision
from projects.fp16_cnn.program import Fallback, Flatten, Layer, Plan, Program, precisions
from projects.fp16_cnn.shape import LayerShape
from projects.fp16_cnn.steps import cut
from tests.projects.fp16_cnn.nets import Block, Odd, Squeezed, calibrate

ULP = {"float32": 3e-5, "float16": 2.0**-10 + 3e-5, "bfloat16": 2.0**-7 + 3e-5}
"""Relative: sums in two orders differ by fp32 roundings, and their roundings to the storage may be neighbours."""


def lite() -> nn.Module:
    """The pieces of EfficientNet-Lite that matter here: asymmetric `same` padding, ReLU6."""
    return timm.models.efficientnet._gen_efficientnet_lite(
        "tf_efficientnet_lite0", 0.25, 0.25, pad_type="same", num_classes=10
    )


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=10), 32),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25), 32),
    "lite": (lite, 33),
    "odd": (Odd, 19),
    "block": (Block, 8),
    "squeezed": (Squeezed, 12),
}


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[nn.Module, Program, Tensor]:
    make, size = NETS[request.param]
    torch.manual_seed(0)
    model = calibrate(make(), size)
    x = torch.randn(3, 3, size, size)
    return model, import_model(model, x), x


def test_a_fully_connected_layer_is_tuned_for_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def best(shape: LayerShape, precision: Precision) -> Blocking:
        asked.append((shape.kind, shape.batch))
        return blocking.default(shape, precision)

    monkeypatch.setattr(blocking, "best", best)
    model = torchvision.models.resnet18(num_classes=10).eval()
    compile_network(import_model(model, torch.zeros(1, 3, 32, 32)), "f32", 8, tune=True)
    assert set(asked) == {("conv", 1), ("dense", 8)}


def mixed(program: Program) -> Plan:
    names = [layer.name for layer in program.layers]
    return {name: ("f32", "bf16", "f16s", "f16w", "bf16")[i % 5] for i, name in enumerate(names)}


def test_fp32_equals_torch_in_float64(net: tuple[nn.Module, Program, Tensor]) -> None:
    model, program, x = net
    with torch.no_grad():
        expected = model.double()(x.double())
        model.float()
    made = torch.from_numpy(compile_network(program, "f32", 3).run(x)).double()
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("plan", ["f16w", "f16s", "bf16", "mixed"])
def test_each_step_rounds_as_the_reference_does(net: tuple[nn.Module, Program, Tensor], plan: str) -> None:
    """From the network's own inputs of a step, so that a rounding that falls the other way does not spread.

    A step whose input another value had overwritten would fail here too.
    """
    _, program, x = net
    chosen = mixed(program) if plan == "mixed" else plan
    network = compile_network(program, chosen, 3)
    logits = network.run(x)
    for name, made, expected, storage in step_by_step(network, program, chosen, x):
        scale = float(expected.abs().max()) + 1e-30
        error = float(((made - expected).abs() / (expected.abs() + 0.1 * scale)).max())
        assert error < ULP[storage], (name, storage, error)
    reference_logits = reference.run(program, x, quantise=chosen).numpy()
    exact = reference.run(program, x).numpy()
    bound = 1e-4 * np.abs(exact).max() + np.abs(reference_logits - exact).max()
    assert np.abs(logits - reference_logits).max() < bound


def step_by_step(
    network: Network, program: Program, plan: Plan, x: Tensor
) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """For every node and part of the batch: the network's value, the reference's from the same inputs, the storage."""
    chosen = precisions(program, plan)
    for turn in network.one_by_one(x):
        if turn is None or turn.step.node is None:
            continue
        node, images = turn.step.node, len(turn.y.array)
        inputs = [as_torch(buffer) for buffer in turn.reads]
        before = {made.name: made for made in program.nodes}.get(node.inputs[0])
        if isinstance(node, Layer) and isinstance(before, Flatten):  # its vector is in the memory's order
            channels, height, width = program.extent(before.inputs[0])
            seen = inputs[0].reshape(images, height, width, -1)[..., :channels]
            inputs[0] = seen.permute(0, 3, 1, 2).reshape(images, -1, 1, 1)
        expected = reference.compute(node, inputs, chosen.get(node.name))
        yield node.name, as_torch(turn.y), expected, turn.y.layout.storage


def as_torch(buffer: Buffer) -> Tensor:
    return torch.from_numpy(buffer.read()).permute(0, 3, 1, 2).double()


@pytest.mark.parametrize("plan", ["f32", "mixed"])
def test_image_by_image_or_together_wherever_the_border_lies(plan: str) -> None:
    torch.manual_seed(0)
    model, x = calibrate(Odd(), 19), torch.randn(3, 3, 19, 19)
    program = import_model(model, x)
    chosen = mixed(program) if plan == "mixed" else plan
    expected = Network([cut(program, chosen, 3)], 1).run(x)
    for border in chunks.borders(program)[1:]:
        parts = [
            cut(program, chosen, 1, None, slice(border)),
            cut(program, chosen, 3, None, slice(border, None)),
        ]
        for threads in (1, 2):
            made = Network(parts, threads).run(x)
            np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_convolutions_run_image_by_image_and_heavy_dense_layers_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "caches", lambda: (1 << 20, 32 << 20))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 32 * 32, 64)
    )
    program = import_model(model, torch.empty(1, 3, 32, 32))
    assert program.nodes[chunks.together_from(program, "f32", 8)].name == "2.flatten"
    assert chunks.together_from(program, "f32", 1) == 0


def test_threads_and_repetition_change_no_bit(net: tuple[nn.Module, Program, Tensor]) -> None:
    _, program, x = net
    for plan in ("f32", mixed(program)):
        network = compile_network(program, plan, 3)
        first = network.run(x)
        network.run(-x)
        np.testing.assert_array_equal(network.run(x), first)
        np.testing.assert_array_equal(compile_network(program, plan, 3, threads=2).run(x), first)


def test_the_batch_may_change_after_the_import(net: tuple[nn.Module, Program, Tensor]) -> None:
    _, program, x = net
    together = compile_network(program, "f32", 3).run(x)
    alone = compile_network(program, "f32", 1)
    for image, logits in zip(x, together, strict=True):
        np.testing.assert_allclose(
            alone.run(image[None])[0], logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max()
        )


def test_borders_stay_zero(net: tuple[nn.Module, Program, Tensor]) -> None:
    _, program, x = net
    network = compile_network(program, mixed(program), 3)
    network.run(x)
    for buffer in network.buffers.values():
        layout = buffer.layout
        inside = np.zeros(layout.shape[:3], bool)
        top, _, left, _ = layout.border
        inside[:, top : top + layout.height, left : left + layout.width] = True
        assert not buffer.array[~inside].any()


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.odd = nn.GELU()
        self.middle = nn.Conv2d(10, 12, 3, padding=1)
        self.head = nn.Linear(12 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.odd(self.stem(x)).chunk(2, dim=1)
        return torch.log_softmax(self.head(torch.tanh(self.middle(first + second)).flatten(1)), 1)


@pytest.mark.parametrize("plan", ["f32", "bf16"])
def test_fallbacks_run_in_torch_and_the_rest_in_kernels(plan: str) -> None:
    torch.manual_seed(0)
    model, x = Gelu().eval(), torch.randn(2, 3, 6, 6)
    program = import_model(model, x, fallback=True)
    assert {node.operator for node in program.nodes if isinstance(node, Fallback)} == {
        "gelu",
        "chunk",
        "tanh",
        "log_softmax",
    }
    for threads in (1, 2):
        made = compile_network(program, plan, 2, threads).run(x)
        with torch.no_grad():
            expected = model(x).numpy()
        np.testing.assert_allclose(made, expected, rtol=0.05 if plan == "bf16" else 1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def squeezed() -> Program:
    torch.manual_seed(0)
    return import_model(calibrate(Squeezed(), 12), torch.empty(2, 3, 12, 12))


def test_other_sizes_than_compiled_for(squeezed: Program) -> None:
    network = compile_network(squeezed, "f32", 2)
    with pytest.raises(
        BadInputError, match=re.escape("[2, 3, 16, 16]: this network was compiled for [2, 3, 12, 12]")
    ):
        network.run(np.zeros((2, 3, 16, 16), np.float32))
    with pytest.raises(BadInputError, match="compile for the new batch"):
        network.run(np.zeros((1, 3, 12, 12), np.float32))
    with pytest.raises(BadInputError, match="images of float64"):
        network.run(np.zeros((2, 3, 12, 12)))
    with pytest.raises(BadInputError, match="at least 1 image"):
        compile_network(squeezed, "f32", 0)
    with pytest.raises(BadInputError, match="unknown layer"):
        compile_network(squeezed, {"no": "bf16"}, 1)


def test_overflow_and_nan_name_their_layer() -> None:
    torch.manual_seed(0)
    model = calibrate(Squeezed(), 12)
    with torch.no_grad():
        model.get_parameter("widen.weight").mul_(1e6)
    x = torch.randn(2, 3, 12, 12)
    program = import_model(model, x)
    assert np.isfinite(compile_network(program, "bf16", 2).run(x)).all()
    network = compile_network(program, "f16s", 2)
    with pytest.raises(BadInputError, match=r"widen: .* infinite .*float16.*65504"):
        network.run(x)
    with pytest.raises(BadInputError, match=r"widen: "):
        network.check(x)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(BadInputError, match="the images hold NaN"):
        network.run(x)
    with torch.no_grad():
        model.get_parameter("gate.bias")[3] = torch.nan
    with pytest.raises(BadInputError, match=r"gate: .* NaN of .*look at its weights"):
        compile_network(import_model(model, x), "f32", 2).check(torch.zeros(2, 3, 12, 12))


def test_time_and_memory_are_counted(squeezed: Program) -> None:
    network = compile_network(squeezed, "f16s", 2)
    assert network.time(3) > 0
    assert 0 < network.bytes < 1 << 20
    assert network.compile_seconds > 0


def test_all_precisions_run(squeezed: Program) -> None:
    """Fp16 sums too: emulated, and native where this CPU has them."""
    x = torch.randn(2, 3, 12, 12)
    exact = reference.run(squeezed, x).numpy()
    for name in cpu.available():
        made = compile_network(squeezed, name, 2).run(x)
        np.testing.assert_allclose(made, exact, atol=0.03 * np.abs(exact).max())
