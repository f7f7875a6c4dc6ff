"""What the figures draw: the numbers of claims.json and curves.csv, at their places."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from common.study.contrast import claimed_range
from common.study.model import Claim, Curves
from common.study.report.curves import band, select, thin
from common.study.report.figures import learning_curves
from common.study.report.forest import forest
from common.study.report.style import SHADE, Colours
from common.study.report.svg import _clips, drawing, inline, to_svg
from tests.common.study.report_example import HOSTILE, example_study, write_example

STUDY = example_study()
SPEC = STUDY.curves[0]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = write_example(tmp_path_factory.mktemp("figures") / "opirl" / "laptop")
    return {entry["id"]: entry for entry in json.loads((folder / "claims.json").read_text())["claims"]}


def claim(name: str) -> Claim:
    return next(each for each in STUDY.claims if each.id == name)


def points(ax: Any, marker: str) -> list[float]:
    """Abscissae of everything drawn with a marker."""
    return [float(x) for line in ax.lines if line.get_marker() == marker for x in line.get_xdata()]


@pytest.mark.parametrize("name", ["fewer-interactions", "final-return", "transfer", "off-policy"])
def test_a_forest_plot_shows_every_number(name: str, entries: dict[str, dict[str, Any]]) -> None:
    entry = entries[name]
    with drawing():
        figure = forest(entry, claim(name), Colours(STUDY))
    assert figure is not None
    runs, effects = figure.axes
    values = [value for arm in entry["values"].values() for value in arm.values()]
    assert len(values) == 24  # method, baseline and control, eight seeds each
    assert sorted(points(runs, "o")) == pytest.approx(sorted(values))
    assert [label.get_text().replace("\n", " ") for label in runs.get_yticklabels()] == [
        entry["method"],
        entry["baseline"],
        entry["control"]["label"],
    ]
    assert points(effects, "o") == pytest.approx([pair["effect"] for pair in entry["pairs"]])
    assert points(effects, "D") == pytest.approx([entry["effect"]])
    assert points(effects, "^") == pytest.approx([entry["control"]["effect"]])
    bars = [list(line.get_xdata()) for line in effects.lines if line.get_linewidth() == 2.2]
    assert bars == [entry["ci"], entry["control"]["ci"]]
    low, high = claimed_range(claim(name))
    shade = next(patch for patch in effects.patches if patch.get_facecolor()[:3] == pytest.approx(rgb(SHADE)))
    left, right = effects.get_xlim()
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx(
        (max(low, left), min(high, right))
    )
    inside = [*points(effects, "o"), *entry["ci"], *entry["control"]["ci"], 0.0]
    assert left < min(inside) < max(inside) < right


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def test_a_log_ratio_has_ticks_in_factors(entries: dict[str, dict[str, Any]]) -> None:
    with drawing():
        figure = forest(entries["fewer-interactions"], claim("fewer-interactions"), Colours(STUDY))
    assert figure is not None
    axis = figure.axes[1].xaxis
    for place, text in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
        assert text.get_text() == f"×{math.exp(place):.3g}"


def test_an_ordering_shows_each_pair(entries: dict[str, dict[str, Any]]) -> None:
    with drawing():
        figure = forest(entries["order"], claim("order"), Colours(STUDY))
    assert figure is not None
    labels = [label.get_text().replace("\n", " ") for label in figure.axes[1].get_yticklabels()]
    assert labels == [
        "OPIRL against Off-policy GAIL",
        "Off-policy GAIL against AIRL (PPO)",
        "against the control, Random reward",
    ]


def test_open_intervals_reach_the_edges_and_nothing_is_drawn_of_nothing(
    entries: dict[str, dict[str, Any]],
) -> None:
    alone = entries["transfer"] | {
        "ci": [None, None],
        "control": None,
        "pairs": [{"replicate": "0", "effect": 3.0}],
    }
    with drawing():
        figure = forest(alone, None, Colours(STUDY))
        assert forest(entries["modes"], claim("modes"), Colours(STUDY)) is None
    assert figure is not None
    (bar,) = [line.get_xdata() for line in figure.axes[1].lines if line.get_linewidth() == 2.2]
    assert tuple(bar) == figure.axes[1].get_xlim()
    assert not figure.axes[1].patches  # study.py no longer says where the claim holds


def curve_rows(values: dict[str, list[list[float]]], steps: list[int]) -> list[dict[str, Any]]:
    fixed = {"stage": "imitate", "env": "pendulum", "key": "return"}
    return [
        fixed | {"method": method, "seed": seed, "step": step, "value": y}
        for method, seeds in values.items()
        for seed, ys in enumerate(seeds)
        for step, y in zip(steps, ys, strict=True)
    ]


def test_curves_of_some_jobs_leave_the_others_out() -> None:
    rows = [row | {"task": task} for task in ("a", "b") for row in curve_rows({task: [[1.0, 2.0]]}, [0, 1])]
    spec = Curves("c", "", "imitate", "step", "return", "env", "method")
    assert set(select(rows, spec)["pendulum"]) == {"a", "b"}
    assert set(select(rows, replace(spec, where={"task": "b"}))["pendulum"]) == {"b"}


def test_bands_are_student_t_intervals_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    ys = rng.normal(size=(8, 5))
    found = band([(np.arange(5.0), y) for y in ys])
    low, high = stats.t.interval(0.95, 7, ys.mean(axis=0), stats.sem(ys, axis=0))
    np.testing.assert_allclose(found.mean, ys.mean(axis=0))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    assert (found.n, found.fewest) == (8, 8)


def test_a_replicate_counts_between_its_own_ends_only() -> None:
    found = band(
        [(np.array([0.0, 10.0]), np.array([0.0, 10.0])), (np.array([0.0, 5.0]), np.array([2.0, 7.0]))]
    )
    assert (found.n, found.fewest) == (2, 1)
    np.testing.assert_allclose(found.mean[found.x <= 5], found.x[found.x <= 5] + 1)
    np.testing.assert_allclose(found.mean[found.x > 5], found.x[found.x > 5])
    assert np.isnan(found.low[found.x > 5]).all()


def test_an_x_that_fewer_than_half_reach_is_left_out() -> None:
    short = [(np.array([0.0, 5.0]), np.array([y, y + 5.0])) for y in (0.0, 1.0, 2.0)]
    found = band([*short, (np.array([0.0, 10.0]), np.array([3.0, 13.0]))])
    assert found.x.max() <= 5.0 and (found.n, found.fewest) == (4, 4)


def test_curves_join_another_abscissa_by_step_and_leave_gaps_out() -> None:
    rows = curve_rows({"opirl": [[1.0, 2.0, 3.0]]}, [0, 1, 2])
    rows += [row | {"key": "interactions", "value": 100.0 * row["step"]} for row in rows if row["step"] != 1]
    x, y = select(rows, replace(SPEC, x="interactions"))["pendulum"]["opirl"]["0"]
    assert (list(x), list(y)) == ([0.0, 200.0], [1.0, 3.0])
    assert select(rows, replace(SPEC, y="loss")) == {}


def test_learning_curves_draw_the_bands_and_say_how_many_seeds() -> None:
    rows = curve_rows({"opirl": [[1.0, 2.0], [3.0, 6.0]], "airl": [[0.0, 1.0]]}, [0, 50])
    with drawing():
        found = learning_curves(SPEC, rows, Colours(STUDY), {("method", "opirl"): "OPIRL"})
    assert found is not None
    figure, told = found
    lines = {line.get_color(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert sorted(lines.values()) == [[0.0, 1.0], [2.0, 4.0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["airl (n = 1)", "OPIRL (n = 2)"]
    assert told == "airl in pendulum ends at 1; opirl in pendulum ends at 4."


def test_lines_of_very_different_length_share_a_logarithmic_abscissa() -> None:
    rows = curve_rows({"opirl": [[1.0, 2.0]]}, [0, 10_000]) + curve_rows({"airl": [[0.0, 1.0]]}, [0, 300_000])
    with drawing():
        found = learning_curves(replace(SPEC, x_linear=1000.0), rows, Colours(STUDY), {})
    assert found is not None
    axis = found[0].axes[0].xaxis
    assert list(axis.get_majorticklocs()) == [0.0, 1e3, 1e4, 1e5]
    assert [label.get_text() for label in axis.get_majorticklabels()] == ["0", "1,000", "10,000", "100,000"]


def test_more_arms_than_colours_are_told_apart() -> None:
    rows = curve_rows({f"arm{i}": [[0.0, float(i)]] for i in range(14)}, [0, 1])
    with drawing():
        found = learning_curves(SPEC, rows, Colours(STUDY), {})
    assert found is not None
    looks = [(line.get_color(), line.get_linestyle()) for line in found[0].axes[0].lines]
    assert len(set(looks)) == 14


def test_an_arm_keeps_its_colour(entries: dict[str, dict[str, Any]]) -> None:
    colours = Colours(STUDY)
    of_axis = colours.lines("method", ["airl", "dac", "opirl"])
    assert of_axis["opirl"] == colours.label("OPIRL")
    assert of_axis["airl"] == colours.label("AIRL (PPO)")
    assert len(set(of_axis.values())) == 3


def test_thinning_keeps_ends_and_extremes() -> None:
    y = [0.0] * 1000
    y[333], y[700] = 9.0, -9.0
    xs, ys = thin(list(range(1000)), y, 50)
    assert len(xs) <= 50
    assert (xs[0], xs[-1]) == (0, 999)
    assert {(333, 9.0), (700, -9.0)} <= set(zip(xs, ys, strict=True))
    assert thin([1.0, 2.0], [3.0, 4.0], 50) == ([1.0, 2.0], [3.0, 4.0])


def test_drawings_are_well_formed_titled_and_never_formulas() -> None:
    rows = curve_rows({HOSTILE: [[0.0, 1.0]], "$\\frac{": [[1.0, 1.0]]}, [0, 1])
    spec = Curves("c", HOSTILE, "imitate", "step", "return", "env", "method", HOSTILE, HOSTILE)
    with drawing():
        found = learning_curves(spec, rows, Colours(STUDY), {})
        assert found is not None
        text = to_svg(found[0], "curves-c", HOSTILE)
    root = ET.fromstring(text)
    assert root.get("aria-label") == HOSTILE
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert HOSTILE in words
    assert "$\\frac{ (n = 1)" in words
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(str(name).startswith("curves-c-") for name in ids)
    assert "<style" not in inline(text)
    assert "<metadata" not in text


def test_every_drawn_colour_has_a_dark_twin(entries: dict[str, dict[str, Any]]) -> None:
    with drawing():
        figure = forest(entries["final-return"], claim("final-return"), Colours(STUDY))
        assert figure is not None
        text = to_svg(figure, "x", "x")
    style, _, drawn = text.partition("</style>")
    used = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", drawn))
    assert len(used) > 8
    for kind, colour in used:
        assert f'[style*="{kind}: {colour}"]' in style


def test_the_names_of_clip_paths_hang_on_no_address() -> None:
    """Matplotlib names them by `id`, so that one shape may have two names, and others in the next process."""

    def text(first: str, second: str) -> str:
        used = "".join(f'<g clip-path="url(#{name})"/>' for name in (first, second, "round"))
        shapes = [(first, '<rect x="1"/>'), (second, '<rect x="1"/>'), ("round", '<rect x="2"/>')]
        defined = {name: f'\n  <clipPath id="{name}">\n   {shape}\n  </clipPath>' for name, shape in shapes}
        return f"<svg>{used}<defs>{''.join(defined.values())}\n</defs></svg>"

    found = _clips(text("pabc", "pabc"))
    assert found == _clips(text("pabc", "pdef")) == _clips(found)
    assert found.count("<clipPath") == 2 and found.count("url(#clip-1)") == 2 and "url(#clip-2)" in found
    assert _clips("<svg/>") == "<svg/>"
