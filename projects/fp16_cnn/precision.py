"""The precisions that a layer can run in: what is stored, what is added up, what the CPU needs for it.

A half-precision layer can gain in two ways: its operands are smaller in memory, and an instruction holds more of them.
The table keeps both apart: `weights` and `activations` say what moves, `multiplies` what an instruction computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import unknown

Storage = Literal["float32", "float16", "bfloat16"]
BYTES: dict[Storage, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
NEVER = 1 << 30
"""A `flush` that is never reached."""


@dataclass(frozen=True)
class Precision:
    """How a layer stores its operands and adds up their products.

    Attributes:
        name: as plans, tables and claims call it.
        weights, activations: what lies in memory.
        multiplies: the arithmetic: fp32 FMA (operands converted on the way in), bf16 pairs into fp32, or fp16 FMA.
        flush: fp16 arithmetic only: terms added up in fp16 before the sum moves to an fp32 accumulator.
        emulated: computed by fp32 FMA rounded to fp16 after every term: for accuracy, never for speed.
        needs: CPU features, by LLVM's names; without one the kernel must not run.
        words: for tables and figures.
    """

    name: str
    weights: Storage
    activations: Storage
    multiplies: Literal["float32", "bfloat16", "float16"]
    flush: int = NEVER
    emulated: bool = False
    needs: tuple[str, ...] = ()
    words: str = ""


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("f32", "float32", "float32", "float32", words="fp32"),
        Precision("f16w", "float16", "float32", "float32", needs=("f16c",), words="fp16 weights"),
        Precision("f16s", "float16", "float16", "float32", needs=("f16c",), words="fp16 storage"),
        Precision(
            "bf16", "bfloat16", "bfloat16", "bfloat16", needs=("avx512bf16",), words="bf16 dot product"
        ),
        Precision("f16", "float16", "float16", "float16", 64, needs=("avx512fp16",), words="fp16 FMA"),
        Precision("f16e64", "float16", "float16", "float16", 64, True, ("f16c",), "fp16 sums, flush 64"),
        Precision("f16e256", "float16", "float16", "float16", 256, True, ("f16c",), "fp16 sums, flush 256"),
        Precision("f16e", "float16", "float16", "float16", NEVER, True, ("f16c",), "fp16 sums, no flush"),
    )
}
TIMED = ("f32", "f16w", "f16s", "bf16", "f16")
"""The precisions whose speed means something."""


def precision_of(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BadInputError: there is none.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, tuple(PRECISIONS))
    return PRECISIONS[name]
