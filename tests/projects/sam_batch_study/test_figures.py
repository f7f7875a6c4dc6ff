"""The study's own figures, from rows as the table has them, whole and with parts missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from projects.sam_batch_study import figures
from projects.sam_batch_study.study import STUDY


def rows() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for seed in range(3):
        for batch in (64, 512):
            common = {"role": "study", "status": "done", "task": "clean", "batch": batch, "seed": seed}
            for method in ("sgd", "sam_batch"):
                arm = common | {"method": method}
                made += [
                    arm
                    | {
                        "stage": "retrain",
                        "test_error": 0.1 + 0.01 * seed,
                        "stopped_error": 0.1,
                        "fitted": 1.0,
                    },
                    arm | {"stage": "retrain", "task": "noisy", "test_error": 0.3, "stopped_error": 0.2},
                    arm
                    | {
                        "stage": "probe",
                        "lambda_max": 10.0 + batch + seed,
                        "trace": 50.0,
                        "middle_lambda": 20.0,
                    },
                ]
            made += [
                common | {"stage": "sweep", "method": "sam_batch", "best_rho": 0.1 * (seed + 1), "norm": 0.4,
                          "error_at_0.1": 0.12, "error_at_0.2": 0.11, "error_at_0.4": 0.13},
                common | {"stage": "cost", "method": "sam_batch", "step_ratio": 2.0 + 0.01 * seed},
            ]  # fmt: skip
    return made


@pytest.mark.parametrize("figure", STUDY.figures, ids=lambda figure: figure.id)
def test_each_is_drawn_with_labels(figure: Any) -> None:
    drawn = getattr(figures, figure.draw.partition(":")[2])(rows(), "laptop")
    assert any(axes.get_xlabel() for axes in drawn.axes)
    drawn.canvas.draw()


@pytest.mark.parametrize("figure", STUDY.figures, ids=lambda figure: figure.id)
@pytest.mark.parametrize("kept", ["nothing", "retrain", "sweep"])
def test_a_study_that_was_narrowed_still_draws(figure: Any, kept: str) -> None:
    some = [row for row in rows() if row["stage"] == kept]
    getattr(figures, figure.draw.partition(":")[2])(some, "laptop").canvas.draw()


@pytest.mark.parametrize("figure", STUDY.figures, ids=lambda figure: figure.id)
@pytest.mark.parametrize("seeds", [{0}, {0, 1, 2}])
def test_a_net_that_diverged_is_left_out_of_what_it_does_not_have(figure: Any, seeds: set[int]) -> None:
    """Its probe has nothing but the worst lambda_max, its sweep no norm; of one seed, and of all."""
    lost = ("trace", "middle_lambda", "norm")
    some = [
        {key: value for key, value in row.items() if row["seed"] not in seeds or key not in lost}
        for row in rows()
    ]
    getattr(figures, figure.draw.partition(":")[2])(some, "laptop").canvas.draw()


def test_error_by_batch_shows_the_mean_of_the_seeds() -> None:
    drawn = figures.error_by_batch(rows(), "laptop")
    line = drawn.axes[0].get_lines()[0]
    assert drawn.axes[0].get_ylim()[1] < 0.5
    assert list(line.get_xdata()) == [64, 512]
    assert list(line.get_ydata()) == pytest.approx([0.11, 0.11])


def test_an_arm_that_did_not_fit_has_a_cross_in_place_of_a_point() -> None:
    some = [row | {"fitted": 0.5, "test_error": 0.5} if row["batch"] == 64 else row for row in rows()]
    drawn = figures.error_by_batch(some, "laptop").axes[0]
    assert drawn.get_ylim()[1] < 0.5
    crosses = [line for line in drawn.get_lines() if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[64], [64]]


def test_tasks_do_not_share_a_panel() -> None:
    extra = [
        row | {"task": "noisy", "best_rho": 0.4, "error_at_0.1": ""}
        for row in rows()
        if row["stage"] == "sweep"
    ]
    drawn = figures.rho_by_batch(rows() + extra, "laptop")
    titled = [axes for axes in drawn.axes if axes.get_title()]
    ticks = [[float(tick.get_text()) for tick in axes.get_yticklabels()] for axes in titled]
    assert len(titled) == 2 and ticks[0] == ticks[1] == [0.1, 0.2, 0.4]
    assert [len(axes.collections[0].get_array()) for axes in titled] == [3, 2]  # values of rho of its own
    circles = [line for line in titled[1].get_lines() if line.get_marker() == "o"]
    assert {float(y) for line in circles for y in line.get_ydata()} == {float(np.log2(0.4))}
    assert len(figures.rho_law(rows() + extra, "laptop").axes) == 2
