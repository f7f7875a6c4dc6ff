"""Trainings of OPIRL for the tests of several processes, started as torchrun would.

``python -m tests.projects.opirl.together OUT updates`` updates every method in float64 on transitions of no merit, and
rank 0 writes OUT/<method>.pt. ``... OUT stage METHOD STOP`` runs `imitate`; a STOP of at least 0 is asked for at that
step by the last process, and ends with 75.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from common.cluster.ranks import parts, place
from common.errors import RethesisError
from projects.opirl.networks import StackedMLP
from projects.opirl.ppo import Rollout
from tests.projects.opirl import support
from tests.projects.opirl.stages import Stages, stop_at
from tests.projects.opirl.support import MAZE, PENDULUM, normal

METHODS = ("opirl", "opirl_on_policy_disc", "dac", "airl", "bc", "sac")
SEEDS = (0, 1)
UPDATES = 30


def updates(out: Path) -> None:
    """What `common.training.fit` does to the processes, without its float32 environments."""
    if place().size > 1:
        dist.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    for method in METHODS:
        arm = learner(out / f"rank {place().rank}", method)
        for k in range(UPDATES if method != "airl" else 3):
            arm.step(k)
        in_parts(arm)
        state = arm.state_dict()  # whole: asks all processes
        if place().rank == 0:
            torch.save(state, out / f"{method}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


def in_parts(arm: Any) -> None:
    """Under fsdp a process holds its part of each network and of Adam's moments, and no more."""
    cuts, _ = parts()
    for net in (layer for layer in arm.modules() if isinstance(layer, StackedMLP)):
        assert net.flat.numel() == sum(net.counts) // cuts
    for optimiser in arm.optimisers():
        for p, state in optimiser.state.items():
            assert state["exp_avg"].shape == state["exp_avg_sq"].shape == p.shape


def learner(out: Path, method: str) -> Any:
    """An arm in float64 that does not act: it is given transitions, a third of them in the absorbing state."""
    cfg = support.config(
        method, MAZE, collect={"start": 0}, airl={"batch": 64, "updates": 4}, bc={"batch": 64}
    )
    cfg["airl"]["ppo"] = {**cfg["airl"]["ppo"], "length": 64, "epochs": 2, "minibatches": 2}
    arm: Any = support.arm(out, method, cfg=cfg, seeds=SEEDS)
    arm.double()
    spec = arm.setting.spec
    if method == "airl":
        arm.ppo.collect = lambda k: rollout(arm.ppo, spec.obs_dim + 1, spec.act_dim, k)
        arm.recent.rows, arm.expert.rows = arm.recent.rows.double(), arm.expert.rows.double()
    elif method != "bc":
        made = support.batch(len(SEEDS), 200, spec.obs_dim + 1, spec.act_dim)
        rows = torch.cat((made.s, made.a, made.s2, made.r.unsqueeze(-1), made.m.unsqueeze(-1)), -1)
        for member, part in enumerate(rows):
            arm.collector.replay.add(member, part)
        arm.collector.step = lambda k, behave: None
    return arm


def rollout(ppo: Any, states: int, actions: int, k: int) -> Rollout:
    """Of random numbers; the fifth part of the steps ends an episode."""
    shape = (len(SEEDS), ppo.options.length, ppo.options.copies)
    s, s2 = (normal(*shape, states, seed=10 * k + i) for i in range(2))
    s[..., -1], s2[..., -1] = 0.0, 0.0
    ended = normal(*shape, seed=10 * k + 4) > 0.8
    reward, ends = normal(*shape, seed=10 * k + 3), ended & (normal(*shape, seed=10 * k + 5) > 0.0)
    return Rollout(s, normal(*shape, actions, seed=10 * k + 2), s2, reward, ends, ended)


def stage(out: Path, method: str, stop: int) -> None:
    """`imitate` as a job runs it: the first process in OUT, the others elsewhere."""
    here = place()
    cfg = support.config(
        method, PENDULUM, imitate={"steps": 48}, evaluation={"every": 12, "episodes": 1},
        collect={"start": 8, "random_steps": 16}, demos={"count": 2},
    )  # fmt: skip
    stages = Stages(out if here.rank == 0 else out / f"rank {here.rank}", pytest.MonkeyPatch())
    shutil.rmtree(stages.root / f"expert {PENDULUM}", ignore_errors=True)
    stages.given_experts(PENDULUM, SEEDS)
    if stop >= 0 and here.rank == here.size - 1:
        stages.at_step = stop_at(stop)
    stages.run("imitate", stages.members("imitate", cfg, SEEDS, "imitate"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        updates(folder) if sys.argv[2] == "updates" else stage(folder, sys.argv[3], int(sys.argv[4]))
    except RethesisError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
