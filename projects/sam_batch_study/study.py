"""SAM up to the full batch on one page: stages, claims, figures."""

from __future__ import annotations

from common.study.model import Curves, Figure, Need, Stage, Study
from projects.sam_batch_study.claims import CLAIMS

TRAINING = ("images", "net", "train", "rule", "device")
TUNED = Need("search", on={"seed": None, "method": "rule.tuned_as"})
HERE = "projects.sam_batch_study"
ENGINES = {
    "clean": f"{HERE}.stacked:train",
    "noisy": f"{HERE}.stacked:train",
    "noisy_passes": f"{HERE}.stacked:train",
    "small_resnet": f"{HERE}.single:train_singly",
    "resnet": f"{HERE}.single:train_singly",
    "cifar10": f"{HERE}.single:train_singly",
    "cifar10_bn": f"{HERE}.single:train_singly",
    "cifar100": f"{HERE}.single:train_singly",
    "imagenet": f"{HERE}.single:train_singly",
}

STUDY = Study(
    name="sam_batch_study",
    title="Sharpness-Aware Minimisation with Batches up to the Whole Training Set",
    thesis="SAM batch study",
    question="Does SAM keep its generalisation when the batch grows to the training set, and how is rho tuned then?",
    stages=(
        Stage(
            name="search",
            run=f"{HERE}.search:run",
            data=f"{HERE}.ondisk:data",
            parallel=("ddp", "fsdp"),
            axes=("task", "method", "batch", "seed"),
            arms={"task": ENGINES},
            config=(*TRAINING, "search"),
            stacked="seed",
        ),
        Stage(
            name="sweep",
            run=f"{HERE}.sweep:run",
            data=f"{HERE}.ondisk:data",
            parallel=("ddp", "fsdp"),
            axes=("task", "method", "batch", "seed"),
            arms={"task": ENGINES},
            needs=(TUNED,),
            config=(*TRAINING, "sweep"),
            stacked="seed",
        ),
        Stage(
            name="retrain",
            run=f"{HERE}.retrain:run",
            data=f"{HERE}.ondisk:data",
            parallel=("ddp", "fsdp"),
            axes=("task", "method", "batch", "seed"),
            arms={"task": ENGINES},
            needs=(TUNED,),
            config=(*TRAINING, "retrain"),
            stacked="seed",
        ),
        Stage(
            name="probe",
            run=f"{HERE}.probe:run",
            axes=("task", "method", "batch", "seed"),
            needs=(Need("retrain"),),
            config=("images", "net", "train", "rule", "probe"),
            stacked="seed",
        ),
        Stage(
            name="law",
            run=f"{HERE}.law:run",
            axes=("task", "law", "seed"),
            needs=(Need("sweep", on={"method": "law.method"}), Need("probe", on={"method": "law.method"})),
            config=("law",),
            stacked="seed",
        ),
        Stage(
            name="cost",
            run=f"{HERE}.cost:run",
            axes=("method", "batch", "seed"),
            config=("images", "net", "rule", "cost"),
            stacked="method",
            measures_host=True,
        ),
    ),
    claims=CLAIMS,
    curves=(
        Curves(
            id="curvature",
            caption="Largest Hessian eigenvalue where the training loss first came below a level; clean "
            "labels; training runs from right to left.",
            stage="probe",
            x="level",
            y="lambda_max",
            panel="batch",
            line="method",
            x_label="training loss",
            y_label="lambda_max",
            where={"task": "clean"},
        ),
        Curves(
            id="edge",
            caption="Full batch only: lambda_max over the edge of stability of SAM at the learning rate of that step. "
            "At a smaller batch the edge is no limit, and none is drawn; clean labels.",
            stage="probe",
            x="level",
            y="full_batch_edge_ratio",
            panel="batch",
            line="method",
            x_label="training loss",
            y_label="lambda_max / edge",
            where={"task": "clean"},
        ),
    ),
    figures=(
        Figure(
            id="error-by-batch",
            caption="Test error against batch size: mean with 90 % interval. A cross: not all nets fitted.",
            draw=f"{HERE}.figures:error_by_batch",
        ),
        Figure(
            id="rho-by-batch",
            caption="Validation error over rho and batch size; circles: each seed's best rho, line: their median.",
            draw=f"{HERE}.figures:rho_by_batch",
        ),
        Figure(
            id="rho-law",
            caption="Best rho against the norm of the normalised gradient over lambda_max, m = B.",
            draw=f"{HERE}.figures:rho_law",
        ),
        Figure(
            id="sharpness",
            caption="Largest Hessian eigenvalue and trace where training ended; an outcome, not an explanation.",
            draw=f"{HERE}.figures:sharpness",
        ),
        Figure(
            id="step-cost",
            caption="Cost of a step in CPU time, as a multiple of SGD's.",
            draw=f"{HERE}.figures:step_cost",
        ),
    ),
    packages=("torch", "numpy", "pytorch-lightning", "scipy", "timm", "pillow", "matplotlib"),
    limits={
        "laptop": "Letters of 16 x 16 pixels, 2,048 training images and a perceptron of three hidden layers, and 512 "
        "letters of 8 x 8 pixels for a ResNet at two batch sizes: a full batch is honest here, and says nothing of "
        "the sizes at which batches hurt ImageNet. rho has the size of this net's weights; only its change with the "
        "batch carries over.",
        "workstation": "Still letters; GroupNorm ResNets beside the perceptron.",
    },
)
