"""Stage `law`: over the batch sizes, does rho* or rho* λ/‖g_m‖ vary less?

    spread = SD over B of   plain     log rho*
                            scaled    log(rho* λ/‖g_m‖)
                            shuffled  log(rho* λ'/‖g'_m‖), those of the B before it: the control

rho* and ‖g_m‖, the norm that the perturbation is divided by (geometric mean over the updates, interpolated at rho*),
are this seed's, from `sweep`; λ is the largest eigenvalue on the way (geometric mean over levels of training loss)
of its net with the chosen rho, from `probe`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.study.model import Member, Metrics


def run(members: Sequence[Member]) -> Sequence[Metrics]:
    """Metrics: `spread`."""
    return [{"spread": spread(member)} for member in members]


def spread(member: Member) -> float:
    """The standard deviation (n − 1) over the batch sizes."""
    tuned = sorted(member.inputs["sweep"], key=lambda one: one.axes["batch"])
    curved = sorted(member.inputs["probe"], key=lambda one: one.axes["batch"])
    assert [one.axes["batch"] for one in tuned] == [one.axes["batch"] for one in curved]
    rho = np.log([one.metrics["best_rho"] for one in tuned])
    scale = np.log([one.metrics["middle_lambda"] for one in curved]) - np.log(
        [one.metrics["norm"] for one in tuned]
    )
    values = {"plain": rho, "scaled": rho + scale, "shuffled": rho + np.roll(scale, 1)}
    return float(values[str(member.axes["law"])].std(ddof=1))
