"""All committed results at a glance: which there are, and the table of verdicts in the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import BadInputError
from common.study.config import SCALES
from common.study.model import Study
from common.study.report.data import Result, load
from common.study.report.page import markdown_text
from common.study.report.standing import superseded
from common.study.report.style import badge
from common.study.report.tables import tally_text

NONE = "not assessed"
Stale = Mapping[tuple[str, str], str]


def find(results: Path, project: str) -> list[Result]:
    """The results of a project: smallest scale first, a changed study after the one that it changes."""
    folders = [path.parent for path in (results / project).glob("*/claims.json")]
    return [load(folder) for folder in sorted(folders, key=lambda folder: _order(folder.name))]


def evidence(results: Path, project: str) -> list[Result]:
    """The results that are committed: neither smoke runs nor changed studies."""
    return [each for each in find(results, project) if not each.changed and each.scale != "smoke"]


def verdict_table(results: Path, studies: Sequence[Study], stale: Stale | None = None) -> str:
    """The README's table of theses: a row for each study and committed scale, its claims with their verdicts.

    Args:
        results: the folder ``results``.
        studies: every study; one without results gets a row that says so.
        stale: (project, scale) -> why its result is older than the code.
    """
    lines = ["| Thesis | Scale | Verdicts | Report |", "| --- | --- | --- | --- |"]
    for study in studies:
        thesis = f"[{markdown_text(study.title)}](projects/{study.name}/README.md)"
        shown = evidence(results, study.name)
        if not shown:
            lines.append(f"| {thesis} | – | no result yet | – |")
        for result in shown:
            note = (stale or {}).get((study.name, result.scale), "")
            scale = f"{result.scale} (stale: {markdown_text(note)})" if note else result.scale
            report = f"[report](results/{study.name}/{result.scale}/report.md)"
            lines.append(f"| {thesis} | {scale} | {_verdicts(study, result)} | {report} |")
    return "\n".join(lines) + "\n"


def readme(path: Path, results: Path, studies: Sequence[Study], stale: Stale | None = None) -> str:
    """The README's text with today's table of verdicts between its markers.

    Args:
        path: README.md.
        results, studies, stale: see `verdict_table`.

    Raises:
        BadInputError: the markers are gone.
    """
    before, start, rest = path.read_text(encoding="utf-8").partition("<!-- verdicts -->")
    _, end, after = rest.partition("<!-- /verdicts -->")
    if not end:
        raise BadInputError(
            f"{path} lacks the markers <!-- verdicts --> and <!-- /verdicts -->: put them back."
        )
    return f"{before}{start}\n{verdict_table(results, studies, stale)}{end}{after}"


def _verdicts(study: Study, result: Result) -> str:
    """``a: ✓ supported; b: ✗ contradicted (superseded)``: primary claims and those added since; others are counted."""
    if result.claims and all(claim.get("verdict") == NONE for claim in result.claims):
        return f"curves only: none of {len(result.claims)} claims assessed"
    old = superseded(study, result)
    verdicts = {str(claim.get("id", "")): str(claim.get("verdict")) for claim in result.claims}
    primary = {str(claim.get("id", "")) for claim in result.claims if claim.get("primary")}
    rest = {name: verdict for name, verdict in verdicts.items() if name not in old}
    unassessed = [name for name, verdict in rest.items() if verdict == NONE]
    apart = {name: verdict for name, verdict in rest.items() if name not in {*primary, *unassessed}}
    named = [
        f"{markdown_text(name)}: {badge(verdicts[name]) if name in verdicts else 'not run'}"
        f"{' (superseded)' if name in old else ''}"
        for name in [*verdicts, *(name for name in old if name not in verdicts)]
        if name not in {*apart, *unassessed}
    ]
    if apart:
        named.append(f"{len(apart)} secondary: {tally_text(list(apart.values()))}")
    if unassessed:
        named.append(f"{len(unassessed)} not assessed")
    return "; ".join(named) or "no claims"


def _order(scale: str) -> tuple[int, str]:
    plain = scale.partition("+")[0]
    return (SCALES.index(plain) if plain in SCALES else len(SCALES), scale)
