"""What the claims compare: metrics, tasks with their batch sizes, and the arms, rows of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.study.model import Arm, Metric
from projects.sam_batch_study.plan import WORST_LAMBDA, WORST_SPREAD

NAMES = {
    "sgd": "SGD",
    "sgd_long": "SGD, as many passes as the full batch",
    "sam_batch": "SAM, m = B",
    "sam_quarter": "SAM, m = B/4",
    "sam_small": "SAM, m small",
    "sam_sub": "SAM, quarter of the batch perturbs",
    "random": "random direction",
    "penalty": "gradient-norm penalty",
}
ERROR = Metric("test_error", "test error", "lower", worst=0.98)
STOPPED = Metric("stopped_error", "test error at the best validation step", "lower", worst=0.98)
LAMBDA = Metric("lambda_max", "largest Hessian eigenvalue", "lower", worst=WORST_LAMBDA)
BEST_RHO = Metric("best_rho", "norm of weights", "lower", worst=10.0)
SPREAD = Metric("spread", "SD of a logarithm over batch sizes", "lower", worst=WORST_SPREAD)
STEP = Metric("step_ratio", "times a step of SGD", "lower", worst=100.0)


@dataclass(frozen=True)
class Task:
    """A task, its batch sizes, and what is said of it; `full` is the whole training set."""

    name: str
    words: str
    small: int
    middle: int
    full: int
    metric: Metric
    scales: tuple[str, ...]
    suffix: str = ""


LETTERS = ("laptop", "workstation")
CLEAN = Task("clean", "letters, right labels", 64, 512, 2048, ERROR, LETTERS)
NOISY = Task("noisy", "letters, a fifth of the labels wrong", 64, 512, 2048, STOPPED, LETTERS, "-noisy")
SMALL_RESNET = Task(
    "small_resnet",
    "letters of 8 x 8 pixels, a GroupNorm ResNet",
    64,
    64,
    512,
    ERROR,
    LETTERS,
    "-small-resnet",
)  # two batch sizes: no middle
RESNET = Task(
    "resnet", "letters, a wider GroupNorm ResNet", 64, 512, 2048, ERROR, ("workstation",), "-resnet"
)
CIFAR = Task("cifar10", "CIFAR-10", 125, 9_000, 45_000, STOPPED, ("paper",), "-cifar")
PASSES = {"task": "noisy_passes", "method": "sgd"}


def trained(method: str, batch: int, task: Task, label: str = "") -> Arm:
    """Fresh nets of a method at a batch size."""
    name = label or f"{NAMES[method]}, B = {batch:,}"
    return Arm(name, "retrain", {"task": task.name, "method": method, "batch": batch})


def probed(method: str, batch: int) -> Arm:
    """Their curvature."""
    where: Mapping[str, str | int] = {"task": CLEAN.name, "method": method, "batch": batch}
    return Arm(f"{NAMES[method]}, B = {batch:,}", "probe", where)


def tuned(method: str, task: Task) -> Arm:
    """The best rho over the batch sizes."""
    return Arm(NAMES[method], "sweep", {"task": task.name, "method": method})


def law(name: str, label: str, task: Task) -> Arm:
    """The spread of a law over the batch sizes."""
    return Arm(label, "law", {"task": task.name, "law": name})


def cost(method: str) -> Arm:
    """What its step costs at a quarter of the training set."""
    return Arm(NAMES[method], "cost", {"method": method, "batch": CLEAN.middle})
