"""Half precision in CNN inference on one page: stages, claims, figures."""

from __future__ import annotations

from common.study.model import Curves, Figure, Need, Resources, Stage, Study
from projects.fp16_cnn.claims import CLAIMS

HERE = "projects.fp16_cnn"
MEASURED = Need("layers")
TRAINED = Need("learn", on={"net": "trained.net"})

STUDY = Study(
    name="fp16_cnn",
    title="Speeding up CNN Inference by Half-Precision SIMD, Layer by Layer",
    thesis="FP16 CNN inference",
    question="How much does half precision speed up each layer of a trained CNN on a CPU, why, and what does it cost?",
    stages=(
        Stage(
            name="machine",
            run=f"{HERE}.machine:run",
            axes=(),
            config=("micro", "nets"),
            measures_host=True,
        ),
        Stage(
            name="layers",
            run=f"{HERE}.layers:run",
            axes=("net", "seed"),
            needs=(Need("machine"),),
            config=("timing", "nets"),
            resources=Resources(memory_gb=8),
            measures_host=True,
        ),
        Stage(
            name="gains",
            run=f"{HERE}.gains:run",
            axes=("net", "precision", "seed"),
            needs=(MEASURED, Need("machine")),
            stacked="precision",
        ),
        Stage(
            name="predict",
            run=f"{HERE}.predict:run",
            axes=("model", "seed"),
            needs=(MEASURED, Need("machine")),
            stacked="model",
        ),
        Stage(
            name="attribution",
            run=f"{HERE}.attribution:run",
            axes=("net", "layer"),
            needs=(MEASURED, Need("machine")),
            stacked="layer",
        ),
        Stage(
            name="peers",
            run=f"{HERE}.peers:run",
            axes=("net", "batch", "seed"),
            needs=(Need("machine"),),
            config=("peers",),
            resources=Resources(memory_gb=12),
            measures_host=True,
        ),
        Stage(
            name="compare",
            run=f"{HERE}.compare:run",
            axes=("net", "batch", "tool", "seed"),
            needs=(Need("peers"),),
            stacked="tool",
        ),
        Stage(
            name="learn",
            run=f"{HERE}.learn:run",
            parallel=("ddp", "fsdp"),
            shares={"train.batch": 1},
            axes=("net", "seed"),
            config=("images", "train", "device"),
        ),
        Stage(
            name="accuracy",
            run=f"{HERE}.accuracy:run",
            axes=("net", "precision", "seed"),
            needs=(TRAINED,),
            config=("images", "trained", "noise"),
            resources=Resources(memory_gb=6),
            stacked="precision",
        ),
        Stage(
            name="traps",
            run=f"{HERE}.traps:run",
            axes=("trap", "seed"),
            config=("traps",),
        ),
        Stage(
            name="plan",
            run=f"{HERE}.plans:run",
            axes=("net", "budget", "seed"),
            needs=(TRAINED,),
            config=("images", "trained", "noise", "plan"),
            resources=Resources(memory_gb=8),
            measures_host=True,
            stacked="budget",
        ),
    ),
    claims=CLAIMS,
    curves=(
        Curves(
            id="learning",
            caption="Validation accuracy of the small nets whose answers are compared.",
            stage="learn",
            x="step",
            y="validation_accuracy",
            panel="net",
            line="net",
            x_label="updates",
            y_label="accuracy",
        ),
    ),
    figures=(
        Figure(
            id="rooflines",
            caption="Every layer on the machine's roofline.",
            draw=f"{HERE}.figures:rooflines",
        ),
        Figure(
            id="time-lost",
            caption="Where a layer's time goes: arithmetic at the peak, memory, conversions, the rest; measured with a "
            "part of the kernel taken out.",
            draw=f"{HERE}.figures:time_lost",
        ),
        Figure(
            id="predicted",
            caption="Predicted against measured gain; the band is 15 %.",
            draw=f"{HERE}.figures:predicted",
        ),
        Figure(
            id="gains-by-layer",
            caption="Gain of each layer and precision over fp32, hot and cold.",
            draw=f"{HERE}.figures:gains_by_layer",
        ),
        Figure(
            id="peers",
            caption="Whole networks beside frameworks, with what these really executed.",
            draw=f"{HERE}.figures:peers",
        ),
    ),
    packages=("torch", "numpy", "pytorch-lightning", "llvmlite", "torchvision", "pillow", "matplotlib"),
    replicate="a fresh process of what is timed, and a seed with its own training and letters of what is learned",
    limits={
        "laptop": "One CPU model. Timed networks have random weights, which changes no time; accuracy is that of two "
        "small nets on letters, not of ImageNet nets on photographs. Frameworks are timed in one process each, without "
        "an interval.",
        "workstation": "One CPU model. Timed networks have random weights; accuracy is that of two small nets on "
        "letters. Hardware counters only where the machine has them: their columns are missing otherwise.",
    },
)
