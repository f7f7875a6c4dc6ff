"""The lists of the photographs and the file of weights that a training reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.data.ondisk import on_disk

LISTS = {
    "cub": "CUB_200_2011/*.txt",
    "cars": "cars196/cars_annos.mat",
    "sop": "Stanford_Online_Products/Ebay_*.txt",
    "inshop": "Inshop_Clothes/Eval/list_eval_partition.txt",
}


def data(cfg: Mapping[str, Any]) -> str:
    """Their digest; of letters and a net without weights, ""."""
    name, weights = str(cfg["axes"]["data"]).removesuffix("_inception"), cfg["net"]["weights"]
    return on_disk([*([LISTS[name]] if name in LISTS else []), *([str(weights)] if weights else [])])
