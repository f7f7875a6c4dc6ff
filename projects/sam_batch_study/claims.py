"""What is claimed of SAM and the batch size, made testable. Written before the runs; README.md tells of the pilot.

Errors are those of test images that nothing was chosen on. On clean letters every net is trained until its training
loss is 0.01 or less; on noisy ones and on CIFAR-10 each is taken at its best validation step.
"""

from __future__ import annotations

from common.study.model import Arm, Claim, Mix, Published
from projects.sam_batch_study.arms import (
    BEST_RHO,
    CIFAR,
    CLEAN,
    ERROR,
    LAMBDA,
    LETTERS,
    NOISY,
    PASSES,
    RESNET,
    SMALL_RESNET,
    SPREAD,
    STEP,
    STOPPED,
    Task,
    cost,
    law,
    probed,
    trained,
    tuned,
)

QUESTION = "the thesis's question"
SIZE = "At laptop scale a full batch means 2,048 letters of 16 x 16 pixels, and a perceptron."
SMALL_SIZE = (
    "A full batch means 512 letters of 20 classes and 8 x 8 pixels, and a ResNet of 8, 16 and 32 channels."
)
PAPER = Published(
    "SAM, CIFAR-10, WRN-28-10", 2.7, "% error (SGD 3.5)", "Foret et al. 2021, table 1", "B = 256, photographs"
)
GROWING = Published(
    "SAM, CIFAR-100, ResNet-18",
    26.39,
    "% error (SGD 26.61)",
    "README of iiduka-researches/GSAM_batch_inc",
    "photographs, another net",
)


def half_of_gap(label: str, method: str, task: Task) -> Mix:
    """error − (SGD at the middle B + SGD at the smallest)/2: negative when more than half of the gap is removed."""
    small, middle = (trained("sgd", batch, task) for batch in (task.small, task.middle))
    return Mix(label, ((1.0, trained(method, task.middle, task)), (-0.5, middle), (-0.5, small)))


def kept(label: str, method: str, task: Task) -> Mix:
    """error − SGD/4 − 3 SAM/4: negative when more than 75 % of SAM's gain is kept."""
    sgd, sam, other = (trained(name, task.middle, task) for name in ("sgd", "sam_batch", method))
    return Mix(label, ((1.0, other), (-0.25, sgd), (-0.75, sam)))


def gain(task: Task, batch: int, weight: float) -> tuple[tuple[float, Arm], ...]:
    """Weight · (SGD − SAM with m = B)."""
    return (weight, trained("sgd", batch, task)), (-weight, trained("sam_batch", batch, task))


def premise(task: Task, *, primary: bool, control: Arm | None = None, limits: str = SIZE) -> Claim:
    """Larger batches are worse; the control, SGD at the middle B if not given, lacks the small batch."""
    return Claim(
        id=f"premise-error{task.suffix}",
        statement=f"The test error of SGD is higher at the full batch than at B = {task.small} ({task.words}).",
        source=QUESTION,
        kind="superior",
        metric=task.metric,
        method=trained("sgd", task.small, task),
        baseline=trained("sgd", task.full, task),
        control=control or trained("sgd", task.middle, task),
        primary=primary,
        scales=task.scales,
        limits=limits,
    )


def half_removed(task: Task, *, primary: bool) -> Claim:
    """H0."""
    return Claim(
        id=f"half-removed{task.suffix}",
        statement=f"At B = {task.middle:,} SAM (m = B) removes at least half of the error that SGD gains from "
        f"B = {task.small} to there ({task.words}).",
        source=QUESTION,
        kind="bound",
        metric=task.metric,
        method=half_of_gap("SAM − half-way", "sam_batch", task),
        control=half_of_gap("random direction − half-way", "random", task),
        primary=primary,
        published=(PAPER, GROWING),
        scales=task.scales,
        limits=SIZE,
    )


def vanishes(task: Task, *, primary: bool) -> Claim:
    """H2."""
    return Claim(
        id=f"gain-vanishes{task.suffix}",
        statement=f"With m = B the gain of SAM at the full batch is at most a quarter of that at B = {task.middle:,} "
        f"({task.words}; in a pilot on letters the largest gain was there).",
        source="Andriushchenko & Flammarion 2022: the perturbation batch must be small",
        kind="bound",
        metric=task.metric,
        method=Mix(
            "gain at n − a quarter of that at the middle B",
            (*gain(task, task.full, 1.0), *gain(task, task.middle, -0.25)),
        ),
        control=Mix("gain at the middle B − a quarter of it", gain(task, task.middle, 0.75)),
        primary=primary,
        scales=task.scales,
        limits=SIZE,
    )


def cheap(task: Task, *, primary: bool) -> Claim:
    """H4, the error."""
    return Claim(
        id=f"cheap-perturbation{task.suffix}",
        statement=f"At B = {task.middle:,} a perturbation from a quarter of the batch keeps at least 75 % of SAM's "
        f"gain ({task.words}).",
        source="Du et al. 2022, thinning the other pass",
        kind="bound",
        metric=task.metric,
        method=kept("quarter perturbs − 75 % of the gain", "sam_sub", task),
        control=kept("random direction − 75 % of the gain", "random", task),
        primary=primary,
        scales=task.scales,
        limits=SIZE,
    )


def full_batch(task: Task, limits: str = SIZE) -> Claim:
    """Whether SAM gains anything at the full batch."""
    return Claim(
        id=f"full-batch-gain{task.suffix}",
        statement=f"At the full batch SAM (m = B) has a lower error than SGD ({task.words}).",
        source=QUESTION,
        kind="superior",
        metric=task.metric,
        method=trained("sam_batch", task.full, task),
        baseline=trained("sgd", task.full, task),
        control=trained("random", task.full, task),
        primary=False,
        published=(PAPER,),
        scales=task.scales,
        limits=limits,
    )


def rho_at_fixed_m(task: Task, *, primary: bool) -> Claim:
    """H1."""
    where = f" ({task.words})" if task.suffix else ""
    return Claim(
        id=f"rho-at-fixed-m{task.suffix}",
        statement="With m = 64 the best rho does not depend on the batch: the slope of log rho* on log B is within "
        f"0.15 of zero{where}.",
        source="hypothesis; no source answers how rho should follow the batch",
        kind="exponent",
        metric=BEST_RHO,
        method=tuned("sam_small", task),
        control=tuned("sam_batch", task),
        axis="batch",
        target=0.0,
        margin=0.15,
        primary=primary,
        scales=task.scales,
        limits=SIZE,
    )


def rho_law(task: Task, *, primary: bool) -> Claim:
    """H3."""
    where = f" ({task.words})" if task.suffix else ""
    return Claim(
        id=f"rho-law{task.suffix}",
        statement=f"With m = B, rho* lambda/||g_m|| varies less over the batch sizes than rho* does{where}.",
        source="Long & Bartlett 2023: the edge of stability of SAM",
        kind="superior",
        metric=SPREAD,
        method=law("scaled", "rho* lambda/||g||", task),
        baseline=law("plain", "rho*", task),
        control=law("shuffled", "rho*, lambda/||g|| of another B", task),
        primary=primary,
        scales=task.scales,
        limits=SIZE,
    )


def smaller_m(task: Task) -> Claim:
    """Whether SAM gains more by perturbing each quarter of the full batch on its own."""
    return Claim(
        id=f"quarter-m{task.suffix}",
        statement=f"At the full batch SAM with m = B/4 has a lower error than with m = B ({task.words}).",
        source="Andriushchenko & Flammarion 2022: the perturbation batch must be small",
        kind="superior",
        metric=task.metric,
        method=trained("sam_quarter", task.full, task),
        baseline=trained("sam_batch", task.full, task),
        control=trained("sam_sub", task.full, task),
        primary=False,
        scales=task.scales,
        limits=SIZE,
    )


CLAIMS = (
    premise(CLEAN, primary=True),
    Claim(
        id="premise-sharpness",
        statement="SGD ends where the Hessian's largest eigenvalue is higher at the full batch than at B = 64.",
        source=QUESTION,
        kind="superior",
        metric=LAMBDA,
        effect="log_ratio",
        method=probed("sgd", CLEAN.small),
        baseline=probed("sgd", CLEAN.full),
        control=probed("sgd", CLEAN.middle),
        scales=LETTERS,
        limits=SIZE + " Sharpness is reported as an outcome, never as the explanation.",
    ),
    half_removed(CLEAN, primary=True),
    rho_at_fixed_m(CLEAN, primary=True),
    vanishes(CLEAN, primary=True),
    rho_law(CLEAN, primary=True),
    cheap(CLEAN, primary=True),
    Claim(
        id="cheap-step",
        statement="A step whose perturbation comes from a quarter of the batch costs at most 1.35 steps of SGD.",
        source="1 + 1/4 passes",
        kind="bound",
        metric=STEP,
        method=cost("sam_sub"),
        control=cost("sam_batch"),
        margin=1.35,
        primary=False,
        scales=LETTERS,
        limits="One perceptron on one CPU model.",
    ),
    full_batch(CLEAN),
    Claim(
        id="against-penalty",
        statement="At the full batch SAM (m = B) is not worse than a gradient-norm penalty, by more than 0.005.",
        source="Geiping et al. 2022: full-batch training needs such a penalty",
        kind="noninferior",
        metric=ERROR,
        method=trained("sam_batch", CLEAN.full, CLEAN),
        baseline=trained("penalty", CLEAN.full, CLEAN),
        control=trained("sgd", CLEAN.full, CLEAN),
        margin=0.005,
        primary=False,
        scales=LETTERS,
        limits=SIZE,
    ),
    premise(NOISY, primary=False),
    Claim(
        id="premise-passes",
        statement="That is no matter of training longer: SGD at B = 64 with as many passes as the full batch still "
        "has a lower error (best validation step, noisy labels).",
        source="control of the premise",
        kind="superior",
        metric=STOPPED,
        method=trained("sgd_long", NOISY.small, NOISY),
        baseline=trained("sgd", NOISY.full, NOISY),
        control=trained("sgd", NOISY.middle, NOISY),
        primary=False,
        scales=LETTERS,
        limits=SIZE,
    ),
    Claim(
        id="budgets-disagree",
        statement="With equal passes instead of equal updates the order turns round: on noisy labels the last weights "
        "of the full batch, stopped early as it were, have a lower error than those of B = 64.",
        source="equal epochs and equal updates give opposite conclusions",
        kind="superior",
        metric=ERROR,
        method=Arm("full batch, equal passes", "retrain", PASSES | {"batch": NOISY.full}),
        baseline=Arm("B = 64, equal passes", "retrain", PASSES | {"batch": NOISY.small}),
        control=trained("sgd", NOISY.full, NOISY, "full batch, equal updates"),
        primary=False,
        scales=LETTERS,
        limits=SIZE,
    ),
    half_removed(NOISY, primary=False),
    vanishes(NOISY, primary=False),
    cheap(NOISY, primary=False),
    full_batch(NOISY),
    rho_at_fixed_m(NOISY, primary=False),
    rho_law(NOISY, primary=False),
    smaller_m(CLEAN),
    premise(
        SMALL_RESNET,
        primary=False,
        control=trained("random", SMALL_RESNET.full, SMALL_RESNET),
        limits=SMALL_SIZE,
    ),
    full_batch(SMALL_RESNET, SMALL_SIZE),
    premise(RESNET, primary=False),
    full_batch(RESNET),
    premise(CIFAR, primary=True),
    half_removed(CIFAR, primary=True),
    vanishes(CIFAR, primary=True),
    cheap(CIFAR, primary=True),
    full_batch(CIFAR),
)
