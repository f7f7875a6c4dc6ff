"""Stable-Baselines3's SAC for benchmarks/opirl.py, which runs it in a process of its own."""

from __future__ import annotations

import sys
import time

import torch

from projects.opirl.envs import make

NEVER = 10**9


def serve(hidden: int, batch: int, warm: int, steps: int) -> None:
    """Warm up; then for every line of input make `steps` steps and print the CPU-seconds of one."""
    from stable_baselines3 import SAC

    torch.set_num_threads(1)
    model = SAC(
        "MlpPolicy",
        make("inverted_double_pendulum", 0),
        learning_rate=1e-3,
        buffer_size=100_000,
        learning_starts=warm,
        batch_size=batch,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [hidden, hidden]},
        seed=0,
        device="cpu",
    )
    model.learn(warm, log_interval=NEVER)
    for _ in sys.stdin:
        started = time.process_time()
        model.learn(steps, log_interval=NEVER, reset_num_timesteps=False)
        print((time.process_time() - started) / steps, flush=True)
