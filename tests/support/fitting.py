"""A toy house whose counter is a Lightning training that several processes may share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from house import REPOSITORY, House, make_house

RUN = """
from pathlib import Path
from parallel_fit import Data, Net
from common.cluster.ranks import place
from common.training.fit import fit
from common.training.seeds import seed_everything


def run(cfg, inputs, out):
    seed_everything(cfg["axes"]["seed"])
    net = Net(0.0)
    fit(net, Data(cfg["toy"]["steps"]), out)
    with Path("ranks.txt").open("a") as file:
        file.write(f"{place().rank} {place().size} {place().node} {place().starter}\\n")
    return {"score": sum(float(weight.sum()) for weight in net.parameters())}
"""
SMALL = ("toy.steps=20", "seeds.count=1", "--only", "count,fast")


def fitting(root: Path) -> House:
    """The house."""
    house = make_house(root)
    (root / "projects" / "toy" / "fit.py").write_text(RUN)
    shutil.copy(REPOSITORY / "tests" / "support" / "parallel_fit.py", root)
    house.edit("projects/toy/study.py", "projects.toy.stages:count", "projects.toy.fit:run")
    house.edit("projects/toy/study.py", 'config=("toy",)),', 'config=("toy",), parallel=("ddp", "fsdp")),')
    return house


def ranks(house: House) -> list[str]:
    """``rank size node starter`` of every process that trained."""
    return sorted((house.root / "ranks.txt").read_text().splitlines())


def score(house: House) -> float:
    """The sum of all weights after the training."""
    return json.loads(next(house.runs().glob("count/*/metrics.json")).read_text())["score"]
