"""Running layers: threads, bound calls, compilation."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from common.errors import BadInputError
from projects.fp16_cnn import compiler
from projects.fp16_cnn.buffers import Buffer, Layout
from projects.fp16_cnn.layer import build
from projects.fp16_cnn.shape import LayerShape

SHAPE = LayerShape("conv", 2, 40, 72, 9, 11, (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize("name", ["f32", "f16s", "bf16"])
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    storage = {"f32": "float32", "f16s": "float16", "bf16": "bfloat16"}[name]
    source = Layout(2, 9, 11, 40, (1, 1, 1, 1), storage)  # type: ignore[arg-type]
    target = Layout(2, 9, 11, 72, storage=storage)  # type: ignore[arg-type]
    draws = np.random.default_rng(0)
    weight = draws.standard_normal((72, 40, 3, 3)).astype(np.float32)
    x = Buffer(source)
    x.write(draws.standard_normal((2, 9, 11, 40)).astype(np.float32))
    results = []
    for threads in (1, 2, 3):
        y = Buffer(target)
        layer = build(SHAPE, name, weight, None, source=source, target=target, threads=threads)
        for _ in range(3):
            layer(x, y)
        results.append(y.array.tobytes())
    assert results[0] == results[1] == results[2]


def test_a_bound_call_keeps_its_buffers() -> None:
    layout = Layout(1, 1, 1, 16)
    layer = build(
        LayerShape("conv", 1, 16, 16), "f32", np.zeros((16, 16, 1, 1), np.float32), None,
        source=layout, target=layout,
    )  # fmt: skip
    call = layer.bind(Buffer(layout), Buffer(layout))
    owners = [weakref.ref(held) for held in call.held if held is not None]
    del layer
    gc.collect()
    assert all(owner() is not None for owner in owners)
    call()


def test_a_kernel_is_compiled_once_and_keeps_its_time() -> None:
    source, target = Layout(2, 9, 11, 40, (1, 1, 1, 1)), Layout(2, 9, 11, 72)
    weight = np.zeros((72, 40, 3, 3), np.float32)
    first, second = (build(SHAPE, "f32", weight, None, source=source, target=target) for _ in range(2))
    assert first.compiled == second.compiled
    assert first.compile_seconds == second.compile_seconds > 0


def test_wrong_ir_is_an_error_not_a_crash() -> None:
    with pytest.raises(RuntimeError, match="use of undefined value"):
        compiler.compile_function(
            "define void @kernel(ptr %x) {\n store i32 %y, ptr %x\n ret void\n}", "kernel", 1
        )


def test_a_library_without_the_replacements_is_an_error_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.llvm, "address_of_symbol", lambda name: None)
    monkeypatch.setattr(compiler.cpu, "has", lambda *names: False)
    ir = "define void @kernel(ptr %x) {\n %y = load <2 x half>, ptr %x\n ret void\n}"
    with pytest.raises(BadInputError, match="use f32 or bf16"):
        compiler.compile_function(ir, "kernel", 1)
