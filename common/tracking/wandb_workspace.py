"""A study's W&B workspace as code, with the static site's panels: verdicts, learning curves by arm, seeds.

W&B filters runs for a whole view, not for a panel, so each stage with curves is a view of its own, beside the report.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from common.tracking.wandb_report import STAGE
from common.tracking.wandb_runs import ARM


@dataclass(frozen=True)
class Curve:
    """A panel of learning curves: `y` against `x`, keys of history.jsonl, with their labels."""

    title: str
    x: str
    y: str
    x_label: str
    y_label: str


@dataclass(frozen=True)
class View:
    """What one saved view shows: the runs of a stage in ``<project>/<scale>``, and the report."""

    group: str
    stage: str
    curves: Sequence[Curve]

    @property
    def name(self) -> str:
        """The view's internal name: saving the same view again changes it instead of adding one."""
        return hashlib.sha256(f"{self.group} {self.stage}".encode()).hexdigest()[:11]


def workspace(view: View, entity: str, project: str) -> Any:
    """The view as an object of wandb_workspaces, not yet saved; `entity` and `project` are W&B's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the library's own, of pydantic
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
        from wandb_workspaces.reports.v2.interface import Layout

    def table(key: str) -> Any:
        return wr.WeavePanelSummaryTable(table_name=key, layout=Layout(w=24, h=9))

    lines: list[Any] = [
        wr.LinePlot(
            title=curve.title, x=curve.x, y=[curve.y], title_x=curve.x_label, title_y=curve.y_label,
            groupby=wr.Config(ARM), groupby_aggfunc="mean", groupby_rangefunc="stderr",
            max_runs_to_show=1000, layout=Layout(w=24, h=10),
        )
        for curve in view.curves
    ]  # fmt: skip
    sections = [ws.Section(name="Verdicts", panels=[table("verdicts")], is_open=True)]
    if lines:
        sections.append(ws.Section(name="Learning curves by arm", panels=lines, is_open=True))
    sections.append(ws.Section(name="Seeds", panels=[table("seeds"), table("runs")], is_open=True))
    stages = [expr.Metric("JobType") == name for name in dict.fromkeys((view.stage, STAGE))]
    return ws.Workspace(
        entity=entity, project=project, name=f"{view.group} {view.stage}", sections=sections,
        auto_generate_panels=False,
        runset_settings=ws.RunsetSettings(filters=expr.And(expr.Metric("Group") == view.group, expr.Or(*stages))),
    )  # fmt: skip


def save(view: View, entity: str, project: str, app: str) -> str:
    """Save a view and return its address; a second call changes the same one.

    Args:
        view: what to show.
        entity, project: of W&B.
        app: address of W&B's pages.

    Raises:
        wandb.errors.Error: the server refused it.
    """
    made = workspace(view, entity, project)
    made._internal_name = f"nw-{view.name}-v"
    with suppress(ValueError):  # the first time there is none
        made._internal_id = type(made).from_url(f"{app}/{entity}/{project}?nw={view.name}")._internal_id
    return str(made.save().url)
