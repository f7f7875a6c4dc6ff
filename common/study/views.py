"""Views over what was recorded: the static site, the W&B runs, the committed reports rendered again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import RethesisError
from common.files import write_text
from common.study.config import ROOT, projects
from common.study.jobs import Job, load_study
from common.study.queries import stale
from common.study.store import is_done

if TYPE_CHECKING:
    from common.tracking.wandb_workspace import View

WANDB = Path("results") / ".runs" / "wandb"


def dashboard(root: Path = ROOT) -> Path:
    """Build the static site over results/ and return its index.html, relative to the root."""
    from common.study.report import build

    studies = [load_study(project) for project in projects(root)]
    site = root / "results" / ".site"
    build(root / "results", site, studies, stale=stale(root))
    return (site / "index.html").relative_to(root)


def export_offline(project: str, label: str, jobs: Sequence[Job], track: str, root: Path = ROOT) -> None:
    """Turn the JSONL of finished jobs into offline W&B runs; a failure is a warning, never lost work.

    With TRACK=live and a login they are uploaded, too.
    """
    from common.tracking.wandb_export import export
    from common.tracking.wandb_runs import logged_in

    folders = [job.folder(root) for job in jobs if is_done(job.folder(root))]
    result = root / "results" / project / label
    report = export(folders, group=f"{project}/{label}", directory=root / WANDB, result=result)
    written = (
        f"W&B: {report.exported} runs written offline, {report.unchanged} unchanged; `make sync` uploads them"
    )
    print(report.warning or written)
    if track == "live" and logged_in():
        try:
            sync(root)
        except RethesisError as error:
            print(error)


@contextmanager
def live(project: str, label: str, track: str, root: Path = ROOT) -> Generator[None]:
    """With TRACK=live, a process beside the pipeline that exports rows as they are written."""
    if track != "live":
        yield
        return
    from common.tracking.wandb_runs import logged_in

    mode = "online" if logged_in() else "offline"
    command = [sys.executable, "-m", "common.tracking.live", "--project", project, "--scale", label]
    follower = subprocess.Popen([*command, "--mode", mode], cwd=root)
    try:
        yield
    finally:
        follower.terminate()
        follower.wait()


def sync(root: Path = ROOT) -> None:
    """Upload the offline W&B runs and say how many.

    Raises:
        RethesisError: no key, or the server is out of reach; nothing is lost.
    """
    from common.tracking.wandb_sync import sync as upload

    report = upload(root / WANDB, _workspaces(root))
    print(f"{report.uploaded} runs uploaded, {report.before} were there before")
    for address in report.workspaces:
        print(address)


def _workspaces(root: Path) -> list[View]:
    """A W&B view for each stage with curves of each study that was exported."""
    from common.tracking.wandb_lineage import exported_groups
    from common.tracking.wandb_workspace import Curve, View

    found: list[View] = []
    for group in sorted(exported_groups(root / WANDB)):
        if (project := group.partition("/")[0]) not in projects(root):
            continue
        curves: dict[str, list[Curve]] = {}
        for each in load_study(project).curves:
            shown = Curve(each.caption, each.x, each.y, each.x_label or each.x, each.y_label or each.y)
            curves.setdefault(each.stage, []).append(shown)
        found += [View(group, stage, shown) for stage, shown in (curves or {"report": []}).items()]
    return found


def render_committed(*, check: bool, root: Path = ROOT) -> int:
    """Write every report and the README's table again from the committed files; with `check` only compare.

    Returns:
        0, or 1 when `check` found a difference.
    """
    from common.study.report import differences, evidence, pages, readme, render

    studies = [load_study(project) for project in projects(root)]
    found: list[Path] = []
    for study in studies:
        for result in evidence(root / "results", study.name):
            folder = result.folder
            names = differences(pages(study, folder), folder) if check else render(study, folder)
            found += [folder / name for name in names]
    overview = root / "README.md"
    text = readme(overview, root / "results", studies, stale(root))
    if text != overview.read_text(encoding="utf-8"):
        found.append(overview)
        if not check:
            write_text(overview, text)
    for path in found:
        print(
            f"{'differs from what the tables give' if check else 'rendered again'}: {path.relative_to(root)}"
        )
    if check and found:
        print("`.venv/bin/python -m common.study render` writes them again.")
    return 1 if check and found else 0
