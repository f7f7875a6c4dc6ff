"""Vectors of fp32 numbers: loaded from and stored to any storage, constants, and the activations."""

from __future__ import annotations

import struct
from typing import Literal

from projects.fp16_cnn import cpu
from projects.fp16_cnn.ir.emitter import Emitter
from projects.fp16_cnn.precision import BYTES, Storage

Activation = Literal["none", "relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid"]
ACTIVATIONS: tuple[Activation, ...] = (
    "none", "relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid"
)  # fmt: skip
ELEMENT: dict[Storage, str] = {"float32": "float", "float16": "half", "bfloat16": "bfloat"}

# exp on [-ln 2 / 2, ln 2 / 2] as 1 + r + r^2 p(r), the coefficients of Cephes' expf (S. L. Moshier), error 2 ulp.
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LN2_HIGH, LN2_LOW, LOG2_E = 0.693359375, -2.12194440e-4, 1.44269504088896341
EXP_RANGE = (-87.0, 88.0)


def vector(lanes: int, storage: Storage = "float32") -> str:
    """Name of the type."""
    return f"<{lanes} x {ELEMENT[storage]}>"


def constant(number: float) -> str:
    """An fp32 constant in every lane, to the bit."""
    rounded = struct.unpack("f", struct.pack("f", number))[0]
    return f"splat (float 0x{struct.unpack('>Q', struct.pack('>d', rounded))[0]:016X})"


def load(e: Emitter, address: str, lanes: int, storage: Storage) -> str:
    """`lanes` consecutive numbers as fp32; `address` is aligned to 16 of them."""
    kind = vector(lanes, storage)
    raw = e.value(f"load {kind}, ptr {address}, align {16 * BYTES[storage]}")
    return raw if storage == "float32" else e.value(f"fpext {kind} {raw} to {vector(lanes)}")


def store(e: Emitter, number: str, address: str, lanes: int, storage: Storage) -> None:
    """Round a vector to `storage` (nearest even) and write it."""
    kind = vector(lanes, storage)
    if storage == "bfloat16" and not cpu.has("avx512bf16"):
        kind, number = f"<{lanes} x i16>", _to_bf16(e, number, lanes)
    elif storage != "float32":
        number = e.value(f"fptrunc {vector(lanes)} {number} to {kind}")
    e.line(f"store {kind} {number}, ptr {address}, align {16 * BYTES[storage]}")


def _to_bf16(e: Emitter, number: str, lanes: int) -> str:
    """Rounding in integers, as `packing.to_bf16` does it: LLVM would call a function that older libraries lack."""
    integers = f"<{lanes} x i32>"
    bits = e.value(f"bitcast {vector(lanes)} {number} to {integers}")
    upper = e.value(f"lshr {integers} {bits}, splat (i32 16)")
    odd = e.value(f"and {integers} {upper}, splat (i32 1)")
    moved = e.value(f"add {integers} {bits}, {e.value(f'add {integers} {odd}, splat (i32 32767)')}")
    rounded = e.value(f"lshr {integers} {moved}, splat (i32 16)")
    quiet = e.value(f"or {integers} {upper}, splat (i32 64)")
    lost = e.value(f"fcmp uno {vector(lanes)} {number}, {number}")
    kept = e.value(f"select <{lanes} x i1> {lost}, {integers} {quiet}, {integers} {rounded}")
    return e.value(f"trunc {integers} {kept} to <{lanes} x i16>")


def broadcast(e: Emitter, scalar: str, element: str, lanes: int) -> str:
    """A scalar in every lane."""
    kind = f"<{lanes} x {element}>"
    first = e.value(f"insertelement {kind} poison, {element} {scalar}, i32 0")
    return e.value(f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer")


def fma(e: Emitter, left: str, right: str, addend: str, lanes: int, element: str = "float") -> str:
    """left * right + addend, rounded once."""
    kind = f"<{lanes} x {element}>"
    name = f"llvm.fma.v{lanes}{'f16' if element == 'half' else 'f32'}"
    return e.call(kind, name, [(kind, left), (kind, right), (kind, addend)])


def at_least(e: Emitter, number: str, bound: str, lanes: int) -> str:
    """max(number, bound), NaN kept: a maximum that drops NaN would hide where it came from."""
    kind = vector(lanes)
    below = e.value(f"fcmp olt {kind} {number}, {bound}")
    return e.value(f"select <{lanes} x i1> {below}, {kind} {bound}, {kind} {number}")


def at_most(e: Emitter, number: str, bound: str, lanes: int) -> str:
    """min(number, bound), NaN kept."""
    kind = vector(lanes)
    above = e.value(f"fcmp ogt {kind} {number}, {bound}")
    return e.value(f"select <{lanes} x i1> {above}, {kind} {bound}, {kind} {number}")


def activate(e: Emitter, number: str, activation: Activation, lanes: int) -> str:
    """The activation of a vector, as torch.nn defines it."""
    kind = vector(lanes)
    if activation == "none":
        return number
    if activation == "relu":
        return at_least(e, number, "zeroinitializer", lanes)
    if activation == "relu6":
        return at_most(e, at_least(e, number, "zeroinitializer", lanes), constant(6), lanes)
    if activation in ("hardsigmoid", "hardswish"):
        moved = e.value(f"fadd {kind} {number}, {constant(3)}")
        gate = e.value(f"fmul {kind} {activate(e, moved, 'relu6', lanes)}, {constant(1 / 6)}")
    else:
        power = exponential(e, e.value(f"fneg {kind} {number}"), lanes)
        gate = e.value(f"fdiv {kind} {constant(1)}, {e.value(f'fadd {kind} {power}, {constant(1)}')}")
    return gate if activation in ("hardsigmoid", "sigmoid") else e.value(f"fmul {kind} {number}, {gate}")


def exponential(e: Emitter, number: str, lanes: int) -> str:
    """exp(number), number clamped to where fp32 holds the result: 2^n exp(r) with n ln 2 + r = number."""
    kind = vector(lanes)
    number = at_most(e, at_least(e, number, constant(EXP_RANGE[0]), lanes), constant(EXP_RANGE[1]), lanes)
    scaled = e.value(f"fmul {kind} {number}, {constant(LOG2_E)}")
    n = e.call(kind, f"llvm.roundeven.v{lanes}f32", [(kind, scaled)])
    r = fma(e, n, constant(-LN2_HIGH), number, lanes)
    r = fma(e, n, constant(-LN2_LOW), r, lanes)
    polynomial = constant(EXP[0])
    for coefficient in EXP[1:]:
        polynomial = fma(e, polynomial, r, constant(coefficient), lanes)
    polynomial = fma(e, e.value(f"fmul {kind} {polynomial}, {r}"), r, r, lanes)
    polynomial = e.value(f"fadd {kind} {polynomial}, {constant(1)}")
    integers = f"<{lanes} x i32>"
    exponent = e.value(f"fptosi {kind} {n} to {integers}")
    exponent = e.value(f"add {integers} {exponent}, splat (i32 127)")
    exponent = e.value(f"shl {integers} {exponent}, splat (i32 23)")
    return e.value(f"fmul {kind} {polynomial}, {e.value(f'bitcast {integers} {exponent} to {kind}')}")
