"""The card's examples run as they stand there, and its numbers are those of the laptop study."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import projects.sam_batch_study
from common.study.collect import read_csv
from common.study.config import ROOT

LAPTOP = ROOT / "results" / "sam_batch_study" / "laptop"


def card() -> str:
    (folder,) = projects.sam_batch_study.__path__
    return (Path(folder) / "README.md").read_text(encoding="utf-8")


def table(stage: str, **axes: Any) -> list[dict[str, Any]]:
    rows = read_csv(LAPTOP / "table.csv")
    return [row for row in rows if row["stage"] == stage and axes.items() <= row.items()]


def says(text: str) -> bool:
    """Whether the card says so, wherever its lines break."""
    return text in " ".join(card().split())


def test_training_losses_are_those_of_the_study() -> None:
    losses: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in table("retrain", task="clean"):
        if row["fitted"] == 1:
            losses[row["method"], row["batch"]].append(row["train_loss"])
    means = {arm: float(np.mean(each)) for arm, each in losses.items()}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    assert (low, high) == (("sgd", 2048), ("sam_small", 256))
    assert says(f"{means[low]:.4f} (SGD at B = n) and {means[high]:.4f} (`sam_small` at B = 256)")


def test_losses_at_which_the_law_takes_lambda_are_those_of_the_study() -> None:
    rows: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in read_csv(LAPTOP / "curves.csv"):
        if row["stage"] == "probe" and row["method"] == "sam_batch":
            rows[row["task"], row["batch"], row["seed"], row["step"]][row["key"]] = row["value"]
    losses: dict[tuple[str, float], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, batch, *_), row in rows.items():
        losses[task, row["level"]][batch].append(row["train_loss"])
    means = {
        key: {batch: float(np.mean(each)) for batch, each in found.items()} for key, found in losses.items()
    }
    first, half, noisy = (means[key] for key in (("clean", 2.0), ("clean", 0.5), ("noisy", 2.0)))
    assert set(means) == {("clean", level) for level in (2.0, 0.5, 0.1, 0.03)} | {("noisy", 2.0)}
    assert says(
        f"between {min(first.values()):.2f} and {max(first.values()):.2f} at the level 2.0 of clean labels"
    )
    assert (half[512], half[64]) == (min(half.values()), max(half.values()))
    assert says(f"between {half[512]:.2f} (B = 512) and {half[64]:.2f} (B = 64) at 0.5")
    assert says(f"(means {min(noisy.values()):.2f} to {max(noisy.values()):.2f})")


def test_extensions_of_the_sweeps_are_those_of_the_study() -> None:
    def count(**axes: str) -> tuple[int, int, int]:
        rows = table("sweep", **axes)
        return sum(row["extended"] for row in rows), len(rows), sum(row["open"] for row in rows)

    clean, noisy = (count(task=task, method="sam_small") for task in ("clean", "noisy"))
    batch = count(task="noisy", method="sam_batch")
    assert says(
        f"{clean[0]:g} of its {clean[1]} sweeps on clean labels needed the one value more beyond an end"
    )
    assert says(f"and {noisy[0]:g} of {noisy[1]} on noisy ones")
    assert says(
        f"{batch[0]:g} of {batch[1]} needed it, and in {batch[2]:g} the best value still lies at an end"
    )


def test_no_claim_on_real_images_is_about_the_best_rho() -> None:
    from projects.sam_batch_study.study import STUDY

    read = [repr(claim) for claim in STUDY.claims if "paper" in claim.scales]
    assert read and all("'cifar10'" in text for text in read)
    assert not any(word in text for text in read for word in ("imagenet", "cifar100", "cifar10_bn"))
    assert not any(word in text for text in read for word in ("best_rho", "spread"))


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card(), re.DOTALL)
    assert len(blocks) == 2
    torch.manual_seed(0)
    exec("".join(blocks), {"__name__": "example"})
    loss, found = capsys.readouterr().out.splitlines()
    assert 1.0 < float(loss) < 3.0
    rho, low, high = map(float, found.split())
    assert 0 <= low <= rho <= high
