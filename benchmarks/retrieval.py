"""What an evaluation costs: ours against pytorch-metric-learning's AccuracyCalculator, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/retrieval.py           (about three minutes)

Recall at 1, MAP@R and R-precision of 128-d embeddings, five images a class as in Stanford Online Products, one thread.
The peer as it is fast: nearest neighbours in batches of 512 and k="max_bin_count"; its default, k=None, ranks the whole
gallery, and is measured once where that fits. Each measurement is a process of its own: CPU-seconds, and the peak of
its resident memory above what the imports and the embeddings took. Of some rounds, in an order that turns, the median
of the ratio within a round. Beside it: ours with faiss, where it is installed, whose values must be the same to the
bit; and embeddings that collapsed to one point, or to 600.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch import Tensor

from common.metrics.retrieval import retrieval
from common.tracking.provenance import cpu_model

D, PER_CLASS, BATCH = 128, 5, 512
ROUNDS = {10_000: 3, 60_000: 1}
PROMISED = {10_000: 1.0, 60_000: 1.0}
"""Ours over the peer's CPU-seconds: not slower."""
NAMES = {
    "precision_at_1": "recall_at_1",
    "mean_average_precision_at_r": "map_at_r",
    "r_precision": "r_precision",
}
SAME = 1.5
"""A collapsed network's evaluation over that of one that did not collapse: no slower, but for noise."""
TOLERANCE = 1e-4
"""The peer ranks in float32 and averages in float32."""


def embeddings(n: int) -> tuple[Tensor, Tensor]:
    """Noisy clusters, not saturated."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % (n // PER_CLASS)
    centres = torch.randn(n // PER_CLASS, D, generator=draw)
    return centres[labels] + 1.5 * torch.randn(n, D, generator=draw), labels


def ours(x: Tensor, labels: Tensor) -> dict[str, float]:
    return retrieval(x, labels, ks=(1,), engine="torch").means()


def with_faiss(x: Tensor, labels: Tensor) -> dict[str, float]:
    return retrieval(x, labels, ks=(1,), engine="faiss").means()


def collapsed(x: Tensor, labels: Tensor, points: int = 1) -> dict[str, float]:
    """Every embedding is one of the first `points`."""
    return ours(x[torch.arange(len(x)) * 7 % points], labels)


def few_points(x: Tensor, labels: Tensor) -> dict[str, float]:
    return collapsed(x, labels, 600)


def peer(x: Tensor, labels: Tensor, k: str | None = "max_bin_count") -> dict[str, float]:
    """As its documentation writes it, without faiss."""
    knn = CustomKNN(CosineSimilarity(), batch_size=BATCH)
    calculator = AccuracyCalculator(include=tuple(NAMES), k=k, knn_func=knn, device=torch.device("cpu"))
    found = calculator.get_accuracy(x, labels)
    return {name: found[theirs] for theirs, name in NAMES.items()}


def peer_default(x: Tensor, labels: Tensor) -> dict[str, float]:
    return peer(x, labels, None)


ARMS = {
    "ours": ours,
    "ours, faiss": with_faiss,
    "ours, one point": collapsed,
    "ours, 600 points": few_points,
    "peer": peer,
    "peer, k=None": peer_default,
}


def peak() -> float:
    """The largest resident memory of this process so far, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def child(arm: str, n: int) -> None:
    """One measurement, printed for the parent."""
    torch.set_num_threads(1)
    x, labels = embeddings(n)
    warm = 1000  # what the first call alone pays
    ARMS[arm](x[:warm], torch.arange(warm) % (warm // PER_CLASS))
    before, started = peak(), time.process_time()
    values = ARMS[arm](x, labels)
    print(json.dumps({"seconds": time.process_time() - started, "peak": peak() - before, "values": values}))


def measured(arm: str, n: int) -> dict[str, float]:
    """Seconds, peak and values of one process."""
    command = [sys.executable, __file__, arm, str(n)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"seconds": found["seconds"], "peak": found["peak"], **found["values"]}


def compare(n: int, rounds: int, promised: float) -> bool:
    """Print the two at one size; False when a promise is broken or the values differ."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for number in range(rounds):
        for arm in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
            runs[arm].append(measured(arm, n))
    for arm, each in runs.items():
        print(line(f"N = {n:,}: {arm}", each))
    pairs = list(zip(runs["ours"], runs["peer"], strict=True))
    ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)
    apart = max(abs(a[name] - b[name]) for a, b in pairs for name in NAMES.values())
    kept = ratio <= promised and apart <= TOLERANCE
    print(
        f"{f'N = {n:,}: ours / peer':26s} {ratio:8.3f} x  promised <= {promised:g}, values within {TOLERANCE:g} "
        f"(apart by {apart:.1e}): {'kept' if kept else 'broken'}"
    )
    return kept


def faiss_and_copies(n: int) -> bool:
    """Print ours with faiss and on copies; False when a bit differs or copies cost more."""
    plain, same = measured("ours", n), True
    if importlib.util.find_spec("faiss"):
        found = measured("ours, faiss", n)
        same = all(found[name] == plain[name] for name in NAMES.values())
        print(line(f"N = {n:,}: ours, faiss", [found]))
        ratio = found["seconds"] / plain["seconds"]
        print(f"{f'N = {n:,}: faiss / torch':26s} {ratio:8.3f} x  same bits: {'kept' if same else 'broken'}")
    slowest = 0.0
    for arm in ("ours, one point", "ours, 600 points"):
        found = measured(arm, n)
        print(line(f"N = {n:,}: {arm}", [found]))
        slowest = max(slowest, found["seconds"] / plain["seconds"])
    kept = slowest <= SAME
    print(
        f"{f'N = {n:,}: copies / ours':26s} {slowest:8.3f} x  promised <= {SAME:g}: {'kept' if kept else 'broken'}"
    )
    return same and kept


def line(name: str, runs: list[dict[str, float]]) -> str:
    """Medians of some runs."""
    seconds = statistics.median(run["seconds"] for run in runs)
    return f"{name:26s} {seconds:8.2f} CPU-s {statistics.median(run['peak'] for run in runs):8.0f} MiB"


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    print(f"CPU: {cpu_model()}")
    kept = [compare(n, rounds, PROMISED[n]) for n, rounds in ROUNDS.items()]
    kept += [faiss_and_copies(n) for n in ROUNDS]
    print(line("N = 5,000: ours", [measured("ours", 5_000)]))
    print(line("N = 5,000: peer, k=None", [measured("peer, k=None", 5_000)]))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(main())
