"""The config section `parallel`: a training on several processes, as one job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common.cluster.ranks import STRATEGIES
from common.errors import BadInputError, unknown
from common.study.model import Resources, Stage

DEVICES = ("cpu", "cuda")


def resources(stage: Stage, cfg: Mapping[str, Any]) -> Resources:
    """What a job of a stage asks for; with `device` cuda, each process of a training one GPU.

    Raises:
        BadInputError: a number below 1, an unknown device or strategy, or one that is not for this stage, several
            nodes on one machine, or a batch that the processes cannot share.
    """
    device = str(cfg["device"])
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda" and stage.parallel and "device" not in stage.config:
        raise BadInputError(f"device=cuda: stage {stage.name} trains on the CPU only.")
    nodes, processes, strategy = (cfg["parallel"][key] for key in ("nodes", "processes", "strategy"))
    if min(nodes, processes) < 1:
        raise BadInputError(f"parallel.nodes={nodes}, parallel.processes={processes}: at least 1.")
    if strategy not in STRATEGIES:
        raise unknown("parallel.strategy", str(strategy), STRATEGIES)
    if nodes > 1 and cfg["launch"]["executor"] == "local":
        raise BadInputError(f"parallel.nodes={nodes}: LAUNCH=local is one machine; take parallel.processes.")
    asked = stage.resources
    if stage.parallel and nodes * processes > 1 and strategy not in stage.parallel:
        raise BadInputError(
            f"parallel.strategy={strategy}: stage {stage.name} runs on several processes by "
            f"{', '.join(stage.parallel)} only (docs/clusters.md says why)."
        )
    for key, rows in stage.shares.items():
        section, name = key.split(".")
        if nodes * processes > 1 and int(cfg[section][name]) % (rows * nodes * processes):
            raise BadInputError(
                f"{key} is {cfg[section][name]}: {nodes * processes} processes need a multiple of "
                f"{rows * nodes * processes}."
            )
    if stage.parallel:
        asked = replace(asked, nodes=max(asked.nodes, nodes), processes=max(asked.processes, processes))
    if device == "cuda" and "device" in stage.config:
        asked = replace(asked, gpus=max(asked.gpus, asked.processes))
    return asked


def words(cfg: Mapping[str, Any]) -> dict[str, str]:
    """For the fingerprint: several processes round otherwise than one; of one process, nothing."""
    nodes, processes = (int(cfg["parallel"][key]) for key in ("nodes", "processes"))
    if nodes * processes == 1:
        return {}
    return {"processes": f"{nodes} x {processes}", "strategy": str(cfg["parallel"]["strategy"])}
