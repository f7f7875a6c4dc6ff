"""The figures that the card takes from the committed results are those of the results."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

import projects.opirl

(FOLDER,) = projects.opirl.__path__
CARD = (Path(FOLDER) / "README.md").read_text(encoding="utf-8")
RESULTS = Path(FOLDER).parents[1] / "results/opirl"
METHODS = {
    "OPIRL": "opirl",
    "OPIRL, last rollout only": "opirl_last_rollout",
    "OPIRL without the covering term": "covering_off",
    "AIRL (PPO)": "airl",
    "behavioural cloning": "bc",
    "DAC": "dac",
    "the release's switches, temperature fixed": "release",
    "SAC on the true reward": "sac",
    "the release's next state of the expert": "release_expert_next",
    "the release's dead log π": "release_log_pi",
    "the release's covering on replay actions": "release_cover",
    "the release's timed-out demonstrations": "release_timeout",
    "OPIRL, reward of states alone": "opirl_state_only",
    "AIRL, reward of states alone": "airl_state_only",
}


def rows(scale: str, stage: str) -> dict[tuple[str, str], dict[str, str]]:
    """(environment, method) -> the row of the first seed."""
    with (RESULTS / scale / "table.csv").open(newline="", encoding="utf-8") as file:
        return {(row["env"], row["method"]): row for row in csv.DictReader(file) if row["stage"] == stage}


def table(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    lines = CARD.split(heading, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    body = lines[start + 1 :]
    stop = next(i for i, line in enumerate(body) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body[:stop]]


@pytest.mark.parametrize(
    ("heading", "scale", "env", "lines"),
    [
        ("## One task with a body", "hopper", "hopper", 7),
        ("[HalfCheetah and Ant]", "bodies", "halfcheetah", 9),
        ("[Walker2d and the ant pairs]", "walkers", "walker2d", 6),
        ("On the whole ant", "walkers", "custom_ant", 4),
    ],
)
def test_the_tables_of_one_seed(heading: str, scale: str, env: str, lines: int) -> None:
    learned, tested = rows(scale, "imitate"), rows(scale, "evaluate")
    checked = 0
    for name, reached, share, trained in table(heading):
        if name not in METHODS:
            continue
        one = learned[env, METHODS[name]]
        cap, interactions = float(one["interactions_training"]), float(one["interactions_to_80"])
        if interactions > 1.5 * cap:  # twice the cap; cloning's cap counts updates, and it interacts never
            assert reached == "never", name
        else:
            assert float(reached.replace(",", "")) == pytest.approx(interactions, rel=0.05, abs=1), name
        assert float(share) == pytest.approx(float(tested[env, METHODS[name]]["normalised"]), abs=0.005), name
        assert float(trained.replace(",", "")) == pytest.approx(cap, rel=0.005), name
        checked += 1
    assert checked == lines


def test_the_last_column_of_the_verdicts() -> None:
    claims = json.loads((RESULTS / "laptop/claims.json").read_text(encoding="utf-8"))["claims"]
    known = {claim["id"]: claim for claim in claims}
    for name, _, before, last in table("## How firm the verdicts are"):
        text = before if last == "the same" else last
        assert text.endswith(f": {known[name]['verdict']}"), name
        effect = known[name]["effect"]
        shown = math.exp(effect) if text.startswith("×") else effect
        number = text.split()[0].replace("−", "-").lstrip("×")
        assert float(number) == pytest.approx(shown, abs=0.5 * 10.0 ** -len(number.partition(".")[2])), name
