"""Perceptrons: the nets of all members of a process are one stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from common.files import digest
from common.study.model import Member
from common.tracking.record import Recorder
from common.training.data import StepIndices
from common.training.fit import fit
from projects.sam_batch_study.plan import Net, plan_of
from projects.sam_batch_study.replicas import Replicas
from projects.sam_batch_study.rules import rule_of
from projects.sam_batch_study.task import task
from projects.sam_batch_study.trained import Trained


def train(members: Sequence[Member], wanted: Sequence[Sequence[Net]], part: str = "") -> list[Trained]:
    """Train the nets that each member wants, or continue; checkpoints are in the first member's folder.

    Args:
        members: of one stacked process.
        wanted: per member, one or more; `owner` is the member's number.
        part: a name, where a stage trains more than once; curves are recorded for the part without one.
    """
    first = members[0]
    batch = int(first.axes["batch"])
    rule, plan = rule_of(first.cfg["rule"], batch), plan_of(first.cfg, batch)
    tasks = [task(int(member.axes["seed"]), first.cfg["images"]) for member in members]
    nets = [net for each in wanted for net in each]
    records = [] if part else [Recorder(member.out) for member in members]
    module = Replicas(rule, plan, tasks, tuple(first.cfg["net"]["hidden"]), nets, records)
    data = StepIndices(plan.steps, module.chunk, divides=True)
    fit(module, data, first.out / part, records=records, identity=_identity(members, nets), guard_every=0)
    for record in records:
        record.close()
    found = iter(module.outcomes())
    return [Trained([next(found) for _ in each], module.weights(i)) for i, each in enumerate(wanted)]


def _identity(members: Sequence[Member], nets: Sequence[Net]) -> str:
    """A checkpoint belongs to one membership and its nets: under another the group starts afresh."""
    names = " ".join(f"{member.axes['seed']}:{member.out.name}" for member in members)
    return f"{names} {digest([asdict(net) for net in nets])[:16]}"
