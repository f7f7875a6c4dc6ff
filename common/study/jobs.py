"""From a study and a configuration to its jobs: the grid, each job's own config, inputs and fingerprint."""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import BadInputError, unknown
from common.study import parallel
from common.study.config import ROOT, flatten, lookup
from common.study.fingerprint import code_hashes, environment, short
from common.study.model import AxisValue, Need, Resources, Stage, Study

ESTIMATES = ("minutes", "megabytes", "memory_gb")
"""Config sections stage -> number, which variants may change and no fingerprint holds."""


@dataclass(frozen=True, eq=False)
class Job:
    """A stage at one point of its axes.

    Attributes:
        project: the study's name.
        stage: the stage.
        axes: axis -> value, in the stage's order.
        config: the sections that the stage declares, variants merged, and ``axes``.
        inputs: producer stage -> its jobs, sorted by axes.
        parts: what the fingerprint is made of, for `make why`.
        fingerprint: 16 hex digits; the folder's name.
        resources: those of the stage, with the memory, processes and devices of the configuration.
        role: "study", or "validation" for the seeds that choices are made on.
        minutes: estimate for one process.
        megabytes: estimate for the folder.
    """

    project: str
    stage: Stage
    axes: Mapping[str, AxisValue]
    config: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Job]]
    parts: Mapping[str, Any]
    fingerprint: str
    resources: Resources
    role: str
    minutes: float
    megabytes: float

    def folder(self, root: Path = ROOT) -> Path:
        """results/.runs/<project>/<stage>/<fingerprint>/."""
        return root / "results" / ".runs" / self.project / self.stage.name / self.fingerprint

    @property
    def label(self) -> str:
        """For a person: ``imitate method=opirl env=hopper seed=0``."""
        return " ".join([self.stage.name, *(f"{axis}={value}" for axis, value in self.axes.items())])


def load_study(project: str) -> Study:
    """Import projects/<project>/study.py and return its STUDY."""
    study = importlib.import_module(f"projects.{project}.study").STUDY
    assert isinstance(study, Study)
    return study


def expand(study: Study, cfg: Mapping[str, Any], root: Path = ROOT, cpu: str | None = None) -> list[Job]:
    """All jobs of a study at one configuration, producers before consumers; on this CPU model, or as on another.

    Raises:
        BadInputError: the grid names an unknown stage or axis, a variant an unknown key, or a need has no job.
    """
    names = [stage.name for stage in study.stages]
    for name in cfg["grid"]:
        if name not in names:
            raise unknown("stage in grid", name, names)
    jobs: dict[str, list[Job]] = {}
    for stage in study.stages:
        points = _points(stage, cfg)
        jobs[stage.name] = [_job(study, stage, point, cfg, jobs, root, cpu) for point in points]
    return [job for stage in names for job in jobs[stage]]


def select(jobs: Sequence[Job], only: Iterable[str]) -> list[Job]:
    """The jobs whose stage or axis values cover all words of `only`, with everything they need.

    Words that name stages are alternatives, and so are words that name values of one axis.

    Raises:
        BadInputError: a word names neither a stage nor an axis value.
    """
    groups: dict[str, set[str]] = {}
    for word in only:
        groups.setdefault(_kind_of(word, jobs), set()).add(word)
    wanted = [job for job in jobs if all(_value(job, kind) in words for kind, words in groups.items())]
    keep: set[str] = set()
    todo = list(wanted)
    while todo:
        job = todo.pop()
        keep.add(job.fingerprint)
        todo += [need for needs in job.inputs.values() for need in needs if need.fingerprint not in keep]
    return [job for job in jobs if job.fingerprint in keep]


def seed_values(cfg: Mapping[str, Any], section: str) -> list[int]:
    """The seeds that a config section ``{first, count}`` stands for."""
    first, count = int(cfg[section]["first"]), int(cfg[section]["count"])
    return list(range(first, first + count))


def _value(job: Job, kind: str) -> str:
    return job.stage.name if kind == "stage" else str(job.axes.get(kind))


def _kind_of(word: str, jobs: Sequence[Job]) -> str:
    if any(job.stage.name == word for job in jobs):
        return "stage"
    for job in jobs:
        for axis, value in job.axes.items():
            if str(value) == word:
                return axis
    valid = {job.stage.name for job in jobs} | {str(v) for job in jobs for v in job.axes.values()}
    raise unknown("stage or arm in ONLY", word, valid)


def _points(stage: Stage, cfg: Mapping[str, Any]) -> list[dict[str, AxisValue]]:
    points: dict[tuple[Any, ...], dict[str, AxisValue]] = {}
    study, validation = seed_values(cfg, "seeds"), seed_values(cfg, "validation_seeds")
    of_role = {"study": study, "validation": validation, "both": study + validation}
    entries: list[dict[str, Any]] = cfg["grid"].get(stage.name) or []
    for entry in entries:
        given: dict[str, Sequence[AxisValue]] = dict(entry)
        role = str(given.pop("seeds", "both"))
        if role not in of_role:
            raise unknown(f"seeds in grid.{stage.name}", role, of_role)
        if "seed" in stage.axes:
            given = {"seed": of_role[role], **given}
        if sorted(given) != sorted(stage.axes):
            raise BadInputError(
                f"grid.{stage.name} has axes {sorted(given)}; the stage has {sorted(stage.axes)}."
            )
        for values in itertools.product(*(given[axis] for axis in stage.axes)):
            points[values] = dict(zip(stage.axes, values, strict=True))
    return list(points.values())


def _job(
    study: Study,
    stage: Stage,
    axes: Mapping[str, AxisValue],
    cfg: Mapping[str, Any],
    earlier: Mapping[str, Sequence[Job]],
    root: Path,
    cpu: str | None,
) -> Job:
    merged = _with_variants(stage, axes, cfg)
    inputs = {need.stage: _inputs(stage, need, axes, merged, earlier) for need in stage.needs}
    config = {section: merged[section] for section in stage.config} | {"axes": dict(axes)}
    parts = {
        "config": {key: short(value) for key, value in flatten(config)},
        "code": code_hashes(tuple(name.partition(":")[0] for name in _code(stage, axes)), root),
        "run": list(_code(stage, axes)),
        "inputs": {name: [job.fingerprint for job in jobs] for name, jobs in inputs.items()},
        "environment": environment(study.packages, str(cfg["device"]), int(cfg["threads"]))
        | (parallel.words(cfg) if stage.parallel else {}),
        "data": _call(stage.data)(config) if stage.data else "",
        "host": (cpu or _cpu()) if stage.measures_host else "",
    }
    study_seeds, asked = seed_values(cfg, "seeds"), parallel.resources(stage, cfg)
    return Job(
        project=study.name,
        stage=stage,
        axes=axes,
        config=config,
        inputs=inputs,
        parts=parts,
        fingerprint=short({"stage": stage.name, **parts}),
        resources=replace(asked, memory_gb=float(merged["memory_gb"].get(stage.name, asked.memory_gb))),
        role="study" if axes.get("seed", None) is None or axes["seed"] in study_seeds else "validation",
        minutes=float(merged["minutes"].get(stage.name, 1.0)),
        megabytes=float(merged["megabytes"].get(stage.name, 1.0)),
    )


def _code(stage: Stage, axes: Mapping[str, AxisValue]) -> tuple[str, ...]:
    names = [stage.run]
    for axis, arms in stage.arms.items():
        code = arms.get(str(axes[axis]))
        if code is None:
            raise unknown(f"{axis} of stage {stage.name}", str(axes[axis]), arms)
        names.append(code)
    return tuple(names)


def _with_variants(stage: Stage, axes: Mapping[str, AxisValue], cfg: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: copy.deepcopy(cfg[key]) for key in (*stage.config, *ESTIMATES)}
    for axis in stage.axes:
        values: dict[AxisValue, dict[str, Any]] = cfg["variants"].get(axis) or {}
        changes = values.get(axes[axis]) or {}
        for section, change in changes.items():
            if section in merged:
                _merge(merged[section], change, f"variants.{axis}.{axes[axis]}.{section}")
            elif section not in cfg:
                raise unknown(f"section in variants.{axis}.{axes[axis]}", section, cfg)
    return merged


def _merge(base: dict[str, Any], change: Mapping[str, Any], where: str) -> None:
    for key, value in change.items():
        if key not in base and where.rpartition(".")[2] not in ESTIMATES:
            raise unknown(f"key in {where}", key, base)
        if isinstance(base.get(key), dict) and isinstance(value, Mapping):
            _merge(base[key], value, f"{where}.{key}")  # pyright: ignore[reportUnknownArgumentType]
        else:
            base[key] = copy.deepcopy(value)


def _inputs(
    stage: Stage,
    need: Need,
    axes: Mapping[str, AxisValue],
    config: Mapping[str, Any],
    earlier: Mapping[str, Sequence[Job]],
) -> list[Job]:
    if need.stage not in earlier:
        raise BadInputError(f"stage {stage.name} needs {need.stage!r}, which does not stand before it.")
    producers = earlier[need.stage]
    wanted: dict[str, Any] = {axis: axes[axis] for job in producers[:1] for axis in job.axes if axis in axes}
    for axis, origin in need.on.items():
        if origin is None:
            wanted.pop(axis, None)
            continue
        wanted[axis] = axes[origin] if origin in axes else lookup(config, origin)
        if wanted[axis] is None:
            return []
    found = [job for job in producers if all(job.axes[axis] == value for axis, value in wanted.items())]
    if not found:
        raise BadInputError(
            f"stage {stage.name} at {dict(axes)} needs {need.stage} at {wanted}, which the grid does not have."
        )
    return sorted(found, key=lambda job: [str(value).zfill(8) for value in job.axes.values()])


def _call(code: str) -> Any:
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)


def _cpu() -> str:
    from common.tracking.provenance import cpu_model

    return cpu_model()
