"""JSONL to W&B, in one process after the jobs: offline by default, no account and no network needed.

The run's id is the job's fingerprint, so exporting twice gives one set. An unchanged run is skipped; one that
changed is written again as a whole (offline), or continued after its last row (online).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.tracking import wandb_runs as runs
from common.tracking.record import HISTORY, Row, read_history
from common.tracking.redact import redact_text
from common.tracking.wandb_report import read_report

PROJECT = "rethesis"


@dataclass
class ExportReport:
    """What an export did. `warning` is the one line to show the user when W&B or a folder gave trouble."""

    exported: int = 0
    unchanged: int = 0
    rows: int = 0
    seconds: float = 0.0
    failed: list[Path] = field(default_factory=list[Path])
    warning: str = ""


def export(
    folders: Iterable[Path],
    *,
    project: str = PROJECT,
    group: str,
    mode: runs.Mode = "offline",
    directory: Path,
    result: Path | None = None,
) -> ExportReport:
    """Export job folders to W&B; never raises for W&B's sake, and writes nothing into the folders.

    Args:
        folders: results/.runs/<project>/<stage>/<fingerprint>, producers first; one not begun is left out.
        project: of W&B.
        group: ``<project>/<scale>``. A job that several scales share stays in the group it was first seen in.
        mode: when the server fails online, this run and the following are written offline instead.
        directory: where all of wandb's files go, e.g. results/.runs/wandb.
        result: ``results/<project>/<scale>``; its claims and table become a run of their own, after the jobs.
    """
    started, report = time.monotonic(), ExportReport()
    begun = [folder for folder in folders if (folder / "config.yaml").exists()]
    pending = [found for folder in begun if (found := _changed(folder, directory, report))]
    if result and (found := _changed_report(result, begun, group, directory, report)):
        pending.append(found)
    target = runs.Target(project, group, directory)
    remaining = _export(pending, target, mode, report)
    if remaining:
        _export(remaining, target, "offline", report)
    report.seconds = time.monotonic() - started
    return report


def _changed(folder: Path, directory: Path, report: ExportReport) -> tuple[runs.Exported, list[Row]] | None:
    return _differing(
        lambda: (runs.read_job(folder), read_history(folder / HISTORY)), folder, directory, report
    )


def _changed_report(
    result: Path, jobs: list[Path], group: str, directory: Path, report: ExportReport
) -> tuple[runs.Exported, list[Row]] | None:
    return _differing(lambda: (read_report(result, jobs, group), []), result, directory, report)


def _differing(
    read: Callable[[], tuple[runs.Exported, list[Row]]], folder: Path, directory: Path, report: ExportReport
) -> tuple[runs.Exported, list[Row]] | None:
    try:
        job, rows = read()
        if runs.read_state(directory, job.run_id).get("source") != runs.source_digest(job, rows):
            return job, rows
        report.unchanged += 1
    except Exception as error:  # one damaged folder must not keep the others from being exported
        _fail(report, folder, error)
    return None


def _export(
    pending: list[tuple[runs.Exported, list[Row]]],
    target: runs.Target,
    mode: runs.Mode,
    report: ExportReport,
) -> list[tuple[runs.Exported, list[Row]]]:
    """Export what is pending; return what an online server did not take."""
    if not pending:
        return []
    with ExitStack() as stack:
        try:
            wandb = stack.enter_context(runs.session(target.directory, mode))
        except Exception as error:
            _fail(report, pending[0][0].folder, error)
            return []
        for number, (job, rows) in enumerate(pending):
            try:
                report.rows += _export_run(wandb, job, rows, target, mode)
                report.exported += 1
            except Exception as error:
                if mode == "online":
                    why = f"W&B took no upload ({_one_line(error)})"
                    report.warning = f"{why}; written offline, `make sync` uploads it later."
                    return pending[number:]
                _fail(report, job.folder, error)
    return []


def _export_run(wandb: Any, job: runs.Exported, rows: list[Row], target: runs.Target, mode: runs.Mode) -> int:
    directory = target.directory
    with runs.claimed(directory, job.run_id) as mine:
        if not mine:
            return 0  # the live exporter has it open and will finish it
        state = runs.read_state(directory, job.run_id)
        if state.get("folder"):
            mode = "offline"  # rows must reach the server in order, and the first ones wait for `make sync`
        runs.remove_leftovers(directory, job.run_id, keep=state.get("folder", ""))
        first = min(state.get("uploaded", 0), len(rows))
        run = runs.open_run(wandb, job, target, mode)
        try:
            runs.log_rows(run, rows[first:], first)
        except BaseException:
            run.finish(exit_code=1)
            raise
        runs.close_run(wandb, run, job)
        folder = Path(run.settings.sync_dir).name if mode == "offline" else ""
        runs.write_state(target, job, rows, first if folder else len(rows), folder)
        return len(rows) - first


def _fail(report: ExportReport, folder: Path, error: Exception) -> None:
    report.failed.append(folder)
    report.warning = report.warning or f"not exported to W&B: {folder.name[:16]}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return redact_text(f"{type(error).__name__}: {error}".splitlines()[0])[:500]
