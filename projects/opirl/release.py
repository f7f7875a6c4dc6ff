"""The released code's defects, each behind its own switch, so that its effect can be measured.

Mode `paper` has none of them, mode `release` has all; a switch set to true or false in the config overrides its
mode, and base.yaml sets `positive_part` (why: projects/opirl/README.md). Found by reading github.com/sff1019/opirl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from common.errors import BadInputError, unknown


@dataclass(frozen=True)
class Switches:
    """Attributes:
    expert_next_is_current: the expert's next state is its state, unless absorbing (load_expert overwrites it).
    dead_log_pi: log pi is a second column of the logistic loss without gradient: half the weight beside the penalty.
    absorbing_until_timeout: after the first timed-out demonstration, terminations are no longer absorbing.
    cover_replay: the covering term regresses on replay actions that the critics prefer, not on the expert's.
    positive_part: f'(x) = max(x, 0)^(p-1) in the actor, |x|^p / p in the critics.
    transfer_without_absorbing: a reward learned with absorbing states is re-optimised without.
    transfer_timeouts_end: where the horizon is not 1000, a time-out of the re-optimisation counts as a termination.
    clip_reward: in the mazes the policy is paid min(r, 0); the reward that is carried over is not clipped.
    """

    expert_next_is_current: bool
    dead_log_pi: bool
    absorbing_until_timeout: bool
    cover_replay: bool
    positive_part: bool
    transfer_without_absorbing: bool
    transfer_timeouts_end: bool
    clip_reward: bool


def switches(cfg: Mapping[str, Any]) -> Switches:
    """From the config section ``release: {mode: paper | release, <switch>: null | true | false}``.

    Raises:
        BadInputError: unknown mode, or a switch that is neither.
    """
    mode = cfg["mode"]
    if mode not in ("paper", "release"):
        raise unknown("release.mode", str(mode), ("paper", "release"))
    names = [field.name for field in fields(Switches)]
    chosen = {name: cfg.get(name) for name in names}
    for name, on in chosen.items():
        if on is not None and not isinstance(on, bool):
            raise BadInputError(f"release.{name} is null, true or false, not {on!r}.")
    return Switches(**{name: mode == "release" if on is None else on for name, on in chosen.items()})


def current_as_next(rows: Float[Tensor, "m w"], obs_dim: int, act_dim: int) -> Float[Tensor, "m w"]:
    """Expert rows with s' = s wherever s' is no absorbing state; `obs_dim` counts the flag."""
    rows = rows.clone()
    s2 = slice(obs_dim + act_dim, 2 * obs_dim + act_dim)
    ordinary = rows[:, s2.stop - 1] == 0.0
    rows[ordinary, s2] = rows[ordinary, :obs_dim]
    return rows
