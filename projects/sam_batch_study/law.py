"""Stage `law`: over the batch sizes, does rho* or rho* λ/‖g_m‖ vary less?

    spread = SD over B of   plain     log rho*
                            scaled    log(rho* λ/‖g_m‖)
                            shuffled  log(rho* λ'/‖g'_m‖), those of the B before it: the control

rho* and ‖g_m‖, the norm that the perturbation is divided by (geometric mean over the updates, interpolated at rho*),
are this seed's, from `sweep`; λ is the largest eigenvalue on the way (geometric mean over levels of training loss)
of its net with the chosen rho, from `probe`. A net without one of them, as it diverged or came down to no level, gives
the laws that need it the worst spread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.study.model import Member, Metrics
from projects.sam_batch_study.plan import WORST_SPREAD


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `spread`."""
    return [{"spread": spread(member)} for member in members]


def spread(member: Member) -> float:
    """The standard deviation (n − 1) over the batch sizes."""
    tuned = sorted(member.inputs["sweep"], key=lambda one: one.axes["batch"])
    curved = sorted(member.inputs["probe"], key=lambda one: one.axes["batch"])
    assert [one.axes["batch"] for one in tuned] == [one.axes["batch"] for one in curved]
    rho = np.log([one.metrics["best_rho"] for one in tuned])
    if str(member.axes["law"]) == "plain":
        return float(rho.std(ddof=1))
    measured = ["norm" in one.metrics for one in tuned] + ["middle_lambda" in one.metrics for one in curved]
    if not all(measured):
        return WORST_SPREAD
    scale = np.log([one.metrics["middle_lambda"] for one in curved]) - np.log(
        [one.metrics["norm"] for one in tuned]
    )
    values = {"scaled": rho + scale, "shuffled": rho + np.roll(scale, 1)}
    return float(values[str(member.axes["law"])].std(ddof=1))
