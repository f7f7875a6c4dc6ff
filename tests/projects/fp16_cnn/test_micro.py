"""The microbenchmarks do what they claim to time: the instructions are there, the results are right."""

from __future__ import annotations

import re

import numpy as np
import pytest

from projects.fp16_cnn import cpu, micro
from projects.fp16_cnn.compiler import assembly, compile_function
from projects.fp16_cnn.packing import DTYPES, aligned, from_storage, stored
from projects.fp16_cnn.precision import PRECISIONS, Storage

SERVER = "sapphirerapids"
STORAGES: tuple[Storage, ...] = ("float32", "float16", "bfloat16")
needs_f16c = pytest.mark.skipif(not cpu.has("f16c"), reason="the CPU has no F16C")


def inner_loop(text: str, instruction: str) -> str:
    """The code from a label to the first jump behind it that has most of an instruction."""
    blocks = re.split(r"^[.\w]+:.*$", text, flags=re.M)
    loops = [re.split(r"\tj[a-z]+\t", block)[0] for block in blocks]
    return max(loops, key=lambda loop: times(loop, instruction))


def times(text: str, instruction: str) -> int:
    """Occurrences of an instruction."""
    return len(re.findall(rf"\t{instruction}\t", text))


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("f32", r"vfmadd\d+ps"),
        pytest.param(
            "bf16", "vdpbf16ps", marks=pytest.mark.skipif(not cpu.has("avx512bf16"), reason="no bf16")
        ),
        ("f16", r"vfmadd\d+ph"),
    ],
)
def test_a_peak_is_nothing_but_its_instruction(name: str, instruction: str) -> None:
    loop = inner_loop(assembly(micro.peak_ir(PRECISIONS[name]), SERVER), instruction)
    assert times(loop, instruction) == micro.chains()
    assert "(%" not in loop  # no operand comes from memory


@pytest.mark.parametrize("count", [1, 3])
def test_conversions_and_multiplications_are_not_optimised_away(count: int) -> None:
    text = assembly(micro.mixed_ir("float16", count), SERVER)
    loop = inner_loop(text, "vcvtph2psx?")
    assert times(loop, "vcvtph2psx?") == micro.UNROLLED
    assert times(loop, r"vfmadd\d+ps") == count * micro.UNROLLED
    copied = assembly(micro.copy_ir("float16", "float16", count), SERVER)
    assert times(inner_loop(copied, "vcvtps2phx?"), "vcvtps2phx?") == micro.UNROLLED


@needs_f16c
@pytest.mark.parametrize("storage", STORAGES)
def test_reading_adds_up_what_lies_there(storage: Storage) -> None:
    numbers = np.random.default_rng(0).random(4 * micro.STEP, np.float32)
    memory, out = stored(numbers, storage), aligned((16,), np.float32)
    compile_function(micro.read_ir(storage), "kernel", 2, 2).call(memory.ctypes.data, out.ctypes.data, 4, 1)
    rows = from_storage(memory, storage).reshape(4, micro.UNROLLED, 16).astype(np.float64)
    assert out == pytest.approx(rows.sum(0)[-1], rel=1e-6)  # the last of the sums is the one that stays


@needs_f16c
@pytest.mark.parametrize(("source", "target"), [("float32", "float16"), ("float16", "float32")])
def test_copying_converts(source: Storage, target: Storage) -> None:
    numbers = np.random.default_rng(1).standard_normal(2 * micro.STEP, np.float32)
    memory, out = stored(numbers, source), aligned(numbers.shape, DTYPES[target])
    compile_function(micro.copy_ir(source, target), "kernel", 2, 2).call(
        memory.ctypes.data, out.ctypes.data, 2, 1
    )
    assert np.array_equal(out, stored(from_storage(memory, source), target))


def test_short_sums_multiply_as_often_as_they_say() -> None:
    numbers = np.random.default_rng(2).random(micro.STEP, np.float32)
    memory, out = stored(numbers, "float32"), aligned(numbers.shape, np.float32)
    kernel = compile_function(micro.copy_ir("float32", "float32", 3), "kernel", 2, 2).call
    kernel(memory.ctypes.data, out.ctypes.data, 1, 1)
    assert out == pytest.approx(3 * numbers.astype(np.float64) ** 2, rel=1e-6)


def test_strided_reads_visit_every_channel_of_a_block_once() -> None:
    channels = 64
    numbers = np.random.default_rng(3).random((micro.PIXELS, channels // 16, 16), np.float32)
    memory, out = stored(numbers, "float32"), aligned((16,), np.float32)
    kernel = compile_function(micro.strided_ir(channels), "kernel", 2, 2).call
    kernel(memory.ctypes.data, out.ctypes.data, 1, 1)
    last = numbers[micro.UNROLLED - 1 :: micro.UNROLLED].astype(np.float64).sum((0, 1))
    assert out == pytest.approx(last, rel=1e-5)


def test_flops_of_a_peak() -> None:
    turns, sums = 7, micro.chains()
    assert micro.peak_flops(PRECISIONS["f32"], turns) == 2 * 16 * sums * turns
    assert micro.peak_flops(PRECISIONS["bf16"], turns) == 2 * 32 * sums * turns
    assert micro.peak_flops(PRECISIONS["f16"], turns) == 2 * 32 * sums * turns
