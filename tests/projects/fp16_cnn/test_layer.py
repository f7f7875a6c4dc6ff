"""Every kernel against torch in float64, at shapes that no tile divides."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import BadInputError
from projects.fp16_cnn.blocking import Blocking
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.ir import conv
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.shape import LayerShape
from tests.projects.fp16_cnn.convolutions import ACTIVATION, Case, check

FAST = tuple(
    name for name in PRECISIONS if name != "f16"
)  # on this CPU f16 may be legalised: seconds of compilation
few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def shapes(draw: st.DrawFn) -> LayerShape:
    sides = st.integers(0, 2)
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = (draw(sides), draw(sides), draw(sides), draw(sides))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    return LayerShape(
        "conv",
        draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 21)),
        groups * draw(st.integers(1, 21)),
        draw(st.integers(4, 13)),
        draw(st.integers(4, 33)),
        kernel,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding,
        groups,
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    blocking = st.builds(
        Blocking, st.integers(1, 3), st.sampled_from([1, 4, 7, 9]), st.sampled_from(["panels", "pixels"])
    )
    return Case(
        draw(shapes()),
        draw(st.sampled_from(sorted(ACTIVATION))),
        draw(st.booleans()),
        draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0)])),
        draw(st.sampled_from([None, "float32", "float16", "bfloat16"])),
        draw(st.none() | blocking),
        draw(st.sampled_from([1, 1, 2])),
        draw(st.sampled_from([0, 1])),
    )


@few
@given(cases(), st.sampled_from(FAST), st.integers(0, 99))
def test_convolutions_equal_torch_in_float64(case: Case, name: str, seed: int) -> None:
    check(case, name, seed)


@few
@given(st.data(), st.sampled_from(FAST))
def test_depthwise_convolutions_equal_torch_in_float64(data: st.DataObject, name: str) -> None:
    case = data.draw(cases())
    shape, channels = case.shape, data.draw(st.integers(1, 70))
    shape = LayerShape(
        "depthwise", shape.batch, channels, channels, shape.height, shape.width, shape.kernel, shape.stride,
        shape.padding, channels,
    )  # fmt: skip
    check(
        Case(shape, case.activation, case.residual, case.border, case.storage, case.blocking, case.threads),
        name,
    )


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(
    "shape",
    [
        LayerShape("conv", 2, 3, 64, 18, 31, (7, 7), (2, 2), (3, 3, 3, 3)),  # an image: copied compactly
        LayerShape("conv", 1, 1, 130, 9, 12, (3, 4), (1, 1), (1, 0, 2, 1)),
        LayerShape(
            "conv", 1, 48, 32, 7, 7, (3, 3), (1, 1), (1, 1, 1, 1)
        ),  # whole rows: padded columns skipped
        LayerShape("conv", 2, 40, 32, 9, 14, (5, 5), (2, 2), (2, 2, 1, 4)),
        LayerShape("conv", 1, 16, 16, 2, 2, (3, 3), (1, 1), (2, 2, 2, 2)),  # some outputs see padding only
        LayerShape(
            "conv", 1, 3, 20, 5, 20, (3, 3), (1, 1), (3, 3, 3, 3)
        ),  # whole rows of outputs see padding only
        LayerShape("conv", 1, 16, 32, 5, 6, (2, 2), (1, 1), (3, 3, 3, 3)),
        LayerShape("conv", 1, 24, 256, 3, 8),  # panels of weights fetched ahead
    ],
)
def test_special_ways_through_memory_equal_torch(shape: LayerShape, name: str) -> None:
    check(Case(shape, "relu6", residual=True, border=(1, 1, 1, 1)), name)
    check(Case(shape, blocking=Blocking(2, 14, "pixels"), threads=2, spare=1), name)


@pytest.mark.parametrize("border", [(0, 0, 0, 0), (1, 0, 0, 1)])
def test_a_large_input_is_passed_over_in_chunks(
    border: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "CHUNK", 4096)
    shape = LayerShape("conv", 2, 24, 80, 12, 14, (1, 1))
    storage = PRECISIONS["f32"].activations
    source, target = Layout(2, 12, 14, 24, storage=storage), Layout(2, 12, 14, 80, border, storage)
    made = conv.Convolution(shape, PRECISIONS["f32"], source, target, None, "none", Blocking(1, 7))
    assert made.chunks > 1 and made.pixels[0].count % made.chunks == 0
    check(Case(shape, "relu", border=border, blocking=Blocking(1, 7), threads=2), "f32")


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(
    ("batch", "inputs", "outputs"), [(1, 700, 130), (1, 33, 17), (8, 64, 1000), (3, 129, 80)]
)
def test_fully_connected_layers_equal_torch(name: str, batch: int, inputs: int, outputs: int) -> None:
    check(Case(LayerShape("dense", batch, inputs, outputs), "relu"), name)


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape("conv", 1, 24, 48, 5, 6, (3, 3), (1, 1), (1, 1, 1, 1)),
        LayerShape("conv", 1, 130, 16, 3, 3),
        LayerShape("depthwise", 1, 40, 40, 6, 6, (3, 3), (2, 2), (1, 1, 1, 1), 40),
    ],
)
def test_native_fp16_equals_torch_where_llvm_has_to_replace_its_instructions(shape: LayerShape) -> None:
    check(Case(shape, "relu", border=(1, 1, 1, 1), blocking=Blocking(1, 3)), "f16")


@pytest.mark.parametrize(
    ("name", "cpu", "instruction"),
    [
        ("f32", "sapphirerapids", r"vfmadd231ps\s+.*\{1to16\}"),
        ("f16", "sapphirerapids", r"vfmadd231ph\s+.*\{1to32\}"),
        ("f16w", "haswell", r"vcvtph2ps"),
    ],
)
def test_the_instructions_of_each_arithmetic_are_emitted(name: str, cpu: str, instruction: str) -> None:
    shape = LayerShape("conv", 1, 64, 64, 7, 7, (3, 3), (1, 1), (1, 1, 1, 1))
    storage = PRECISIONS[name].activations
    source, target = Layout(1, 7, 7, 64, (1, 1, 1, 1), storage), Layout(1, 7, 7, 64, storage=storage)
    weight = np.zeros((64, 64, 3, 3), np.float32)
    layer = build(shape, name, weight, None, source=source, target=target, blocking=Blocking(1, 7))
    assert len(re.findall(instruction, layer.assembly(cpu))) >= 7


def test_sums_in_fp16_stop_at_a_power_of_two_unless_flushed() -> None:
    # 4608 times 0.5: an fp16 sum stops at 1024, where a half is less than half a unit in the last place
    shape = LayerShape("conv", 1, 4608, 16)
    sums = {}
    for name in ("f16e", "f16e256", "f16e64", "f16s"):
        x, y = Buffer(Layout(1, 1, 1, 4608, storage="float16")), Buffer(Layout(1, 1, 1, 16))
        x.write(np.full((1, 1, 1, 4608), 0.5, np.float32))
        build(shape, name, np.ones((16, 4608, 1, 1), np.float32), None, source=x.layout, target=y.layout)(
            x, y
        )
        sums[name] = float(y.read()[0, 0, 0, 0])
    assert sums == {"f16e": 1024.0, "f16e256": 2304.0, "f16e64": 2304.0, "f16s": 2304.0}


def test_nan_and_infinity_pass_through() -> None:
    layout = Layout(1, 1, 4, 16, storage="float16")
    x, y = Buffer(layout), Buffer(layout)
    values = np.zeros((1, 1, 4, 16), np.float32)
    values[0, 0, :, 0] = [np.nan, 60000.0, -60000.0, 1.0]
    x.write(values)
    weight = np.eye(16, dtype=np.float32)[:, :, None, None] * 2
    build(
        LayerShape("conv", 1, 16, 16, 1, 4),
        "f16s",
        weight,
        None,
        activation="relu",
        source=layout,
        target=layout,
    )(x, y)
    assert np.isnan(y.read()[0, 0, 0, 0])
    assert y.read()[0, 0, 1:, 0].tolist() == [np.inf, 0.0, 2.0]


@pytest.mark.parametrize("ablate", ["noconvert", "l1"])
def test_ablated_kernels_run_and_do_less(ablate: str) -> None:
    shape = LayerShape("conv", 1, 32, 32, 7, 7)
    layout = Layout(1, 7, 7, 32)
    x, y = Buffer(layout), Buffer(layout)
    weight = np.full((32, 32, 1, 1), 0.1, np.float32)
    layer = build(shape, "f16w", weight, None, source=layout, target=layout, ablate=ablate)  # type: ignore[arg-type]
    layer(x, y)
    assert np.isfinite(y.read()).all()
    if ablate == "noconvert":
        assert "fpext <16 x half>" not in layer.phases[0].ir


SHAPE = LayerShape("conv", 1, 16, 16, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1))
SOURCE, TARGET = Layout(1, 8, 8, 16, (1, 1, 1, 1)), Layout(1, 8, 8, 16)
WEIGHT = np.zeros((16, 16, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": Layout(1, 8, 8, 16)}, "border"),
        ({"source": Layout(1, 8, 8, 16, (1, 1, 1, 1), "float16")}, "stored as float32"),
        ({"target": Layout(1, 8, 7, 16)}, "output"),
        ({"weight": np.zeros((16, 16, 1, 1), np.float32)}, "weight"),
        ({"bias": np.zeros(3, np.float32)}, "bias"),
        ({"activation": "rleu"}, "Did you mean 'relu'"),
        ({"precision": "f61w"}, "f16w"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_pointer_is_used(changed: dict, words: str) -> None:
    given = {"weight": WEIGHT, "bias": None, "source": SOURCE, "target": TARGET, "precision": "f32"} | changed
    with pytest.raises(BadInputError, match=re.escape(words)):
        build(SHAPE, given.pop("precision"), given.pop("weight"), given.pop("bias"), **given)


def test_buffers_of_another_layout_and_results_over_inputs_are_refused() -> None:
    layer = build(SHAPE, "f32", WEIGHT, None, source=SOURCE, target=TARGET)
    x, y = Buffer(SOURCE), Buffer(TARGET)
    with pytest.raises(BadInputError, match="input has the layout"):
        layer(y, y)
    with pytest.raises(BadInputError, match="second input"):
        layer(x, y, y)
    same = build(
        LayerShape("conv", 1, 16, 16, 8, 8), "f32", WEIGHT[:, :, :1, :1], None, source=TARGET, target=TARGET
    )
    with pytest.raises(BadInputError, match="write over"):
        same(y, y)
