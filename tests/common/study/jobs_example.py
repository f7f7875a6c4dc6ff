"""A small study of plain jobs, for tests of what happens to jobs around their run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.files import write_json
from common.study.jobs import Job, expand
from common.study.model import Need, Stage, Study
from common.study.store import mark_done, write_spec

RUN = "common.files:digest"  # any code of the repository
TRAIN = Stage("train", RUN, ("arm", "seed"), config=("model",), stacked="seed")
TEST = Stage("test", RUN, ("arm", "seed"), (Need("train"),), config=("model",))
MEAN = Stage("mean", RUN, ("arm",), (Need("test"),))
STUDY = Study("demo", "A demo", "", "", (TRAIN, TEST, MEAN), packages=())


def config(**changes: Any) -> dict[str, Any]:
    """A composed configuration: two arms, three seeds and one for validation."""
    base: dict[str, Any] = {
        "device": "cpu",
        "threads": 1,
        "parallel": {"nodes": 1, "processes": 1, "strategy": "ddp"},
        "launch": {"executor": "local"},
        "seeds": {"first": 0, "count": 3},
        "validation_seeds": {"first": 900, "count": 1},
        "grid": {name: [{"arm": ["a", "b"]}] for name in ("train", "test")},
        "variants": {"arm": {"b": {"model": {"width": 8}}}},
        "minutes": {"train": 2.0},
        "megabytes": {},
        "memory_gb": {},
        "model": {"width": 4, "cap": 100, "source": None},
    }
    return base | changes


def jobs(**changes: Any) -> list[Job]:
    """The study's jobs, producers first."""
    base = config(**changes)
    return expand(STUDY, base | {"grid": base["grid"] | {"mean": [{"arm": ["a", "b"]}]}})


def of(found: list[Job], stage: str, **axes: Any) -> list[Job]:
    """The jobs of a stage at some axis values."""
    return [job for job in found if job.stage.name == stage and axes.items() <= dict(job.axes).items()]


def provenance(start: float = 0.0, end: float = 60.0, cpu: float = 30.0, **more: Any) -> dict[str, Any]:
    """What a finished job says about its circumstances, as far as a result reads it."""
    return {
        "started": start,
        "ended": end,
        "cpu_seconds": cpu,
        "peak_memory_bytes": 1_000_000,
        "git": {"commit": "c0ffee", "dirty": False},
        "cpu": {"model": "A processor"},
        "gpus": [],
        "usable_cores": 2,
        "python": "3.11.7",
        "packages": {"numpy": "2.4"},
        **more,
    }


def finish(
    job: Job, root: Path, history: str = "", metrics: dict[str, float] | None = None, **record: Any
) -> Path:
    """Let a job be done, without running it."""
    folder = write_spec(job, "laptop", root)
    write_json(folder / "provenance.json", provenance(**{"process": job.fingerprint} | record))
    if history:
        (folder / "history.jsonl").write_text(history)
    mark_done(folder, metrics or {"score": float(job.axes.get("seed", 0))})
    return folder
