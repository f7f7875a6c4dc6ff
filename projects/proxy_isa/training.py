"""One training on one fold: the embedder with the weights of its best look, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from common.errors import BadInputError
from common.files import digest
from common.tracking.record import Recorder
from common.training.fit import fit
from common.training.seeds import stream
from projects.proxy_isa import losses
from projects.proxy_isa.batches import ImageBatches
from projects.proxy_isa.embedder import Embedder, build
from projects.proxy_isa.images import Images
from projects.proxy_isa.learner import Learner, Plan, Seen
from projects.proxy_isa.task import Task

LEAST = 0.5  # the smallest class weight of Proxy-ISA must be below it by half of the training


class InertError(BadInputError):
    """A training that does not show what its arm is about: part of the rule never came to bear."""


def train(
    cfg: Mapping[str, Any],
    tuned: Mapping[str, float],
    fold: tuple[Images, Images],
    seed: int,
    out: Path,
    test: Task | None = None,
    record: Recorder | None = None,
) -> tuple[Embedder, Seen]:
    """Train, or continue; a training that has ended is only read.

    Args:
        cfg: sections `net`, `train`, `loss`, `rule`.
        tuned: learning rates and options of the loss.
        fold: trained on, held out.
        seed: of weights, proxies and order.
        out: its folder.
        test: whose test images are watched, see `Learner`.
        record: for the curve.

    Raises:
        NonFiniteError: it diverged.
        InertError: Proxy-ISA's class weights stayed high though `rule.must_weigh` is on, or fewer positive pairs were
            hard than `rule.least_hard`.
    """
    images, held = fold
    options = cfg["train"]
    batch, looks = int(options["batch"]), int(options["looks"])
    steps = max(looks, round(float(options["epochs"]) * len(images.y) / batch))
    per_class = len(images.y) / images.classes
    torch.manual_seed(stream(seed, "weights"))
    embedder = build(cfg["net"], images.shape)
    loss = losses.build(cfg, tuned, images.classes, per_class, steps, seed)
    plan = Plan(
        steps,
        -(-steps // looks),
        float(tuned["lr"]),
        float(tuned["proxy_lr"]),
        float(options["weight_decay"]),
        float(options["clip"]),
        str(options["decay"]),
        max(1, round(float(options["decay_every"]) * len(images.y) / batch)),
        float(options["gamma"]),
        str(options["optimizer"]),
        round(float(options["warmup"]) * len(images.y) / batch),
    )
    learner = Learner(embedder, loss, plan, held, test, record)
    data = ImageBatches(images, batch, steps, stream(seed, "order"), int(options["per_class"]))
    identity = digest([seed, sorted(tuned.items())])[:16]
    fit(learner, data, out, records=[record] if record else [], identity=identity, device=str(cfg["device"]))
    if cfg["loss"]["name"] == "proxy_isa":
        came_to_bear(cfg["rule"], learner.seen)
    embedder.load_state_dict(learner.seen.best)
    return embedder, learner.seen


def came_to_bear(rule: Mapping[str, Any], seen: Seen) -> None:
    """Refuse a training in which the part of the rule that its arm is about did nothing.

    Raises:
        InertError: see `train`.
    """
    if rule["must_weigh"] and seen.weight_at_half >= LEAST:
        raise InertError(
            f"the smallest class weight is {seen.weight_at_half:.2f} at half of the training, not below "
            f"{LEAST}: half of the method was inert. Lower rule.volume or train longer."
        )
    if seen.hard_share() < float(rule["least_hard"]):
        raise InertError(
            f"{seen.hard_share():.1%} of the positive pairs were hard, not {rule['least_hard']:.1%} or more: weighting "
            "them down shows nothing. Lower rule.width or raise rule.hardness."
        )
