"""Proxy-ISA on one page: stages, arms, claims, figures."""

from __future__ import annotations

from common.study.model import Curves, Figure, Need, Stage, Study
from projects.proxy_isa.claims import CLAIMS

HERE = "projects.proxy_isa"
TASKS = {
    "cub_like": f"{HERE}.letters:task",
    "sop_like": f"{HERE}.letters:task",
    "cub": f"{HERE}.photographs:cub",
    "cars": f"{HERE}.photographs:cars",
    "sop": f"{HERE}.photographs:sop",
    "inshop": f"{HERE}.photographs:inshop",
}
# the same photographs for the other backbone, see configs/project/proxy_isa/paper.yaml
TASKS |= {f"{name}_inception": f"{HERE}.photographs:{name}" for name in ("cub", "cars", "sop", "inshop")}
TRAINING = ("data", "net", "train", "loss", "rule", "device")

STUDY = Study(
    name="proxy_isa",
    title="Informative Sample-Aware Proxy for Deep Metric Learning",
    thesis="Li, Sato, Yokota 2022",
    question="Does weighting pairs by a class-dependent, scheduled threshold help retrieval of unseen classes?",
    stages=(
        Stage(
            name="tune",
            run=f"{HERE}.tune:run",
            data=f"{HERE}.ondisk:data",
            parallel=("ddp", "fsdp"),
            shares={"train.batch": 1},
            axes=("data", "loss", "seed"),
            arms={"data": TASKS},
            config=(*TRAINING, "tune"),
        ),
        Stage(
            name="learn",
            run=f"{HERE}.learn:run",
            data=f"{HERE}.ondisk:data",
            parallel=("ddp", "fsdp"),
            shares={"train.batch": 1},
            axes=("data", "loss", "seed"),
            arms={"data": TASKS},
            needs=(Need("tune", on={"seed": None, "loss": "loss.tuned_as"}),),
            config=TRAINING,
            stacked="seed",
        ),
        Stage(
            name="selection",
            run=f"{HERE}.selection:run",
            axes=("data", "loss", "chosen", "seed"),
            needs=(Need("learn"),),
            stacked="seed",
        ),
        Stage(
            name="shown",
            run=f"{HERE}.shown:run",
            axes=("data", "loss", "part"),
            needs=(Need("learn"),),
            stacked="part",
        ),
    ),
    claims=CLAIMS,
    curves=(
        Curves(
            id="held-out",
            caption="MAP@R on held-out classes during training, first fold.",
            stage="learn",
            x="step",
            y="map_at_r",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="MAP@R, held-out classes",
        ),
        Curves(
            id="easy",
            caption="Share of the positive pairs above the hardness level, the easy ones.",
            stage="learn",
            x="step",
            y="positive_easy",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="share of positives",
        ),
        Curves(
            id="informative",
            caption="Share of the positive pairs between threshold and hardness level, the informative ones.",
            stage="learn",
            x="step",
            y="positive_informative",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="share of positives",
        ),
        Curves(
            id="hard",
            caption="Share of the positive pairs below the threshold, the hard ones.",
            stage="learn",
            x="step",
            y="positive_hard",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="share of positives",
        ),
        Curves(
            id="class-weight",
            caption="Smallest class weight: 1 until about four times V images of a class were counted.",
            stage="learn",
            x="step",
            y="class_weight_min",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="smallest class weight",
        ),
        Curves(
            id="hardness",
            caption="Hardness level of a class, median over the classes: the upper end of the informative region.",
            stage="learn",
            x="step",
            y="hardness_q50",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="hardness level",
        ),
        Curves(
            id="half-width",
            caption="Half-width of the informative region, median over the classes.",
            stage="learn",
            x="step",
            y="half_width_q50",
            panel="data",
            line="loss",
            x_label="training steps",
            y_label="half-width",
        ),
    ),
    figures=(
        Figure(
            id="gallery",
            caption="Queries (left) of the test class with the lowest and of the one with the highest MAP@R under "
            "Proxy-ISA, and the five nearest images of each: green frame where right, red and crossed where wrong (a "
            "class of five images has four to find). First seed.",
            draw=f"{HERE}.figures:gallery",
        ),
        Figure(
            id="map",
            caption="Images of six test classes, from the worst (1) to the best (6) in MAP@R, on the first two "
            "principal components of their embeddings; a colour and a mark a class, one image of each at the right. "
            "Each loss has its own order of classes. First seed.",
            draw=f"{HERE}.figures:embedding_map",
        ),
        Figure(
            id="pair-weights",
            caption="Weights of the pairs of a batch in the middle and at the end of a training: informative positive "
            "pairs are above 1, easy and hard ones below; a weight of exactly 1 is a pair that nothing is done to. "
            "First seed, first fold.",
            draw=f"{HERE}.figures:pair_weights",
        ),
    ),
    packages=(
        "torch",
        "numpy",
        "pytorch-lightning",
        "pytorch-metric-learning",
        "optuna",
        "pillow",
        "matplotlib",
    ),
    drawn=("shown",),
    limits={
        "laptop": "Letters of 16 x 16 pixels, a network of three convolutions trained from scratch in seconds. What "
        "depends on pretrained features, on photographs or on thousands of classes is not seen here.",
    },
)
