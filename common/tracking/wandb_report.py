"""A study's result as a W&B run of its own: its verdicts and seeds as tables, the report as its artefact.

The run reads what no other job reads, so that W&B draws the lineage from the first stage to the report.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import read_json, sha256
from common.tracking import wandb_runs as runs
from common.tracking.redact import redact

STAGE = "report"
FILES = ("claims.json", "table.csv", "report.md", "report.html")
VERDICT = ("id", "verdict", "effect", "metric", "unit", "n", "method", "baseline", "statement")
PAIR = ("claim", "replicate", "effect")


def read_report(result: Path, jobs: Sequence[Path], group: str) -> runs.Exported:
    """The report run of ``results/<project>/<scale>``; its id stays when the result changes.

    Args:
        result: holds claims.json and table.csv.
        jobs: folders of the study's jobs.
        group: ``<project>/<scale>``.

    Raises:
        OSError, ValueError: a file is missing or unreadable.
    """
    claims: dict[str, Any] = redact(read_json(result / "claims.json"))
    files = [path for name in FILES if (path := result / name).exists()]
    found: list[dict[str, Any]] = claims["claims"]
    counts = {f"claims/{claim['verdict']}": 0 for claim in found}
    for claim in found:
        counts[f"claims/{claim['verdict']}"] += 1
    content = hashlib.sha256("".join(sha256(path) for path in files).encode()).hexdigest()
    lineage = {"fingerprint": content, "commit": claims.get("commit"), "inputs": _leaves(jobs)}
    return runs.Exported(
        folder=result,
        stage=STAGE,
        run_id=hashlib.sha256(f"{STAGE} {group}".encode()).hexdigest()[: runs.ID_DIGITS],
        status="done",
        config={"group": group, "cpu": claims.get("cpu"), **lineage},
        metrics={key: float(count) for key, count in counts.items()},
        files=files,
        tables={"verdicts": _verdicts(found), "seeds": _seeds(found), "runs": _runs(result / "table.csv")},
    )


def _leaves(jobs: Sequence[Path]) -> dict[str, list[str]]:
    """Stage -> fingerprints of the finished jobs that no other job reads."""
    done = [folder for folder in jobs if (folder / "DONE").exists()]
    read = {name for folder in done for name in runs.read_job(folder).inputs}
    leaves: dict[str, list[str]] = {}
    for folder in done:
        if runs.artifact_name(folder.parent.name, folder.name[: runs.ID_DIGITS]) not in read:
            leaves.setdefault(folder.parent.name, []).append(folder.name)
    return leaves


def _verdicts(claims: Sequence[dict[str, Any]]) -> runs.Table:
    rows = [
        [
            *(_cell(claim.get(name)) for name in VERDICT),
            *(_cell(end) for end in claim.get("ci") or (None, None)),
        ]
        for claim in claims
    ]
    return runs.Table([*VERDICT, "ci_low", "ci_high"], rows)


def _seeds(claims: Sequence[dict[str, Any]]) -> runs.Table:
    """One row for each claim and replicate: the paired effect that was tested."""
    rows = [
        [claim["id"], str(pair["replicate"]), _cell(pair["effect"])]
        for claim in claims
        for pair in claim.get("pairs") or ()
    ]
    return runs.Table(PAIR, rows)


def _runs(path: Path) -> runs.Table:
    """table.csv as it stands; a column is numbers where all that it holds are."""
    with path.open(encoding="utf-8", newline="") as file:
        columns, *lines = list(csv.reader(file))
    numeric = [all(_is_number(line[i]) for line in lines if line[i]) for i in range(len(columns))]
    rows = [
        [
            None if not cell else float(cell) if number else cell
            for cell, number in zip(line, numeric, strict=True)
        ]
        for line in lines
    ]
    return runs.Table(columns, rows)


def _cell(value: Any) -> str | float | None:
    return value if isinstance(value, str | int | float | None) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
