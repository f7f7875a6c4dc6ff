"""The report of one result: report.md, report.html and figures/*.svg, a pure function of its files and study.py."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_text
from common.study.model import Claim, Study
from common.study.report import tables
from common.study.report.data import Result, load, study_curves
from common.study.report.style import VERDICTS, Colours, arms, claim_series, figure_css, palette
from common.study.report.view import claim_view, interval_name, slug

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
Drawn = dict[str, dict[str, str]]


def render(study: Study, folder: Path) -> None:
    """Write report.md, report.html and figures/ into a result's folder, from the files that it holds.

    Raises:
        BadInputError: claims.json is missing or damaged.
    """
    result = load(folder)
    drawn = draw(study, result)
    context = page_context(study, result, drawn)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for stale in set(figures.glob("*.svg")) - {figures / f"{name}.svg" for name in drawn}:
        stale.unlink()
    for name, each in drawn.items():
        write_text(figures / f"{name}.svg", each["svg"])
    write_text(folder / "report.md", template("report.md.j2").render(context))
    write_text(folder / "report.html", template("report.html.j2").render(context))


def draw(study: Study, result: Result) -> Drawn:
    """Every figure of the report: name -> its SVG text, caption and alternative text."""
    from common.study.report import figures
    from common.study.report.svg import drawing, inline, to_svg

    colours, drawn = Colours(study), Drawn()
    declared = {claim.id: claim for claim in study.claims}

    def keep(figure: Any, name: str, caption: str, alt: str) -> None:
        text = to_svg(figure, name, alt)
        drawn[name] = {"svg": text, "inline": inline(text), "caption": caption, "alt": alt, "name": name}

    with drawing():
        for claim in result.claims:
            figure = figures.forest(claim, declared.get(str(claim.get("id"))), colours)
            if figure is not None:
                keep(figure, forest_name(claim), *_forest_words(claim, declared.get(str(claim.get("id")))))
        curve_rows = study_curves(result)
        for spec in study.curves:
            found = figures.learning_curves(spec, curve_rows, colours, arm_names(study))
            if found:
                keep(found[0], f"curves-{slug(spec.id)}", spec.caption, f"{spec.caption} {found[1]}")
        for own in study.figures:
            keep(_own(own.draw, result), f"figure-{slug(own.id)}", own.caption, own.caption)
    return drawn


def page_context(study: Study, result: Result, drawn: Drawn) -> dict[str, Any]:
    """What the templates are filled with; every number in it is text."""
    declared = {claim.id: claim for claim in study.claims}
    claims = [claim_view(claim, declared.get(str(claim.get("id")))) for claim in result.claims]
    for view, claim in zip(claims, result.claims, strict=True):
        view["figure"] = drawn.get(forest_name(claim))
    plain = result.scale.partition("+")[0]
    base = result.folder.parent / plain
    return {
        "study": study, "project": result.project, "scale": result.scale, "changed": result.changed, "base": plain,
        "comparison": tables.comparison(result, load(base) if (base / "claims.json").is_file() else None, study)
        if result.changed else [],
        "claims": claims,
        "tally": tables.tally([view["verdict"] for view in claims]),
        "tally_text": tables.tally_text([view["verdict"] for view in claims]),
        "verdicts": {verdict: (slug(verdict), symbol, words) for verdict, (symbol, words) in VERDICTS.items()},
        "limits": study.limits.get(plain, ""),
        "curves": [drawn[name] for spec in study.curves if (name := f"curves-{slug(spec.id)}") in drawn],
        "figures": [drawn[name] for own in study.figures if (name := f"figure-{slug(own.id)}") in drawn],
        "stages": tables.stage_tables(study, result.rows),
        "facts": tables.facts(result),
        "command": tables.command(result),
        "cost": tables.cost(result),
        "interactions": tables.interactions(result),
        "packages": tables.packages(result),
        "interval": interval_name(),
    }  # fmt: skip


def forest_name(claim: Mapping[str, Any]) -> str:
    """The file name, without its ending, of a claim's forest plot."""
    return f"claim-{slug(str(claim.get('id', '')))}"


def arm_names(study: Study) -> dict[tuple[str, str], str]:
    """(axis, value) -> label, where only one label stands for that value."""
    labels: dict[tuple[str, str], set[str]] = {}
    for claim in study.claims:
        for series in claim_series(claim):
            for arm in arms(series):
                for axis, value in arm.where.items():
                    labels.setdefault((axis, str(value)), set()).add(arm.label)
    return {key: found.pop() for key, found in labels.items() if len(found) == 1}


@cache
def environment() -> Environment:
    """The templates of report and dashboard; HTML ones escape every string."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=_is_html,
    )
    made.filters["md"] = markdown_text
    made.globals.update(
        css=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        figure_css=figure_css("figure svg"),
        palette=palette(),
    )
    return made


def template(name: str) -> Any:
    """A compiled template."""
    return environment().get_template(name)


def markdown_text(value: object) -> str:
    """A string for running Markdown or a table cell: no raw HTML, no cell border, no line break."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _is_html(name: str | None) -> bool:
    return bool(name) and ".html" in str(name)


def _forest_words(claim: dict[str, Any], declared: Claim | None) -> tuple[str, str]:
    view = claim_view(claim, declared)
    above = "Above, every run. " if view["arms"] else ""
    caption = (
        f"{above}Below, the paired effect: one dot per replicate, the mean (diamond) with its {interval_name()}"
        f"{', the same for the control (triangle)' if view['control_short'] != '–' else ''}. "
        "Shaded: where the claim holds."
    )
    numbers = f"effect {view['effect']} {view['ci']}, n = {view['n']}, {view['verdict']}"
    return caption, f"Forest plot of claim {view['id']}: {numbers}."


def _own(path: str, result: Result) -> Any:
    module, _, name = path.partition(":")
    function = getattr(import_module(module), name)
    given = (result.rows, study_curves(result), result.scale)
    takes_curves = len(inspect.signature(function).parameters) > 2
    return function(*given) if takes_curves else function(given[0], given[2])
