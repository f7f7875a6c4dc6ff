"""Figures as SVG files: the same bytes every time, and readable on light and on dark."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from common.study.report.style import ARM_COLOURS, GRID, INK, MUTED, PAPER, figure_css

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_CLIP = re.compile(r'\s*<clipPath id="([^"]+)">\s*(.*?)\s*</clipPath>', re.DOTALL)
_STYLE = re.compile(r"<style[^>]*>.*?</style>", re.DOTALL)


@contextmanager
def drawing() -> Generator[None]:
    """Matplotlib settings for our figures, whatever the user's own matplotlibrc says."""
    from cycler import cycler
    from matplotlib import style

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "rethesis", "font.family": ["DejaVu Sans"], "font.size": 8.5,
        "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
        "xtick.color": MUTED, "ytick.color": MUTED, "grid.color": GRID, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
        "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "legend.frameon": False, "legend.fontsize": 8.5,
        "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.unicode_minus": True,
        "axes.prop_cycle": cycler(color=ARM_COLOURS), "lines.linewidth": 1.5,
    }  # fmt: skip
    with style.context(["default", settings]):
        yield


def to_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as SVG text: ids start with `name`, `title` is what a screen reader says."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = _clips(buffer.getvalue())
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*;? ?", "", text)  # laid out with it, the widest of FONTS
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    sheet = "svg *{stroke-linejoin:round;stroke-linecap:butt}" + figure_css()
    text = _STYLE.sub(lambda _: f"<style>{sheet}</style>", text, count=1)
    label = html.escape(title, quote=True)
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" font-family="{FONTS}" ', text, count=1)


def _clips(text: str) -> str:
    """Clip paths named by their order, each shape once: matplotlib's names hang on addresses in memory."""
    names: dict[str, str] = {}  # shape -> new name
    new = {old: names.setdefault(shape, f"clip-{len(names) + 1}") for old, shape in _CLIP.findall(text)}
    shapes = "".join(
        f'\n  <clipPath id="{name}">\n   {shape}\n  </clipPath>' for shape, name in names.items()
    )
    first, text = _CLIP.search(text), _CLIP.sub("", text)
    if first is not None:
        text = text[: first.start()] + shapes + text[first.start() :]
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{new.get(found[1], found[1])})", text)


def inline(text: str) -> str:
    """The SVG element alone, for a page that brings the style sheet itself."""
    return _STYLE.sub("", text[text.index("<svg ") :], count=1).strip()
