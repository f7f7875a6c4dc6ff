"""The files of the real images that a training reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.data.ondisk import on_disk

FILES = {
    "cifar10": ("cifar-10-batches-bin/*_batch*", "cifar-10-batches-py/*_batch*"),
    "cifar100": ("cifar-100-binary/t*", "cifar-100-python/t*"),
    "imagenet": ("imagenet/ILSVRC2012_devkit_t12/data/*",),
}


def data(cfg: Mapping[str, Any]) -> str:
    """Their digest; of letters, ""."""
    return on_disk(FILES.get(str(cfg["images"]["source"]), ()))
