"""From the members of a stage's process to trained nets: what search, sweep and retrain have in common."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from common.errors import BadInputError
from common.study.model import Member
from projects.sam_batch_study.plan import Net
from projects.sam_batch_study.trained import Trained


class Engine(Protocol):
    """Trains the nets that each member wants, or continues; checkpoints are in the members' folders.

    `wanted` has one or more nets a member, whose `owner` is the member's number. `part` is a name, where a stage
    trains more than once; curves are recorded for the part without one.
    """

    def __call__(
        self, members: Sequence[Member], wanted: Sequence[Sequence[Net]], part: str = ""
    ) -> list[Trained]:
        """What came of them, by member."""
        ...


def train(members: Sequence[Member], wanted: Sequence[Sequence[Net]], part: str = "") -> list[Trained]:
    """Train with the engine that study.py names for the members' task; see `Engine`.

    Raises:
        BadInputError: a member wants no net.
    """
    if not all(wanted):
        raise BadInputError(
            "no net to train: inits must be at least 1, and a search needs a learning rate and a rho."
        )
    study = importlib.import_module("projects.sam_batch_study.study").STUDY
    code = str(study.stage("search").arms["task"][str(members[0].axes["task"])])
    module, _, name = code.partition(":")
    return cast("Engine", getattr(importlib.import_module(module), name))(members, wanted, part)
