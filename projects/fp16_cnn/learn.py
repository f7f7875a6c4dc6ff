"""Stage `learn`: train a small network on a seed's letters; the networks whose accuracy means something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.errors import BadInputError
from common.study.model import Inputs, Metrics
from common.tracking.record import Recorder, read_history
from common.training import checkpoint
from common.training.fit import fit
from common.training.seeds import stream
from common.training.weights import put_weights
from projects.fp16_cnn import letters
from projects.fp16_cnn.module import Batches, Classifier, Schedule, accuracy
from projects.fp16_cnn.nets import build

FILE = "net.ckpt"


@dataclass(frozen=True)
class Trained:
    """A trained network, with what draws its images again.

    Attributes:
        net: in evaluation mode.
        name: in `nets.NETS`.
        seed, images: the arguments of `letters.held_out`.
    """

    net: nn.Module
    name: str
    seed: int
    images: Mapping[str, Any]


def run(cfg: Mapping[str, Any], inputs: Inputs, out: Path) -> Metrics:
    """Train, save, and test once.

    Metrics: `accuracy` on the held-out images (one a source), `validation_accuracy`, `train_loss` (of the last batch),
    `parameters`.
    """
    images, train, axes = cfg["images"], cfg["train"], cfg["axes"]
    name, seed = str(axes["net"]), int(axes["seed"])
    shown, watched = letters.training(seed, images), letters.validation(seed, images)
    torch.manual_seed(stream(seed, "weights"))
    net = build(name, int(images["classes"])).to(
        memory_format=torch.channels_last
    )  # depthwise layers a third faster
    schedule = Schedule(
        int(train["steps"]),
        float(train["lr"]),
        float(train["warmup"]),
        float(train["weight_decay"]),
        int(train["looks"]),
    )
    batches = Batches(shown, int(train["batch"]), schedule.steps, stream(seed, "order"))
    with Recorder(out) as record:
        classifier = Classifier(net, schedule, watched, record)
        fit(classifier, batches, out, records=[record], identity=f"{name} {seed}", device=str(cfg["device"]))
    net.cpu().eval()
    save(Trained(net, name, seed, images), out / FILE)
    last = read_history(out / "history.jsonl")[-1]
    return {
        "accuracy": accuracy(net, letters.held_out(seed, images)),
        "validation_accuracy": float(last["validation_accuracy"] or 0.0),
        "train_loss": float(last["loss"] or 0.0),
        "parameters": float(sum(parameter.numel() for parameter in net.parameters())),
    }


def save(trained: Trained, path: Path) -> None:
    """Write a trained network as plain data, its SHA-256 beside it."""
    state = {"net": trained.name, "seed": trained.seed, "images": dict(trained.images)}
    checkpoint.write(path, {**state, "state_dict": trained.net.state_dict()})


def load(path: Path) -> Trained:
    """Read what `save` wrote.

    Raises:
        BadInputError: absent, damaged, no network of this study, or the weights of another one.
    """
    state = checkpoint.read(path)
    if not {"net", "seed", "images", "state_dict"} <= set(state):
        raise BadInputError(
            f"{path} holds no network of the stage learn: it lacks net, seed, images or state_dict."
        )
    net = build(str(state["net"]), int(state["images"]["classes"]))
    put_weights(net, state["state_dict"], str(path))
    return Trained(net.eval(), str(state["net"]), int(state["seed"]), state["images"])
