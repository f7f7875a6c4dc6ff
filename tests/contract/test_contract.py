"""What every folder of projects/ has to keep. A new thesis is found by its folder; nothing is registered here."""

from __future__ import annotations

import filecmp
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from common.files import read_json
from common.study.config import SCALES, compose, projects, scales
from common.study.contrast import check_claim, series_of
from common.study.jobs import Job, expand, load_study, seed_values
from common.study.model import Arm, Best, Claim, Mix
from common.study.power import check_family
from common.study.report.data import read_rows
from common.study.report.page import project_figure
from common.study.store import FIXED
from common.study.tasks import plan_tasks
from common.study.verdict import claim_hash, family

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = projects(ROOT)
STUDIES = [(project, scale) for project in PROJECTS for scale in scales(project, ROOT)]
CORES = 2
MINUTES = {"smoke": 1.0, "laptop": 45.0}  # of two cores; see ARCHITECTURE.md, scales
CARD = ("question", "method", "claims", "scales")

every_project = pytest.mark.parametrize("project", PROJECTS)
every_scale = pytest.mark.parametrize(("project", "scale"), STUDIES)


@cache
def plan(project: str, scale: str) -> tuple[dict[str, Any], list[Job]]:
    """Configuration and jobs of a study at a scale."""
    cfg = compose(project, scale, root=ROOT)
    return cfg, expand(load_study(project), cfg, ROOT)


def arms_of(claim: Claim) -> list[Arm]:
    """Every arm that a claim reads."""
    parts = list(series_of(claim).values())
    for part in parts:
        parts += [term for _, term in part.terms] if isinstance(part, Mix) else []
        parts += part.arms if isinstance(part, Best) else ()
    return [part for part in parts if isinstance(part, Arm)]


def committed() -> list[Path]:
    """Result folders that git knows."""
    if not (ROOT / ".git").exists():
        return []
    names = subprocess.run(
        ["git", "ls-files", ":(glob)results/*/*/claims.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / Path(name).parent for name in names.stdout.splitlines()]


every_result = pytest.mark.parametrize(
    "folder", [pytest.param(folder, id=folder.relative_to(ROOT).as_posix()) for folder in committed()]
)


def test_every_folder_is_a_project() -> None:
    folders = [path.parent.name for path in (ROOT / "projects").glob("*/__init__.py")]
    assert sorted(folders) == PROJECTS
    assert PROJECTS


@every_project
def test_figures_are_drawn_of_whatever_is_done(project: str, tmp_path: Path) -> None:
    """Of nothing, of the first stages alone as ONLY leaves them, and of half of the jobs, the others having failed."""
    study = load_study(project)
    rows = read_rows(ROOT / "results" / project / "laptop" / "table.csv")
    stages = [stage.name for stage in study.stages]
    failed = [{**{key: row[key] for key in FIXED}, "status": "failed"} for row in rows]
    cases = [[row for row in rows if row["stage"] in stages[:n]] for n in range(len(stages))]
    cases += [failed, [*rows[::2], *failed[1::2]], [*rows[1::2], *failed[::2]]]
    for case in cases:
        for figure in study.figures:
            project_figure(figure, case, "laptop").savefig(tmp_path / "figure.svg")


@every_project
def test_the_study_imports_without_torch(project: str) -> None:
    heavy = ("torch", "pytorch_lightning", "wandb", "matplotlib", "mujoco")
    code = f"import sys, projects.{project}.study; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@every_project
def test_code_named_by_the_study_exists(project: str) -> None:
    study = load_study(project)
    assert study.name == project
    names = [stage.run for stage in study.stages] + [stage.data for stage in study.stages if stage.data]
    names += [code for stage in study.stages for arms in stage.arms.values() for code in arms.values()]
    for name in {*names, *(figure.draw for figure in study.figures)}:
        module, colon, attribute = name.partition(":")
        assert colon, f"{name}: module:name expected"
        assert hasattr(importlib.import_module(module), attribute), name


@every_project
def test_a_project_has_the_scales_that_everyone_can_run(project: str) -> None:
    assert set(scales(project, ROOT)) >= {"smoke", "laptop"}


@every_scale
def test_the_grid_makes_jobs_of_every_stage(project: str, scale: str) -> None:
    cfg, jobs = plan(project, scale)
    stages = {stage.name for stage in load_study(project).stages}
    made = {job.stage.name for job in jobs}
    assert made == stages if scale in SCALES else made <= stages, (
        "only a project's own scale may leave stages out"
    )
    assert Counter(job.fingerprint for job in jobs).most_common(1)[0][1] == 1
    assert set(cfg["minutes"]) == stages
    study, validation = seed_values(cfg, "seeds"), seed_values(cfg, "validation_seeds")
    assert not set(study) & set(validation)


@every_scale
def test_the_estimate_is_within_the_budget(project: str, scale: str, tmp_path: Path) -> None:
    _, jobs = plan(project, scale)
    minutes = sum(task.minutes for task in plan_tasks(jobs, tmp_path)) / CORES
    assert 0 < minutes <= MINUTES.get(scale, float("inf"))


@every_scale
def test_claims_read_arms_that_the_grid_has(project: str, scale: str) -> None:
    cfg, jobs = plan(project, scale)
    for claim in load_study(project).claims:
        for arm in arms_of(claim) if scale in claim.scales else ():
            stage = load_study(project).stage(arm.stage)
            assert set(arm.where) <= set(stage.axes), (claim.id, arm.label)
            assert {*claim.tasks, claim.pairing, claim.axis} - {""} <= set(stage.axes), (claim.id, arm.label)
            found = [job for job in jobs if job.stage is stage and arm.where.items() <= job.axes.items()]
            seeds = {job.axes["seed"] for job in found if "seed" in job.axes and job.role == "study"}
            assert found, f"{claim.id}: no job of {arm.label} at scale {scale}"
            assert claim.pairing != "seed" or seeds == set(seed_values(cfg, "seeds")), (claim.id, arm.label)


@every_scale
def test_replicates_can_support_the_claims(project: str, scale: str) -> None:
    cfg, _ = plan(project, scale)
    check_family(len(seed_values(cfg, "seeds")), len(family(load_study(project).claims, scale)))


@every_project
def test_claims_are_testable_and_can_fail(project: str) -> None:
    claims = load_study(project).claims
    ids = [claim.id for claim in claims]
    assert len(set(ids)) == len(ids)
    for claim in claims:
        check_claim(claim)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.id)
        assert claim.kind == "identity" or claim.control is not None, f"{claim.id} has no negative control"
        assert claim.statement
        assert claim.source
        assert claim.limits or "laptop" not in claim.scales, f"{claim.id}: what can a laptop not show?"
        assert set(claim.scales) <= {*SCALES, *scales(project, ROOT)} - {"smoke"}


@every_project
def test_curves_name_axes_of_their_stage(project: str) -> None:
    study = load_study(project)
    for curves in study.curves:
        assert {curves.panel, curves.line} - {""} <= set(study.stage(curves.stage).axes), curves.id


@every_project
def test_the_thesis_card_has_its_sections(project: str) -> None:
    text = (ROOT / "projects" / project / "README.md").read_text(encoding="utf-8")
    headings = [heading.lower() for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)]
    missing = [section for section in CARD if not any(section in heading for heading in headings)]
    assert not missing, f"projects/{project}/README.md lacks a section on: {', '.join(missing)}"


@every_project
def test_config_headers_say_what_to_expect(project: str) -> None:
    for path in sorted((ROOT / "configs" / "project" / project).glob("*.yaml")):
        head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
        assert head, f"{path.name} has no header"
        assert "# @package _global_" in head.group(), path.name
        if path.stem in scales(project, ROOT):
            assert head.group().count("\n") > 1, f"{path.name}: what is to be expected?"
            duration = re.search(r"second|minute|hour|day", head.group(), re.IGNORECASE)
            assert duration, f"{path.name}: how long does it take?"


@every_result
def test_committed_evidence_is_of_these_claims(folder: Path) -> None:
    current = {claim.id: claim_hash(claim) for claim in load_study(folder.parent.name).claims}
    report = (folder / "report.md").read_text(encoding="utf-8")
    entries = read_json(folder / "claims.json")["claims"]
    assert {entry["id"] for entry in entries} == set(current) or "superseded" in report
    for entry in entries:
        assert entry["hash"] == current.get(entry["id"]) or "superseded" in report, entry["id"]


@every_result
def test_committed_evidence_is_of_a_clean_ancestor(folder: Path) -> None:
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["dirty"] is False
    assert environment["overrides"] == []
    assert environment["commit"] == read_json(folder / "claims.json")["commit"]
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, check=True)
    if shallow.stdout.strip() == b"true":
        pytest.skip("a shallow clone does not hold the commit of the evidence")
    command = [*git, "merge-base", "--is-ancestor", environment["commit"], "HEAD"]
    assert subprocess.run(command, check=False).returncode == 0


@every_result
def test_committed_report_renders_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    from common.study.report.page import render

    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    render(load_study(folder.parent.name), copy)
    names = {path.relative_to(base) for base in (copy, folder) for path in base.rglob("*") if path.is_file()}
    for name in sorted(names):
        assert (copy / name).is_file(), f"{name} is left over"
        assert (folder / name).is_file(), f"{name} is not committed"
        assert filecmp.cmp(copy / name, folder / name, shallow=False), f"{name} differs"
