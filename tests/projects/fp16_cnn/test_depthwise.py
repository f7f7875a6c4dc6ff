"""What the core takes for a depthwise layer."""

from __future__ import annotations

import pytest

from projects.fp16_cnn import cpu, depthwise
from projects.fp16_cnn.precision import PRECISIONS
from projects.fp16_cnn.shape import LayerShape
from tests.projects.fp16_cnn.machines import MACHINE

needs_f16c = pytest.mark.skipif(not cpu.has("f16c", "avx512f"), reason="the CPU has no F16C or AVX-512")


def layer(side: int, kernel: int = 3, stride: int = 1) -> LayerShape:
    """`side` x `side` outputs of 16 channels."""
    size = (side - 1) * stride + kernel
    return LayerShape("depthwise", 1, 16, 16, size, size, (kernel, kernel), (stride, stride), groups=16)


@needs_f16c
@pytest.mark.parametrize(
    ("shape", "name", "expected"),
    [
        (layer(14), "f32", 14 * 14 * 16 / 5e9),
        (layer(14), "bf16", 14 * 14 * 16 / 4e9),
        (layer(14, stride=2), "f16s", 14 * 14 * 16 / 2.5e9),
        (layer(14, 5), "f32", 14 * 14 * 16 / 2e9),
        (layer(14, 7), "f32", 14 * 14 * 16 / 2e9 * 49 / 25),  # by its products
        (layer(7), "f32", 8 * 7 * 16 / 5e9),  # two rows a tile: one is computed twice
        (layer(15), "f32", 16 * 15 * 16 / 5e9),  # three tiles of five columns
    ],
)
def test_by_outputs_products_and_overlap(shape: LayerShape, name: str, expected: float) -> None:
    assert depthwise.seconds(MACHINE.depthwise, shape, PRECISIONS[name]) == pytest.approx(expected)


@needs_f16c
def test_a_call_of_many_turns_computes_what_one_computes_and_takes_longer() -> None:
    """The walk over the tiles begins anew: no output is missed, none is written outside."""
    shape = depthwise._shape(3, 1)
    for name in ("f32", "f16s"):
        once, often = depthwise._call(shape, name, 1), depthwise._call(shape, name, 3)
        results = []
        for call in (once, often):
            _, x, y = call.__defaults__[0]  # type: ignore[attr-defined]
            x.interior[...] = x.interior.dtype.type(1.0)
            call()
            results.append(y.interior.astype("float32"))
        assert (results[0] == results[1]).all()
        assert results[0].min() == pytest.approx(0.9, rel=2e-3)
    found = depthwise.rates(["f32"], 1, 1e-4)
    assert set(found) == {"k3 s1", "k3 s2", "k5 s1", "k5 s2"}
    assert found["k3 s1"]["f32"] > found["k5 s1"]["f32"] > 0
    assert 0 < depthwise.call_seconds(1, 1e-4) < 1e-3
