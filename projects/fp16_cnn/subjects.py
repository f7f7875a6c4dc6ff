"""What a precision is judged on: a network as torch and as a program, with images that it is told of and others."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from common.errors import BadInputError
from common.training.seeds import generator, stream
from common.training.weights import load_weights
from projects.fp16_cnn import letters
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.learn import FILE, load
from projects.fp16_cnn.networks import architecture, library
from projects.fp16_cnn.program import Program

FITTED = 16  # noise images that batch norm is calibrated on


@dataclass(frozen=True)
class Subject:
    """A network and its images.

    Attributes:
        net: in evaluation mode.
        program: the same, for the kernels.
        known: images for choices.
        held: other images, for what is reported.
        labels: of `held`; None where there are none.
        words: what it is, for a person.
    """

    net: nn.Module
    program: Program
    known: Float32[Tensor, "m c h w"]
    held: Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"] | None
    words: str


def trained(path: Path) -> Subject:
    """A network that the stage `learn` saved, on its own letters.

    Raises:
        BadInputError: the file cannot be used.
    """
    found = load(path)
    known, held = letters.validation(found.seed, found.images), letters.held_out(found.seed, found.images)
    program = import_model(found.net, held.x[:1])
    words = f"{found.name} trained on letters, seed {found.seed}"
    return Subject(found.net, program, known.x, held.x, held.y, words)


def named(name: str, seed: int, images: int, size: int, weights: Path | None = None) -> Subject:
    """A network of `networks.architecture`, and noise as images.

    Errors on noise say little of a trained network's: they are larger, and its margins smaller.

    Args:
        weights: a file of its state dict; None: random (Kaiming) weights, batch norm calibrated on noise.

    Raises:
        BadInputError: there is no such network, it cannot be imported, or the file does not fit.
    """
    net = architecture(name, stream(seed, "weights"))
    known, held = noise(seed, images, (3, size, size))
    if weights is None:
        calibrate(net, noise(stream(seed, "calibration"), FITTED, (3, size, size))[0])
    else:
        load_weights(net, weights)
    told = f"the weights of {weights.name}" if weights else "RANDOM weights"
    words = f"{library(name)}'s {name} with {told} on noise images"
    return Subject(net, import_model(net, held[:1], fallback=True), known, held, None, words)


def own(path: Path, function: str, images: int) -> Subject:
    """What a function of a user's file returns: a network, or (network, images [n, c, h, w]).

    The first half of the images is for choices; a network alone gets noise of 3 x 224 x 224.

    Raises:
        BadInputError: no such file or function, or something else returned.
    """
    made = _call(path, function)
    net, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(net, nn.Module):
        raise BadInputError(
            f"{path}:{function} must return a torch module, or (module, images), not {_kind(made)}."
        )
    if given is None:
        known, held = noise(0, images, (3, 224, 224))
        words = f"{type(net).__name__} of {path.name} on noise images of 3 x 224 x 224"
    else:
        known, held = _halves(given, f"{path}:{function}")
        words = f"{type(net).__name__} of {path.name} on its {len(given)} images"
    net.eval().float()
    return Subject(net, import_model(net, held[:1], fallback=True), known, held, None, words)


def of_job(cfg: Mapping[str, Any], learned: Path | None) -> Subject:
    """The subject of a stage: a finished `learn` job, or a random network of the name of the axis `net`."""
    if learned is not None:
        return trained(learned / FILE)
    noisy, axes = cfg["noise"], cfg["axes"]
    return named(str(axes["net"]), int(axes["seed"]), int(noisy["images"]), int(noisy["size"]))


def noise(seed: int, n: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Twice `n` images of standard normal numbers, float32."""
    drawn = torch.randn((2, n, *shape), generator=generator(seed, "noise"))
    return drawn[0], drawn[1]


@torch.no_grad()
def calibrate(net: nn.Module, x: Float32[Tensor, "n c h w"]) -> None:
    """Put the statistics of these images into every batch norm, as a training would; leaves evaluation mode on."""
    net.eval()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    net(x)
    net.eval()


def _call(path: Path, function: str) -> Any:
    if not path.is_file():
        raise BadInputError(f"no file {path}; MODEL is a torchvision name, a {FILE} or path.py:function.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInputError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise BadInputError(f"{path} has no function {function!r}.")
    try:
        return getattr(module, function)()
    except Exception as error:
        raise BadInputError(f"{path}:{function}() failed: {type(error).__name__}: {error}") from error


def _halves(images: Any, source: str) -> tuple[Tensor, Tensor]:
    if (
        not isinstance(images, Tensor)
        or images.dim() != 4
        or len(images) < 2
        or not images.is_floating_point()
    ):
        raise BadInputError(
            f"{source} must return its images as one tensor [n, channels, height, width] of two or more, in the "
            f"network's own normalisation, not {_kind(images)}."
        )
    half = len(images) // 2
    return images[:half].float(), images[half:].float()


def _kind(value: Any) -> str:
    return (
        f"a tensor {list(value.shape)} of {value.dtype}"
        if isinstance(value, Tensor)
        else type(value).__name__
    )
