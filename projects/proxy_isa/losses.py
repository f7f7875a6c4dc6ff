"""The loss of a config: Proxy-ISA by its rule, or a rival; what was tuned replaces what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from common.training.seeds import stream
from projects.proxy_isa import rivals
from projects.proxy_isa.loss import ProxyISA
from projects.proxy_isa.weights import Rule, rule_of

OPTIMISER = ("lr", "proxy_lr")  # tuned for every loss, and no option of it
PROXIES = {"soft_triple": "centers", "proxy_gml": "per_class"}
REMEMBERED = 55_000 / (100 * 5_864)  # as released: of the samples seen in 100 epochs of CUB-200-2011


def build(
    cfg: Mapping[str, Any], tuned: Mapping[str, float], classes: int, per_class: float, steps: int, seed: int
) -> nn.Module:
    """A loss with its initial proxies, a pure function of the arguments.

    Args:
        cfg: sections `loss` (`name`; `memory`, a share of the training images that a rival remembers across batches
            from `memory_start` of the steps on; `proxies` of a class, where a rival has several), `rule` (of Proxy-ISA,
            see `rule`) and `net` (`dim`).
        tuned: values by name; those of `OPTIMISER` are not the loss's.
        classes: C.
        per_class: mean number of images a class.
        steps: of the training; an epoch of Proxy-ISA's filter is C · per_class / batch of them.
        seed: of the proxies.

    Raises:
        BadInputError: an unknown name or option.
    """
    name, dim = str(cfg["loss"]["name"]), int(cfg["net"]["dim"])
    options = {key: value for key, value in tuned.items() if key not in OPTIMISER}
    torch.manual_seed(stream(seed, "proxies"))
    if name != "proxy_isa":
        images, section = classes * per_class, cfg["loss"]
        memory = round(float(section["memory"]) * images)
        start = round(float(section["memory_start"]) * steps)
        given: dict[str, Any] = {"name": name, "memory": memory, "memory_start": start}
        if section["proxies"] is not None and name in PROXIES:
            given[PROXIES[name]] = int(section["proxies"])
        return rivals.build(given | options, classes, dim)
    return ProxyISA(classes, dim, rule(cfg, options, classes, per_class, steps), seed)


def rule(
    cfg: Mapping[str, Any], tuned: Mapping[str, float], classes: int, per_class: float, steps: int
) -> Rule:
    """Proxy-ISA's rule with its shares of the training turned into steps and features.

    `start` is a share of the steps; `volume` null is the mean number of images a class, `capacity` null the released
    share of all samples seen.
    """
    known = {each.name for each in fields(Rule)}
    options = {key: value for key, value in cfg["rule"].items() if key in known}
    start = round(float(options["start"]) * steps)
    epoch = max(1, round(classes * per_class / int(cfg["train"]["batch"])))
    volume = per_class if options["volume"] is None else float(options["volume"])
    capacity = options["capacity"]
    if capacity is None:
        capacity = max(1, round(REMEMBERED * steps * int(cfg["train"]["batch"])))
    scaled = {"start": start, "filter": start + epoch, "volume": volume, "capacity": int(capacity)}
    return rule_of(options | scaled | dict(tuned))
