"""Whether written evidence still speaks about today's claims."""

from __future__ import annotations

from common.study.model import Claim, Study
from common.study.report.data import Result
from common.study.verdict import claim_hash


def superseded(study: Study, result: Result) -> dict[str, str]:
    """Claim id -> why the result says nothing about today's claim of that name; empty when all is current."""
    today = {claim.id: claim_hash(claim) for claim in study.claims}
    written = {str(claim.get("id")): claim.get("hash") for claim in result.claims}
    found: dict[str, str] = {}
    for name, old in written.items():
        if name not in today:
            found[name] = "study.py no longer states it"
        elif today[name] != old:
            found[name] = "it was changed in study.py after this run"
    return found | {name: "it was added to study.py after this run" for name in today if name not in written}


def stated(study: Study, result: Result) -> dict[str, Claim]:
    """Claim id -> the claim in study.py, those alone that the result was judged on: a later edit explains nothing."""
    old = superseded(study, result)
    return {claim.id: claim for claim in study.claims if claim.id not in old}
