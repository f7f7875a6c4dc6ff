"""A synthetic result with every verdict, 8 seeds and 3 arms, for the tests of report and dashboard."""

from __future__ import annotations

import csv
import json
import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.study.contrast import Contrast, claimed_range
from common.study.model import Arm, Claim, Curves, Kind, Metric, Published, Stage, Study
from common.study.statistics import Outcome
from common.study.verdict import Finding, Verdict, to_json

SEEDS = range(8)
VERDICTS: tuple[Verdict, ...] = (
    "supported", "contradicted", "inconclusive", "not assessed", "vacuous", "invalid", "supported",
)  # fmt: skip
HOSTILE = "<script>document.title='hacked'</script> | $5 & *x*"
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
    """Seven claims: one for each verdict, and an ordering."""

    def claim(name: str, kind: Kind, text: str, metric: Metric, arms: tuple[str, str], **more: Any) -> Claim:
        baseline, control = (ARMS[arm] for arm in arms)
        given: dict[str, Any] = {"baseline": baseline, "control": control} | more
        return Claim(name, text, "thesis §4.2, figure 3", kind, metric, ARMS["opirl"], **given)

    published = (
        Published("OPIRL, Ant", 4240.0, "return", "thesis, table 2"),
        Published("AIRL, Ant", 991.0, "return", "thesis, table 2", "on-policy, 3 M steps"),
    )
    limits = "The published tasks have 17 to 111 observations; these have 4 to 11."
    claims = (
        claim("fewer-interactions", "superior", "OPIRL reaches 80 % of the expert’s return with fewer interactions.",
              STEPS, ("airl", "cut"), effect="log_ratio", limits=limits),
        claim("final-return", "noninferior", "OPIRL’s final return is not inferior to the best rival’s.", RETURN,
              ("dac", "random"), margin=40.0, published=published),
        claim("transfer", "superior", "A policy re-optimised on OPIRL’s reward earns more than one on AIRL’s.", RETURN,
              ("airl", "cut")),
        claim("harmless", "equivalent", "The mode-covering term does not change the final return.", RETURN,
              ("dac", "random"), margin=20.0, primary=False),
        claim("off-policy", "superior", "Off-policy data alone transfer worse than on-policy data.", RETURN,
              ("airl", "cut")),
        claim("modes", "superior", "OPIRL covers more modes than off-policy GAIL.", RETURN, ("dac", "cut")),
        claim("order", "ordering", "OPIRL is above off-policy GAIL, which is above AIRL.", RETURN, ("dac", "random"),
              baseline=None, order=(ARMS["opirl"], ARMS["dac"], ARMS["airl"])),
    )  # fmt: skip
    caption = "Return during imitation, by task."
    return Study(
        name="opirl",
        title="Off-policy inverse reinforcement learning via distribution matching",
        thesis="Hoshino et al., 2022",
        question="Does learning a reward from off-policy data need fewer interactions, and does the reward transfer?",
        stages=(Stage("imitate", "x:y", ("env", "method", "seed")),),
        claims=claims,
        curves=(
            Curves("return", caption, "imitate", "step", "return", "env", "method", "interactions", "return"),
        ),
        limits={"laptop": "Small tasks, 64×64 networks: nothing here speaks about high-dimensional control."},
    )


def hostile_study() -> Study:
    """The same with markup in every text that a report takes from a study."""
    study = example_study()
    arms = {name: replace(arm, label=f"{arm.label} {HOSTILE}") for name, arm in ARMS.items()}
    published = (Published(HOSTILE, 1.0, HOSTILE, HOSTILE, HOSTILE),)
    claims = tuple(
        replace(
            claim, statement=HOSTILE, source=HOSTILE, limits=HOSTILE, published=published, method=arms["opirl"],
            baseline=arms["airl"] if claim.baseline else None, control=arms["cut"],
            metric=replace(claim.metric, unit=HOSTILE),
            order=claim.order and (arms["opirl"], arms["airl"], arms["dac"]),
        )
        for claim in study.claims
    )  # fmt: skip
    curves = tuple(replace(each, caption=HOSTILE, x_label=HOSTILE, y_label=HOSTILE) for each in study.curves)
    return replace(
        study,
        title=HOSTILE,
        thesis=HOSTILE,
        question=HOSTILE,
        claims=claims,
        curves=curves,
        limits={"laptop": HOSTILE},
    )


def write_example(folder: Path, study: Study | None = None, *, curve_points: int = 25) -> Path:
    """Write claims.json, table.csv, curves.csv and environment.json."""
    study, draw = study or example_study(), random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    claims = [_claim(claim, verdict, draw) for claim, verdict in zip(study.claims, VERDICTS, strict=False)]
    head = {
        "project": folder.parent.name,
        "scale": folder.name,
        "commit": "4f2a9c1d" * 5,
        "fingerprint": "9b" * 16,
        "cpu": "AMD EPYC 7763",
    }
    (folder / "claims.json").write_text(json.dumps({**head, "claims": claims}, sort_keys=True))
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
            }
        )
    )
    _write_csv(folder / "table.csv", _table())
    _write_csv(folder / "curves.csv", _curves(curve_points))
    return folder


def _claim(claim: Claim, verdict: Verdict, draw: random.Random) -> dict[str, Any]:
    """What the statistics would write of such a claim, in their own format."""
    if verdict in ("not assessed", "invalid"):
        reason = (
            "This scale does not assess it." if verdict == "not assessed" else "3 of 16 runs are missing."
        )
        return to_json(claim, Finding(claim.id, verdict, reason))
    assert claim.method and claim.control
    ratio, superior = claim.effect == "log_ratio", claim.kind in ("superior", "ordering")
    centre = {"supported": 60.0, "contradicted": -70.0, "inconclusive": 12.0, "vacuous": 80.0}[verdict]
    centre, spread = (1.1, 0.45) if ratio else (centre, 38.0)
    pairs = [centre + spread * draw.gauss(0, 1) for _ in SEEDS]
    base = [12000 + 2500 * draw.gauss(0, 1) if ratio else 720 + 50 * draw.gauss(0, 1) for _ in SEEDS]
    ours = [
        value * math.exp(-pair) if ratio else value + pair for value, pair in zip(base, pairs, strict=True)
    ]
    passed = verdict != "vacuous"
    away = (0.8 if passed else 0.02) * centre if superior else -120.0
    cut = [value * math.exp(away) if ratio else value - away for value in ours]
    low, high = claimed_range(claim)

    def compared(label: str, x: list[float], p: float) -> Contrast:
        mean, half = sum(x) / 8, 1.895 * spread / math.sqrt(8)
        named = {str(seed): value for seed, value in zip(SEEDS, x, strict=True)}
        test = Outcome(p, p, p, 1 - p)
        return Contrast(label, mean, (mean - half, mean + half), named, test, passed, (low, high))

    main = compared(claim.method.label, pairs, 0.0039)
    chain = [part.label for part in claim.order]
    others = [claim.baseline.label] if claim.baseline else chain[1:]
    values = dict(
        zip((claim.method.label, *others, claim.control.label), (ours, base, cut, cut), strict=False)
    )
    finding = Finding(
        claim.id, verdict, f"The example is {verdict}.", main.effect, main.ci, 8, 0.0031, 0.0039, 0.0039,
        0.0195 if claim.primary else None, compared(claim.control.label, [away] * 8, 0.0078), passed,
        tuple(compared(f"{a} against {b}", pairs, 0.0039) for a, b in pairwise(chain)), main.pairs,
        {label: {str(seed): value for seed, value in zip(SEEDS, x, strict=True)} for label, x in values.items()},
        {claim.method.label: 0, others[0]: 1}, 21 if verdict == "vacuous" else None,
        f"{others[0]} is the best on validation seeds" if claim.id == "final-return" else "",
    )  # fmt: skip
    return to_json(claim, finding)


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
