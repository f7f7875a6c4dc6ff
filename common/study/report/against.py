"""The p values of the opposites: claims.json holds those of the claims, and what contradicts one is the other side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.study.contrast import claimed_range, is_tested
from common.study.model import Claim, Study
from common.study.report.data import Json, Result, objects
from common.study.report.standing import stated
from common.study.statistics import holm, within
from common.study.verdict import family


def against(study: Study, result: Result) -> dict[str, float]:
    """Claim id -> p value of its opposite, adjusted by Holm over the primary claims as in `verdict.judge`."""
    declared = stated(study, result)
    raw = {str(claim.get("id")): _raw(claim, declared) for claim in result.claims}
    known = {name: p for name, p in raw.items() if p is not None}
    members = [claim.id for claim in family(declared.values(), result.scale)]
    adjusted = holm([known.get(name, 1.0) for name in members])
    return known | {name: p for name, p in zip(members, adjusted, strict=True) if name in known}


def _raw(claim: Json, declared: Mapping[str, Claim]) -> float | None:
    """The unadjusted p value, None where nothing was tested; Bonferroni over an ordering's pairs."""
    today, parts = declared.get(str(claim.get("id"))), objects(claim.get("parts"))
    if today is None or not is_tested(today):
        return None
    if parts:
        return min(1.0, len(parts) * min(float(part["against"]) for part in parts))
    effects = [float(pair["effect"]) for pair in objects(claim.get("pairs"))]
    return within(np.array(effects), *claimed_range(today)).against if effects else None
