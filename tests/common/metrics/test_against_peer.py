"""Against pytorch-metric-learning's AccuracyCalculator, and what the evaluation takes in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor

from common.metrics.retrieval import retrieval

NAMES = {
    "precision_at_1": "recall_at_1",
    "mean_average_precision_at_r": "map_at_r",
    "r_precision": "r_precision",
}


def peer(*given: Tensor, ref_includes_query: bool = False) -> dict[str, float]:
    """Its defaults rank the whole gallery, by a faiss that is not installed."""
    calculator = AccuracyCalculator(
        include=tuple(NAMES), k="max_bin_count", knn_func=CustomKNN(CosineSimilarity(), batch_size=128),
        device=torch.device("cpu"),
    )  # fmt: skip
    found = calculator.get_accuracy(*given, ref_includes_query=ref_includes_query)
    return {ours: found[theirs] for theirs, ours in NAMES.items()}


def embeddings(n: int, classes: int, noise: float) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (n,), generator=draw)
    centres = torch.randn(classes, 24, generator=draw)
    return centres[labels] + noise * torch.randn(n, 24, generator=draw), labels


@pytest.mark.parametrize(("classes", "noise"), [(3, 2.0), (40, 0.7), (40, 2.0), (300, 1.0)])
def test_the_same_values(classes: int, noise: float) -> None:
    x, labels = embeddings(800, classes, noise)
    ours = retrieval(x, labels, ks=(1,), unmatched="exclude").means()
    assert ours == pytest.approx(peer(x, labels), abs=1e-5)  # it ranks in float32: near ties swap
    assert 0.01 < ours["map_at_r"] < 0.99


def test_the_same_values_for_queries_and_gallery() -> None:
    x, labels = embeddings(900, 30, 1.0)
    x[::7, 3] += 2.0
    ours = retrieval(x[:250], labels[:250], x[250:], labels[250:], ks=(1,)).means()
    assert ours == pytest.approx(peer(x[:250], labels[:250], x[250:], labels[250:]), abs=1e-5)


def test_ours_is_chance_where_the_order_of_the_data_decides_in_the_peer() -> None:
    x, labels = torch.ones(60, 24), torch.arange(6).repeat_interleave(10)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    ours = [retrieval(x, y, ks=(1,)).means()["r_precision"] for y in (labels, labels[order])]
    assert ours == pytest.approx([9 / 59] * 2)
    theirs = [peer(x, y)["r_precision"] for y in (labels, labels[order])]
    assert theirs[0] != pytest.approx(theirs[1], abs=1e-3)


PEAK = """
import sys, torch
from common.metrics.retrieval import retrieval
torch.set_num_threads(1)
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
n, d, collapsed = int(sys.argv[1]), 64, sys.argv[2] == "collapsed"
x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
if collapsed:
    x[:] = x[0].clone()
labels = torch.arange(n) % (n // 5)
retrieval(x[:64], labels[:64], x[:64], labels[:64], ks=(1,))
before = peak()
queries = 300 if collapsed else n
retrieval(x[:queries], labels[:queries], x, labels)
print(peak() - before)
"""


@pytest.mark.parametrize(("n", "kind"), [(12_000, "clusters"), (20_000, "collapsed")])
def test_memory_does_not_grow_with_the_square(n: int, kind: str) -> None:
    """Of 12,000 the similarities alone are 549 MiB; the 6 million ties of 300 queries, ranked at once, 1.1 GiB."""
    command = [sys.executable, "-c", PEAK, str(n), kind]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < grown < 64 + 420 + 4 * n * 64 / 2**20
