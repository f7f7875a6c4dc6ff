"""A machine of round numbers."""

from __future__ import annotations

from projects.fp16_cnn.machine import Machine


def flat(rate: float) -> tuple[tuple[float, float], ...]:
    return ((1024.0, rate), (1e9, rate))


MACHINE = Machine(
    cpu="round numbers",
    peaks={"float32": 100e9, "bfloat16": 200e9},
    loads={"float32": 40e9, "float16": 20e9, "bfloat16": 20e9},
    stores={"float32": 40e9, "float16": 20e9, "bfloat16": 20e9},
    widening=flat(10e9),
    reads=flat(50e9),
    writes=flat(50e9),
    cold=flat(10e9),
    cold_strided=flat(5e9),
    unhidden=0.0,
    sharing={"float32": 0.0, "float16": 0.5, "bfloat16": 0.5},
    depthwise={
        "k3 s1": {"f32": 5e9, "f16w": 5e9, "f16s": 4e9, "bf16": 4e9},
        "k3 s2": {"f32": 5e9, "f16w": 5e9, "f16s": 2.5e9, "bf16": 2.5e9},
        "k5 s1": {"f32": 2e9, "f16w": 2e9, "f16s": 1.6e9, "bf16": 1.6e9},
        "k5 s2": {"f32": 2e9, "f16w": 2e9, "f16s": 1.6e9, "bf16": 1.6e9},
    },
    call=1e-6,
    together=flat(20e9),
)
