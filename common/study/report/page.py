"""The report of one result: report.md, report.html and figures/*.svg, a pure function of its files and study.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_text
from common.study import model
from common.study.model import Claim, Study
from common.study.report import tables
from common.study.report.against import against
from common.study.report.data import Json, Result, Row, load, study_curves, texts
from common.study.report.numbers import NONE
from common.study.report.repeated import told
from common.study.report.standing import stated, superseded
from common.study.report.style import VERDICTS, Colours, arms, claim_series, figure_css, palette
from common.study.report.view import claim_view, interval_name, slug

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
Drawn = dict[str, dict[str, str]]


def pages(study: Study, folder: Path) -> dict[str, str]:
    """Every file of the report, by its name inside the result's folder; nothing is written.

    Raises:
        BadInputError: claims.json is missing or damaged.
    """
    result = load(folder)
    drawn = draw(study, result)
    context = page_context(study, result, drawn)
    return {
        **{f"figures/{name}.svg": each["svg"] for name, each in drawn.items()},
        "report.md": template("report.md.j2").render(context),
        "report.html": template("report.html.j2").render(context),
    }


def render(study: Study, folder: Path) -> list[str]:
    """Bring report.md, report.html and figures/ of a result up to date with the files that it holds.

    Everything is drawn before the first file is touched, and each file is replaced in one step.

    Returns:
        The names of the files that were written or removed.

    Raises:
        BadInputError: claims.json is missing or damaged.
    """
    made = pages(study, folder)
    names = differences(made, folder)
    (folder / "figures").mkdir(exist_ok=True)
    for name in names:
        if name in made:
            write_text(folder / name, made[name])
        else:
            (folder / name).unlink()
    return names


def differences(made: Mapping[str, str], folder: Path) -> list[str]:
    """The files that `pages` makes otherwise than they lie in the folder, or that it no longer makes."""
    left = {f"figures/{path.name}" for path in folder.glob("figures/*.svg")} - set(made)
    changed = [
        name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode()
    ]
    return [*changed, *sorted(left)]


def project_figure(spec: model.Figure, rows: Sequence[Row], scale: str) -> Figure:
    """A figure of the project's own, of the jobs that are done: the others have no metrics."""
    module, _, name = spec.draw.partition(":")
    return getattr(import_module(module), name)([row for row in rows if row["status"] == "done"], scale)


def draw(study: Study, result: Result) -> Drawn:
    """Every figure of the report: name -> its SVG text, caption and alternative text."""
    from common.study.report.figures import learning_curves
    from common.study.report.forest import forest
    from common.study.report.svg import drawing, inline, to_svg

    colours, drawn = Colours(study), Drawn()
    declared = stated(study, result)

    def keep(figure: Figure, name: str, caption: str, alt: str) -> None:
        text = to_svg(figure, name, alt)
        drawn[name] = {"svg": text, "inline": inline(text), "caption": caption, "alt": alt, "name": name}

    with drawing():
        for claim in result.claims:
            today = declared.get(str(claim.get("id")))
            figure = forest(claim, today, colours)
            if figure is not None:
                keep(figure, forest_name(claim), *_forest_words(claim, today))
        curve_rows = study_curves(result)
        for spec in study.curves:
            found = learning_curves(spec, curve_rows, colours, arm_names(study, spec.stage))
            if found:
                keep(found[0], f"curves-{slug(spec.id)}", spec.caption, f"{spec.caption} {found[1]}")
        for own in study.figures:
            figure = project_figure(own, result.rows, result.scale)
            keep(figure, f"figure-{slug(own.id)}", own.caption, own.caption)
    return drawn


def page_context(study: Study, result: Result, drawn: Drawn) -> dict[str, Any]:
    """What the templates are filled with; every number in it is text."""
    declared = stated(study, result)
    opposite = against(study, result)
    claims = [
        claim_view(claim, declared.get(name), opposite.get(name))
        for claim in result.claims
        for name in (str(claim.get("id")),)
    ]
    old = superseded(study, result)
    for view, claim in zip(claims, result.claims, strict=True):
        view["figure"] = drawn.get(forest_name(claim))
        view["superseded"] = old.get(view["id"], "")
    verdicts = [view["verdict"] for view in claims]
    plain = result.scale.partition("+")[0]
    base = result.folder.parent / plain
    has_base = result.changed and (base / "claims.json").is_file()
    return {
        "study": study, "project": result.project, "scale": result.scale, "changed": result.changed, "base": plain,
        "overrides": texts(result.environment.get("overrides")),
        "comparison": tables.comparison(result, load(base), study) if has_base else [],
        "elsewhere": tables.elsewhere(result, study), "here": ", ".join(result.cpus),
        "claims": claims, "superseded": old,
        "tally": tables.tally(verdicts), "tally_text": tables.tally_text(verdicts), "replicate": study.replicate,
        "verdicts": {verdict: (slug(verdict), symbol, words) for verdict, (symbol, words) in VERDICTS.items()},
        "limits": study.limits.get(plain, ""),
        "curves": [drawn[name] for spec in study.curves if (name := f"curves-{slug(spec.id)}") in drawn],
        "figures": [drawn[name] for own in study.figures if (name := f"figure-{slug(own.id)}") in drawn],
        "stages": tables.stage_tables(study, result.rows),
        "repeated": [told(entry) for entry in result.repeated],
        "facts": tables.facts(result),
        "command": tables.command(result),
        "cost": tables.cost(study, result),
        "packages": tables.packages(result),
        "interval": interval_name(),
    }  # fmt: skip


def forest_name(claim: Mapping[str, Any]) -> str:
    """The file name, without its ending, of a claim's forest plot."""
    return f"claim-{slug(str(claim.get('id', '')))}"


def arm_names(study: Study, stage: str) -> dict[tuple[str, str], str]:
    """(axis, value) -> label in the curves of a stage, where only one label stands for that value.

    What the stage's own arms are called counts more than what those of other stages are.
    """
    own: dict[tuple[str, str], set[str]] = {}
    others: dict[tuple[str, str], set[str]] = {}
    for claim in study.claims:
        for series in claim_series(claim):
            for arm in arms(series):
                labels = own if arm.stage == stage else others
                for axis, value in arm.where.items():
                    labels.setdefault((axis, str(value)), set()).add(arm.label)
    return {key: next(iter(found)) for key, found in (others | own).items() if len(found) == 1}


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
        autoescape=lambda name: ".html" in (name or ""),
    )
    shared: dict[str, Any] = made.globals
    shared["css"] = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    shared["figure_css"] = figure_css("figure svg")
    shared["palette"] = palette()
    made.filters["md"] = markdown_text
    return made


def template(name: str) -> Template:
    """A compiled template."""
    return environment().get_template(name)


def markdown_text(value: object) -> str:
    """A string for running Markdown or a table cell: no raw HTML, no markup, no cell border, no line break."""
    text = re.sub(r"[\\`*|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(str(value).split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def _forest_words(claim: Json, declared: Claim | None) -> tuple[str, str]:
    view = claim_view(claim, declared)
    above = "Above, every run. " if view["arms"] else ""
    interval = f" with its {interval_name()}" if claim.get("ci") else ""
    control = ", the same for the control (triangle)" if view["control_short"] != NONE else ""
    shade = " Shaded: where the claim holds." if declared else ""
    dots = "the effect of each pair of arms: " if view["parts"] else "the effect: one dot per replicate, "
    caption = f"{above}Below, {dots}the mean (diamond){interval}{control}.{shade}"
    numbers = f"effect {view['effect']} {view['ci']}, n = {view['n']}, {view['verdict']}"
    return caption, f"Forest plot of claim {view['id']}: {numbers}."
