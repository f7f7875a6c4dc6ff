"""The innermost step of a convolution in each arithmetic: load weights, broadcast an input, multiply and add."""

from __future__ import annotations

from projects.fp16_cnn import cpu
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.ir.vectors import ELEMENT, broadcast, fma, vector
from projects.fp16_cnn.precision import BYTES, Precision, Storage

BF16_DOT = "llvm.x86.avx512bf16.dpbf16ps.512"


class Multiply:
    """Emits operands and sums of one precision.

    Attributes:
        step: terms that one instruction adds to a lane: 2 for bf16 dot products.
        converts: False leaves the conversion of weights out (for attribution; the result is wrong).
        half: sums are fp16 in registers (native fp16 FMA).
        kind: type of a vector of sums.
    """

    def __init__(
        self, e: Emitter, precision: Precision, lanes: int, converts: bool = True, dot: bool = True
    ) -> None:
        self.e, self.precision, self.lanes, self.converts = e, precision, lanes, converts
        self.pairs = precision.multiplies == "bfloat16" and dot
        self.half = precision.multiplies == "float16" and not precision.emulated
        self.step = 2 if self.pairs else 1
        self.kind = f"<{lanes} x {'half' if self.half else 'float'}>"
        self.native = cpu.has("avx512bf16")
        self.source: Storage = precision.activations if self.half or self.pairs else "float32"

    def weight(self, address: str) -> str | tuple[str, str]:
        """The weights of one vector of output channels for `step` terms."""
        e, storage = self.e, self.precision.weights
        if self.pairs:
            return self._pair(e.value(f"load <32 x bfloat>, ptr {address}, align 64"), "<32 x bfloat>")
        if storage == "float16" and not self.half and not self.converts:
            return self.raw(address)
        kind = vector(self.lanes, storage)
        loaded = e.value(f"load {kind}, ptr {address}, align {16 * BYTES[storage]}")
        return (
            loaded if self.half or storage == "float32" else e.value(f"fpext {kind} {loaded} to {self.kind}")
        )

    def raw(self, address: str) -> str:
        """16 numbers of two bytes, not converted: 8 floats twice."""
        half = self.e.value(f"load <8 x float>, ptr {address}, align 32")
        lanes = ", ".join(f"i32 {lane % 8}" for lane in range(16))
        return self.e.value(f"shufflevector <8 x float> {half}, <8 x float> poison, <16 x i32> <{lanes}>")

    def input(self, address: str) -> str | tuple[str, str]:
        """`step` inputs of one pixel in every lane."""
        e = self.e
        if self.pairs:
            bits = broadcast(e, e.value(f"load i32, ptr {address}, align 2"), "i32", 16)
            return self._pair(bits, "<16 x i32>")
        element = ELEMENT[self.source]
        scalar = e.value(f"load {element}, ptr {address}, align {BYTES[self.source]}")
        return broadcast(e, scalar, element, self.lanes)

    def _pair(self, value: str, kind: str) -> str | tuple[str, str]:
        """Pairs of bf16 as the dot product takes them, or split into two vectors of fp32 on a CPU without it."""
        e = self.e
        wanted = "<32 x bfloat>" if self.native else "<16 x i32>"
        bits = value if kind == wanted else e.value(f"bitcast {kind} {value} to {wanted}")
        if self.native:
            return bits
        low = e.value(f"shl <16 x i32> {bits}, splat (i32 16)")
        high = e.value(f"and <16 x i32> {bits}, splat (i32 -65536)")
        return tuple(e.value(f"bitcast <16 x i32> {part} to <16 x float>") for part in (low, high))  # type: ignore[return-value]

    def add(self, total: str, weight: str | tuple[str, str], value: str | tuple[str, str]) -> str:
        """total + weight * value."""
        e = self.e
        if isinstance(weight, tuple) and isinstance(value, tuple):
            for left, right in zip(weight, value, strict=True):
                total = fma(e, left, right, total, 16)
            return total
        assert isinstance(weight, str) and isinstance(value, str)
        if self.pairs:
            operands = [("<16 x float>", total), ("<32 x bfloat>", weight), ("<32 x bfloat>", value)]
            return e.call("<16 x float>", BF16_DOT, operands)
        total = fma(e, weight, value, total, self.lanes, "half" if self.half else "float")
        if not self.precision.emulated:
            return total
        rounded = e.value(f"fptrunc {self.kind} {total} to {vector(self.lanes, 'float16')}")
        return e.value(f"fpext {vector(self.lanes, 'float16')} {rounded} to {self.kind}")
