"""What the house itself costs: start-up, fingerprints, an unchanged rerun, the engine's share of a study.

    .venv/bin/python benchmarks/house.py            (about a minute; prints seconds and ratios of this machine)

Every figure is the median of fresh processes on a toy study (tests/support), so it holds no learning at all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

# ruff: noqa: E402 - a script, started by path
from house import House, make_house

from common.study.config import compose
from common.study.jobs import expand, load_study
from common.study.tasks import plan_tasks
from common.tracking.provenance import cpu_model


def seconds(action: Callable[[], object], runs: int) -> float:
    """Median wall time of `action`."""
    times: list[float] = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def study_minutes(project: str, scale: str) -> tuple[int, float]:
    """Processes and estimated CPU-minutes of a real study."""
    jobs = expand(load_study(project), compose(project, scale))
    tasks = plan_tasks(jobs, Path("/nonexistent"))
    return len(tasks), sum(task.minutes for task in tasks)


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--runs", type=int, default=3)
    parse.add_argument("--project", default="opirl")
    options = parse.parse_args()
    print(f"CPU: {cpu_model()}")
    with tempfile.TemporaryDirectory() as folder:
        measure(make_house(Path(folder) / "house"), options.runs, options.project)


def measure(house: House, runs: int, project: str) -> None:
    """Print one line a figure."""
    reproduce = ("reproduce", "--project", "toy")
    wrong = seconds(lambda: house.run("plan", "--project", "toi", code=2), runs)
    print(f"unknown project refused in        {wrong:6.2f} s  (promised < 2 s)")
    first = seconds(lambda: house.run(*reproduce), 1)
    again = seconds(lambda: house.run(*reproduce), runs)
    print(f"22 jobs, 14 processes, no work    {first:6.2f} s")
    print(f"the same again: nothing to do     {again:6.2f} s  (promised < 10 s; ratio {again / first:.2f})")
    many = ("plan", "--project", "toy", "--seeds", "100")
    planned = seconds(lambda: house.run(*many), runs)
    print(f"plan of 402 jobs, fingerprints    {planned:6.2f} s  ({planned / 402 * 1000:.1f} ms a job)")
    processes, minutes = study_minutes(project, "laptop")
    started = seconds(lambda: expand(load_study(project), compose(project, "laptop")), runs)
    print(f"{project} laptop expanded in        {started:6.2f} s")
    each = first / 14
    share = each * processes / (minutes * 60)
    print(
        f"engine: {each:.2f} s a process, {processes} in {minutes:.0f} CPU-minutes: {share:.1%} (promised < 5 %)"
    )


if __name__ == "__main__":
    main()
