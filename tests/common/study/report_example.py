"""A synthetic result with every verdict, 8 seeds and 3 arms, for the tests of report and dashboard."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

from common.study.model import Arm, Claim, Curves, Metric, Published, Stage, Study

SEEDS = range(8)
VERDICTS = ("supported", "contradicted", "inconclusive", "not assessed", "vacuous", "invalid")
RETURN = Metric("final_return", "return", "higher", 0.0)
STEPS = Metric("steps_to_80_percent", "interactions", "lower", 24000.0)
ARMS = {
    "opirl": Arm("OPIRL", "imitate", {"method": "opirl"}),
    "airl": Arm("AIRL (PPO)", "imitate", {"method": "airl"}),
    "dac": Arm("Off-policy GAIL", "imitate", {"method": "dac"}),
    "cut": Arm("OPIRL, buffer cut to the last rollout", "imitate", {"method": "cut"}),
    "random": Arm("Random reward", "imitate", {"method": "random"}),
}


def example_study() -> Study:
    """Six claims, one for each verdict, of several kinds."""

    def claim(
        id_: str, kind: Any, statement: str, metric: Metric, baseline: str, control: str, **more: Any
    ) -> Claim:
        return Claim(
            id_,
            statement,
            "thesis §4.2, figure 3",
            kind,
            metric,
            ARMS["opirl"],
            ARMS[baseline],
            ARMS[control],
            **more,
        )

    return Study(
        "opirl",
        "Off-policy inverse reinforcement learning via distribution matching",
        "Hoshino et al., 2022",
        "Does learning a reward from off-policy data need fewer interactions, and does the reward transfer?",
        (Stage("imitate", "x:y", ("env", "method", "seed")),),
        (
            claim(
                "a",
                "superior",
                "OPIRL reaches 80 % of the expert’s return with fewer interactions than AIRL.",
                STEPS,
                "airl",
                "cut",
                effect="log_ratio",
                limits="The published tasks have 17 to 111 observations; these have 4 to 11.",
                published=(
                    Published("OPIRL, Ant", 4240.0, "return", "thesis, table 2"),
                    Published("AIRL, Ant", 991.0, "return", "thesis, table 2", "on-policy, 3 M steps"),
                ),
            ),
            claim(
                "b",
                "noninferior",
                "OPIRL’s final return is not inferior to the best rival’s.",
                RETURN,
                "dac",
                "random",
                margin=40.0,
            ),
            claim(
                "c",
                "superior",
                "A policy re-optimised on OPIRL’s reward earns more than one on AIRL’s.",
                RETURN,
                "airl",
                "cut",
            ),
            claim(
                "d",
                "equivalent",
                "The mode-covering term does not change the final return.",
                RETURN,
                "dac",
                "random",
                margin=20.0,
                primary=False,
            ),
            claim(
                "e",
                "superior",
                "Off-policy data alone transfer worse than on-policy data.",
                RETURN,
                "airl",
                "cut",
            ),
            claim("f", "superior", "OPIRL covers more modes than off-policy GAIL.", RETURN, "dac", "cut"),
        ),
        (
            Curves(
                "return",
                "Return during imitation, by task.",
                "imitate",
                "step",
                "return",
                "env",
                "method",
                "interactions",
                "return",
            ),
        ),
        limits={"laptop": "Small tasks, 64×64 networks: nothing here speaks about high-dimensional control."},
    )


def write_example(folder: Path, study: Study | None = None, *, curve_points: int = 25) -> Path:
    """Write claims.json, table.csv, curves.csv and environment.json."""
    study, draw = study or example_study(), random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    claims = [_claim(claim, verdict, draw) for claim, verdict in zip(study.claims, VERDICTS, strict=True)]
    head = {
        "project": folder.parent.name,
        "scale": folder.name,
        "commit": "4f2a9c1d" * 5,
        "fingerprint": "9b" * 16,
        "cpu": "AMD EPYC 7763",
    }
    (folder / "claims.json").write_text(json.dumps({**head, "claims": claims}))
    (folder / "environment.json").write_text(
        json.dumps(
            {
                **head,
                "dirty": False,
                "cores": 2,
                "python": "3.11.2",
                "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
                "seeds": list(SEEDS),
                "wall_minutes": 31.4,
                "cpu_hours": 0.98,
                "overrides": [],
                "cost": {
                    "expert": {"jobs": 4, "cpu_minutes": 2.8},
                    "imitate": {"jobs": 48, "cpu_minutes": 55.9},
                },
                "started": "2026-11-20T09:00:00Z",
                "finished": "2026-11-20T09:31:24Z",
                "command": "make reproduce PROJECT=opirl SCALE=laptop",
                "interactions": {"training": 3120000},
            }
        )
    )
    _write_csv(folder / "table.csv", _table())
    _write_csv(folder / "curves.csv", _curves(curve_points))
    return folder


def _claim(claim: Claim, verdict: str, draw: random.Random) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": claim.id,
        "hash": "c0ffee" * 6,
        "statement": claim.statement,
        "source": claim.source,
        "kind": claim.kind,
        "primary": claim.primary,
        "metric": claim.metric.name,
        "unit": claim.metric.unit,
        "verdict": verdict,
        "effect": None,
        "ci": None,
        "n": 0,
        "diverged": {},
        "margin": claim.margin,
        "effect_kind": claim.effect,
        "published": [vars(each) for each in claim.published],
        "limits": claim.limits,
        "reason": "",
    }
    if verdict in ("not assessed", "invalid"):
        return {
            **entry,
            "reason": "This scale does not assess it."
            if verdict == "not assessed"
            else "3 of 16 runs are missing: make logs PROJECT=opirl shows why.",
        }
    ratio = claim.effect == "log_ratio"
    centre = {
        "supported": 1.1 if ratio else 60,
        "contradicted": -70.0,
        "inconclusive": 12.0,
        "vacuous": 80.0,
    }[verdict]
    spread = 0.45 if ratio else 38.0
    pairs = [centre + spread * draw.gauss(0, 1) for _ in SEEDS]
    mean = sum(pairs) / 8
    half = 1.895 * math.sqrt(sum((x - mean) ** 2 for x in pairs) / 7 / 8)
    base = {
        str(seed): 12000 + 2500 * draw.gauss(0, 1) if ratio else 720 + 50 * draw.gauss(0, 1) for seed in SEEDS
    }
    ours = {
        seed: value * math.exp(-pair) if ratio else value + pair
        for (seed, value), pair in zip(base.items(), pairs, strict=True)
    }
    method, baseline, control = claim.method.label, claim.baseline.label, claim.control.label  # type: ignore[union-attr]
    passed = verdict != "vacuous"
    away = {True: 0.8 * centre, False: 0.02 * centre}[passed] if claim.kind == "superior" else -120.0
    return {
        **entry,
        "effect": mean,
        "ci": [mean - half, mean + half],
        "n": 8,
        "p": 0.00391,
        "p_holm": 0.0195,
        "method": method,
        "baseline": baseline,
        "diverged": {method: 0, baseline: 1},
        "pairs": [{"replicate": str(seed), "effect": pair} for seed, pair in zip(SEEDS, pairs, strict=True)],
        "values": {method: ours, baseline: base},
        "needed": 21 if verdict == "inconclusive" else None,
        "control": {
            "label": control,
            "effect": away,
            "ci": [away - half, away + half],
            "p": 0.0078,
            "passed": passed,
        },
        "baseline_choice": "best mean final_return on validation seeds 900 to 902",
    }


def _table() -> list[dict[str, Any]]:
    draw = random.Random(11)
    return [
        {
            "project": "opirl",
            "scale": "laptop",
            "stage": "imitate",
            "status": "diverged" if gone else "done",
            "role": "study" if seed < 900 else "validation",
            "fingerprint": f"{index:08x}",
            "env": env,
            "method": method,
            "seed": seed,
            "final_return": "" if gone else 700 + 40 * draw.gauss(0, 1),
            "steps_to_80_percent": "" if gone else 9000 + 2000 * draw.random(),
        }
        for index, (env, method, seed) in enumerate(
            (env, method, seed)
            for env in ("pendulum", "maze-left", "maze-right")
            for method in ("opirl", "airl", "dac")
            for seed in (*SEEDS, 900)
        )
        for gone in [method == "airl" and seed == 3]
    ]


def _curves(points: int) -> list[dict[str, Any]]:
    draw, rows = random.Random(13), []
    for env, top in (("pendulum", 900.0), ("maze-left", 1.2), ("maze-right", 35.0)):
        for method, speed in (("opirl", 4.0), ("airl", 1.2), ("dac", 2.4)):
            for seed in (*SEEDS, 900):
                level = top * (1 + 0.06 * draw.gauss(0, 1))
                for point in range(points):
                    share = point / max(1, points - 1)
                    value = level * (1 - math.exp(-speed * share)) + 0.04 * top * draw.gauss(0, 1)
                    for key, each in (("return", value), ("loss", math.exp(-speed * share))):
                        rows.append(
                            {
                                "stage": "imitate",
                                "env": env,
                                "method": method,
                                "seed": seed,
                                "step": round(12000 * share),
                                "key": key,
                                "value": each,
                            }
                        )
    return rows


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
