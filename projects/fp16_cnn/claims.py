"""What is claimed of half precision, made testable. Written before the runs; README.md tells of the pilot.

Times are medians inside a fresh process, and a fresh process is a replicate. A gain is fp32's time over the other's,
ours over ours. Each claim names what the CPU must have; without it, it is not assessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.study.model import Arm, Claim, Metric, Published
from projects.fp16_cnn.precision import PRECISIONS

GAIN = Metric("compute_gain", "times faster than fp32", "higher", worst=0.01)
OFF_ONE = Metric("compute_worst", "largest |log gain| of a layer", "lower", worst=5.0)
OFF_TWO = Metric("compute_off_two", "|log(gain / 1.88)|", "lower", worst=5.0)
DRAM = Metric("dram_gain", "times faster than fp32", "higher", worst=0.01)
ADDS_UP = Metric("network_off_sum", "|log(network's gain / its layers' gain)|", "lower", worst=5.0)
WITHIN_HOT = Metric("within_hot", "share of gains within 15 %", "higher", worst=0.0)
ERROR_HOT = Metric("error_hot", "median |log(predicted / measured gain)|", "lower", worst=5.0)
ERROR_COLD = Metric("error_cold", "median |log(predicted / measured gain)|", "lower", worst=5.0)
ERROR_STREAMING = Metric("error_streaming", "median |log(predicted / measured gain)|", "lower", worst=5.0)

DISAGREE = Metric("disagreement_upper", "share of images, 95 % upper bound", "lower", worst=1.0)
FLUSH = Metric("log2_error_over_flush64", "log2 of the error over flush 64's", "higher", worst=0.0)

THESIS = "Naganuma 2018, half precision in CNN inference"
ABSTRACT = f"{THESIS}: abstract"
MISSING = "the missing discussion that the thesis names"
BAND = (1.6, 2.2)
CENTRE = math.sqrt(BAND[0] * BAND[1])
CPU = "The CPU of the run decides: the report names it."


def answers(precision: str, net: str) -> Arm:
    """A trained net under a precision, on images that it never saw."""
    words = PRECISIONS[precision].words if precision in PRECISIONS else "weights of 1 mantissa bit"
    return Arm(f"{words}, {net}", "accuracy", {"net": net, "precision": precision})


def gained(precision: str, net: str = "resnet50", label: str = "") -> Arm:
    """The gains of a precision over fp32, layer by layer."""
    words = (
        "bf16 network against fp16 storage layers" if precision == "swapped" else PRECISIONS[precision].words
    )
    return Arm(label or f"{words}, {net}", "gains", {"net": net, "precision": precision})


def predicted(model: str) -> Arm:
    """How far a model of the gains is off."""
    return Arm(MODELS[model], "predict", {"model": model})


MODELS: Mapping[str, str] = {
    "pipes": "model with pipes",
    "roofline": "roofline with conversions",
    "constant": "each precision's median gain",
    "permuted": "model, layers permuted",
    "noconvert": "model without conversions",
    "memory": "bytes alone",
}

STORAGE = (
    Claim(
        id="storage-compute",
        statement="fp16 storage gains nothing where arithmetic is the limit: over ResNet-50's compute-bound "
        "convolutions the geometric mean gain is within 5 % of 1.",
        source=ABSTRACT,
        kind="equivalent",
        metric=GAIN,
        effect="log_ratio",
        margin=math.log(1.05),
        method=gained("f16s"),
        baseline=gained("f32", label="fp32 again"),
        control=gained("bf16"),
        limits=CPU,
    ),
    Claim(
        id="storage-each-layer",
        statement="No single compute-bound convolution of ResNet-50 gains or loses more than 10 % by fp16 storage.",
        source=ABSTRACT,
        kind="bound",
        metric=OFF_ONE,
        margin=math.log(1.10),
        method=gained("f16s"),
        control=gained("bf16"),
        limits=CPU,
    ),
    Claim(
        id="storage-weights",
        statement="With fp16 weights and fp32 activations, too, the geometric mean gain is within 5 % of 1.",
        source=ABSTRACT,
        kind="equivalent",
        metric=GAIN,
        effect="log_ratio",
        margin=math.log(1.05),
        method=gained("f16w"),
        baseline=gained("f32", label="fp32 again"),
        control=gained("bf16"),
        primary=False,
        limits=CPU,
    ),
    Claim(
        id="storage-dram",
        statement="Where a fully connected layer's weights come from DRAM (VGG's 25,088 x 4,096), fp16 storage gains "
        "more than 1.5 times.",
        source=ABSTRACT,
        kind="bound",
        metric=DRAM,
        margin=1.5,
        method=gained("f16s", "vgg16"),
        control=gained("f32", "vgg16", "fp32 again"),
        published=(Published("thesis", None, "", ABSTRACT, "no figure public"),),
        limits=CPU,
    ),
)
"""H1."""


def arithmetic(precision: str) -> Claim:
    """H2: half-precision arithmetic doubles compute-bound layers."""
    words = {"bf16": "The bf16 dot product", "f16": "Native fp16 multiplication"}[precision]
    return Claim(
        id=f"arithmetic-{precision}",
        statement=f"{words} makes ResNet-50's compute-bound convolutions 1.6 to 2.2 times as fast.",
        source=ABSTRACT,
        kind="bound",
        metric=OFF_TWO,
        margin=math.log(BAND[1] / CENTRE),
        method=gained(precision),
        control=gained("f16s"),
        primary=False,
        requires="available",
        limits=CPU,
    )


MODEL = (
    Claim(
        id="model-within",
        statement="From the machine's peaks, bandwidths and conversion rate alone, at least 90 % of the hot gains of "
        "convolutions and fully connected layers are predicted within 15 %.",
        source=MISSING,
        kind="bound",
        metric=WITHIN_HOT,
        margin=0.9,
        method=predicted("pipes"),
        control=predicted("memory"),
        limits=CPU,
    ),
    Claim(
        id="model-hot",
        statement="Hot, over convolutions, fully connected and depthwise layers together, the model is less off than "
        "each precision's median gain, although that knows the data.",
        source=MISSING,
        kind="superior",
        metric=ERROR_HOT,
        method=predicted("pipes"),
        baseline=predicted("constant"),
        control=predicted("permuted"),
        limits=CPU,
    ),
    Claim(
        id="model-cold",
        statement="The same with cold caches.",
        source=MISSING,
        kind="superior",
        metric=ERROR_COLD,
        method=predicted("pipes"),
        baseline=predicted("constant"),
        control=predicted("permuted"),
        limits=CPU,
    ),
    Claim(
        id="model-conversion",
        statement="Where data stream (residual additions, depthwise layers), counting conversions makes the model "
        "better.",
        source=MISSING,
        kind="superior",
        metric=ERROR_STREAMING,
        method=predicted("pipes"),
        baseline=predicted("noconvert"),
        control=predicted("permuted"),
        limits=CPU,
    ),
)
"""H3."""

SUM = Claim(
    id="layers-add-up",
    statement="The gain of the whole network equals that of its layers' summed times within 10 % (ResNet-50, bf16).",
    source=MISSING,
    kind="bound",
    metric=ADDS_UP,
    margin=math.log(1.10),
    method=gained("bf16"),
    control=gained("swapped"),
    limits=CPU,
)
"""H5."""


def same_answers(net: str, primary: bool) -> Claim:
    """H4, first half."""
    return Claim(
        id=f"same-answers-{net.removeprefix('small_')}",
        statement="With weights and activations stored in fp16, a trained net's first choice differs from fp32's for "
        f"less than 1 % of held-out images ({net.removeprefix('small_')}; exact bound).",
        source=f"{THESIS}: recognition accuracy barely changes",
        kind="bound",
        metric=DISAGREE,
        margin=0.01,
        method=answers("f16s", net),
        control=answers("mantissa1", net),
        primary=primary,
        published=(Published("thesis", None, "", ABSTRACT, "no figure public"),),
        limits="Letters and small nets; no photographs and no ImageNet.",
    )


FLUSHED = Claim(
    id="flush",
    statement="Adding up in fp16 without ever moving the sum to fp32 makes the largest relative logit error at least "
    "twice that of moving it every 64 terms.",
    source="Naganuma 2018: accumulation in half precision",
    kind="bound",
    metric=FLUSH,
    margin=1.0,
    method=answers("f16e", "small_resnet"),
    control=answers("f16s", "small_resnet"),
    limits="Emulated, term by term; the longest sum of the small net decides how much there is to lose.",
)
"""H4, second half."""

CLAIMS = (
    *STORAGE,
    arithmetic("bf16"),
    arithmetic("f16"),
    *MODEL,
    same_answers("small_resnet", primary=True),
    same_answers("small_mobilenet", primary=False),
    FLUSHED,
    SUM,
)
