"""OPIRL's engine against a plain eager loop and against Stable-Baselines3: eight seeds as one stacked program.

    OMP_NUM_THREADS=1 PYTHONPATH=. .venv/bin/python benchmarks/opirl.py            (about two minutes)

All times are CPU-seconds of the process, because the machine is shared; the contestants take turns, round by round,
so that a disturbance meets all of them. An update counts once for each member (seed) that makes it.

update       discriminator and policy (OPIRL), or policy (SAC), on batches drawn before. Against the literal
             transcription in benchmarks/opirl_eager.py: one member, nn.Linear, autograd, torch's Adam.
end to end   one environment step, replay buffer and one update, InvertedDoublePendulum. Against SAC of
             Stable-Baselines3 in a process of its own (benchmarks/opirl_sb3.py): the same environment, network
             sizes and batch, one update a step, a CPU thread, neither evaluation nor logging, warm-up excluded.
             What differs: ours writes its replay file too; `every 2nd` updates actor and temperature at every
             second step, as the laptop study does, `every step` at every one, as Stable-Baselines3 does.
evaluation   the study's evaluation against stepping the same environments with a constant action.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import opirl_eager
from common.study.config import compose
from common.tracking.provenance import cpu_model
from projects.opirl import algae, sac
from projects.opirl.agent import Agent, AgentOptions
from projects.opirl.algae import AlgaeOptions
from projects.opirl.arm import Setting
from projects.opirl.discriminator import Discriminator, DiscriminatorOptions
from projects.opirl.envs import make, spec
from projects.opirl.given import TrueReward
from projects.opirl.replay import Batch
from projects.opirl.rollout import evaluate

ROOT = Path(__file__).resolve().parents[1]
PENDULUM, MAZE = "inverted_double_pendulum", "pointmaze_left"
OBS, ACT = spec(PENDULUM).obs_dim + 1, spec(PENDULUM).act_dim
WARM = 128
"""Steps of uniform actions before the first update."""

Round = Callable[[], float]
"""One turn of a contestant: its CPU-seconds per unit of work."""


@dataclass(frozen=True)
class Size:
    """Two hidden layers of `hidden` units, `batch` transitions an update, `members` seeds stacked."""

    hidden: int
    batch: int
    members: int = 8

    def __str__(self) -> str:
        return f"{self.members} seeds, {self.hidden}x{self.hidden}, batch {self.batch}"


def race(contestants: Mapping[str, Round], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds per unit of every contestant in every round; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, turn in contestants.items():
            seconds = turn()
            if number:
                times[name].append(seconds)
    return times


def timed(work: Callable[[int], object], steps: int, units: int = 1) -> Round:
    """A turn of `steps` calls of `work`, each worth `units`; they are numbered on from turn to turn."""
    numbers = count()

    def turn() -> float:
        started = time.process_time()
        for _ in range(steps):
            work(next(numbers))
        return (time.process_time() - started) / (steps * units)

    return turn


def ratio(what: str, ours: list[float], theirs: list[float], promised: float | None = None) -> bool:
    """Print how many times as fast `ours` is; False when that breaks the promise."""
    value = statistics.median(theirs) / statistics.median(ours)
    kept = promised is None or value >= promised
    verdict = "" if promised is None else f"  promised >= {promised:g}: {'kept' if kept else 'broken'}"
    rates = f"{1 / statistics.median(ours):9.0f} against {1 / statistics.median(theirs):7.0f} /CPU-s"
    print(
        f"{what:64s}{rates}  ratio {value:5.2f} (minima {min(theirs) / min(ours):5.2f}){verdict}", flush=True
    )
    return kept


def transitions(size: Size, seed: int) -> Batch:
    """Random transitions of ordinary states."""
    draw = torch.Generator().manual_seed(seed)
    s, s2 = (torch.randn(size.members, size.batch, OBS, generator=draw) for _ in range(2))
    s[..., -1], s2[..., -1] = 0.0, 0.0
    a = 2.0 * torch.rand(size.members, size.batch, ACT, generator=draw) - 1.0
    r = torch.randn(size.members, size.batch, generator=draw)
    return Batch(s, a, s2, r, torch.ones_like(r))


def noise(size: Size) -> tuple[Tensor, Tensor]:
    """Interpolation fractions (n, 2, b) and standard normal numbers (n, 4, b, a)."""
    draw = torch.Generator().manual_seed(2)
    mix = torch.rand(size.members, 2, size.batch, generator=draw)
    return mix, torch.randn(size.members, 4, size.batch, ACT, generator=draw)


def networks(size: Size) -> tuple[Agent, Discriminator]:
    """Our stacked networks, with the eager loop's learning rates."""
    hidden = (size.hidden, size.hidden)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(size.members)]
    agent = Agent(seeds, OBS, ACT, AgentOptions(hidden, actor_lr=3e-4, critic_lr=1e-3, alpha_lr=1e-3))
    return agent, Discriminator(seeds, OBS, ACT, DiscriminatorOptions(hidden, hidden, lr=3e-4))


def opirl_engine(size: Size) -> Callable[[int], object]:
    """One OPIRL update of all members."""
    agent, discriminator = networks(size)
    expert, batch, (mix, eps) = transitions(size, 0), transitions(size, 1), noise(size)
    options = AlgaeOptions(kappa=opirl_eager.Constants().kappa)

    def update(step: int) -> None:
        discriminator.update(expert, batch, mix)
        algae.update(agent, batch, discriminator.rewards(batch.s, batch.a), eps, options, expert, step)

    return update


def sac_engine(size: Size) -> Callable[[int], object]:
    """One SAC update of all members."""
    agent, batch, (_, eps) = networks(size)[0], transitions(size, 1), noise(size)
    return lambda step: sac.update(agent, batch, batch.r, eps[:, :2], step)


def eager(size: Size) -> tuple[opirl_eager.Eager, opirl_eager.Rows, opirl_eager.Rows, Tensor, Tensor]:
    """The eager loop's networks, expert rows, replay rows, fractions and noise of one member."""
    hidden = (size.hidden, size.hidden)
    torch.manual_seed(0)
    expert, rows = (
        (one.s[0], one.a[0], one.s2[0], one.r[0], one.m[0])
        for one in (transitions(size, 0), transitions(size, 1))
    )
    mix, eps = noise(size)
    return opirl_eager.Eager(OBS, ACT, hidden, hidden), expert, rows, mix[0], eps[0]


def opirl_plain(size: Size) -> Callable[[int], object]:
    """One OPIRL update of one member, eager."""
    net, expert, rows, mix, eps = eager(size)
    return lambda step: opirl_eager.opirl_update(net, expert, rows, mix, eps, step)


def sac_plain(size: Size) -> Callable[[int], object]:
    """One SAC update of one member, eager."""
    net, _, rows, _, eps = eager(size)
    return lambda step: opirl_eager.sac_update(net, rows, eps[:2], step)


def updates(size: Size, steps: int, rounds: int, promised: float) -> bool:
    """The engine's updates against the eager loop's."""
    n = size.members
    times = race(
        {
            "OPIRL": timed(opirl_engine(size), steps, n),
            "OPIRL eager": timed(opirl_plain(size), 2 * steps),
            "SAC": timed(sac_engine(size), 2 * steps, n),
            "SAC eager": timed(sac_plain(size), 4 * steps),
        },
        rounds,
    )
    kept = [
        ratio(f"update, {name}, {size}", times[name], times[f"{name} eager"], promised)
        for name in ("OPIRL", "SAC")
    ]
    return all(kept)


def setting(size: Size, env: str, steps: int, folder: Path, *changes: str) -> Setting:
    """Where an arm learns `env` at that size, with the laptop study's other options and no demonstrations."""
    hidden = f"[{size.hidden},{size.hidden}]"
    sizes = (f"agent.hidden={hidden}", f"collect.batch={size.batch}")
    nets = (f"discriminator.hidden_reward={hidden}", f"discriminator.hidden_value={hidden}")
    cfg = compose("opirl", "laptop", [*sizes, *nets, *changes]) | {"axes": {"method": "", "env": env}}
    facts, seeds = spec(env), tuple(range(size.members))
    shift, scale = torch.zeros(size.members, facts.obs_dim), torch.ones(size.members, facts.obs_dim)
    folder.mkdir(parents=True)
    return Setting(env, facts, seeds, cfg, steps, (), shift, scale, folder)


@contextmanager
def stacked_sac(
    size: Size, steps: int, folder: Path, env: str = PENDULUM, actor_every: int = 2
) -> Iterator[TrueReward]:
    """Our SAC, past its warm-up."""
    begin = (f"collect.random_steps={WARM}", f"collect.start={WARM}", f"agent.actor_every={actor_every}")
    arm = TrueReward(setting(size, env, WARM + steps, folder, *begin))
    for k in range(WARM):
        arm.step(k)
    yield arm
    for file in arm.journals().values():
        file.close()


def against_sb3(size: Size, steps: int, rounds: int, promised: float) -> bool:
    """Environment step and update, ours against Stable-Baselines3's."""
    ours: dict[str, Round] = {}
    with tempfile.TemporaryDirectory() as folder, Peer(size, steps) as peer, ExitStack() as stack:
        for name, every in (("every 2nd", 2), ("every step", 1)):
            new = stacked_sac(size, steps * (rounds + 1), Path(folder) / name, actor_every=every)
            arm = stack.enter_context(new)
            ours[name] = timed(lambda k, arm=arm: arm.step(WARM + k), steps, size.members)
        times = race({**ours, "peer": peer.turn}, rounds)
    kept = [
        ratio(f"SAC end to end, actor {name}, {size}", times[name], times["peer"], promised) for name in ours
    ]
    return all(kept)


class Peer:
    """Stable-Baselines3 in a process of its own, which makes a turn for every line it is sent."""

    def __init__(self, size: Size, steps: int) -> None:
        code = f"from benchmarks.opirl_sb3 import serve; serve({size.hidden}, {size.batch}, {WARM}, {steps})"
        settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | settings,
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)

    def turn(self) -> float:
        """CPU-seconds of one environment step with its update."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def evaluation(size: Size, episodes: int, rounds: int) -> bool:
    """The study's evaluation of a policy against bare environment steps."""
    envs = [make(MAZE, seed) for seed in range(size.members)]
    action, horizon = np.zeros(spec(MAZE).act_dim, np.float32), spec(MAZE).horizon

    def bare(_: int) -> None:
        for env in envs:
            env.reset()
            for _ in range(horizon):
                env.step(action)

    with tempfile.TemporaryDirectory() as folder, stacked_sac(size, 1, Path(folder) / "job", MAZE) as arm:
        study = timed(
            lambda _: evaluate(arm.act, MAZE, episodes, arm.setting.seeds),
            1,
            size.members * episodes * horizon,
        )
        times = race({"ours": study, "bare": timed(bare, episodes, size.members * horizon)}, rounds)
    return ratio(f"evaluation against bare steps, {episodes} episodes", times["ours"], times["bare"])


def main() -> int:
    """Measure and print; 1 if a promise is broken."""
    torch.set_num_threads(1)
    # Lightning, where something imports it, makes torch's own Adam look for a GPU's driver at every step
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    print(f"CPU: {cpu_model()}")
    laptop, large = Size(64, 64), Size(256, 256)
    kept = [
        updates(laptop, steps=50, rounds=7, promised=2.0),
        against_sb3(laptop, steps=150, rounds=7, promised=2.5),
        updates(large, steps=4, rounds=3, promised=1.0),
        against_sb3(large, steps=16, rounds=3, promised=1.0),
        evaluation(laptop, episodes=5, rounds=5),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
