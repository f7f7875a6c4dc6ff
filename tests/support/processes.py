"""Processes started as torchrun would, for the tests of a training on several of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def begin(size: int, program: Sequence[str], **extra: str) -> list[subprocess.Popen[str]]:
    """Start ``python *program`` `size` times, each told its place; one process is told nothing."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("RETHESIS", "SLURM", "OMPI"))
    }
    shared = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    world = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    return [
        subprocess.Popen(
            [sys.executable, *program], text=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**clean, **shared, **extra,
                 **({**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else {})},
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]], code: int = 0) -> str:
    """Wait for all; every one must end with `code`. What they printed."""
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    return "".join(outputs)


def kill(*victims: psutil.Process) -> None:
    """SIGKILL; one that has ended meanwhile is no error."""
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that it started."""
    parent = psutil.Process(pid)
    kill(parent, *parent.children(recursive=True))  # the parent first, before it sees its children die


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
