"""The toy study on a scheduler: what the tests of all schedulers share."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from house import House, wait_for
from processes import kill, kill_tree

from common.cluster.schedulers import living
from common.cluster.sites import site

STEPS = "toy.steps=30"
SLOW = 'launch.setup=["export TOY_SLEEP=0.3"]'  # for schedulers that pass no environment on
STUDY = ("reproduce", "--project", "toy", "--track", "off", "--scale", "smoke")


@dataclass
class Batch:
    """A toy house whose jobs go to a scheduler."""

    house: House
    launch: str
    environment: Mapping[str, str]

    @property
    def arguments(self) -> tuple[str, ...]:
        # Fugaku's nodes are Arm: where this is not, an interpreter has to be named
        python = [f"launch.python={sys.executable}"] if self.launch == "fugaku" else []
        return (*STUDY, "--launch", self.launch, "launch.poll=1", *python)

    def run(self, *overrides: str, code: int = 0, **extra: str) -> str:
        return self.house.run(*self.arguments, *overrides, code=code, **{**self.environment, **extra})

    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *overrides: str, **extra: str) -> subprocess.Popen[str]:
        process = self.house.start(*self.arguments, *overrides, **{**self.environment, **extra})
        self.started.append(process)
        return process

    def stop(self) -> None:
        """SIGKILL to every front door and engine that a failed test left."""
        for process in self.started:
            if process.poll() is None:
                kill_tree(process.pid)
                process.communicate()

    def submissions(self) -> list[dict[str, str]]:
        paths = self.house.runs().glob(".engine/*/submitted.jsonl")
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def counts(self) -> list[str]:
        """The counters' starts, one line each."""
        return [line for line in self.house.calls() if line.startswith("count")]

    def kill_workers(self) -> int:
        """SIGKILL to every job of this house that runs on this host."""
        number = 0
        for process in psutil.process_iter(["cmdline", "cwd"]):
            if "common.study.job" in (process.info["cmdline"] or []) and process.info["cwd"] == str(
                self.house.root
            ):
                kill(process)
                number += 1
        return number


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


def quiet_bits(house: House, *overrides: str) -> dict[str, bytes]:
    """What a run on this machine alone gives."""
    house.run(*STUDY, *overrides)
    return house.bits()


def deadline_kill_and_packs(batch: Batch, quiet: dict[str, bytes]) -> None:
    """Packs of two that meet the deadline six seconds after their start, and lose their processes once."""
    limit = ('launch.walltime="00:01:00"', "launch.margin=54", "launch.pack=2")
    process = batch.start(STEPS, *limit, SLOW)
    wait_for(lambda: len(batch.counts()) >= 2, 120)
    batch.kill_workers()
    end(process)
    assert batch.house.bits() == quiet and len(batch.counts()) >= 8


def in_front(folder: Path, command: str, text: str, path: str) -> str:
    """A PATH on which a script stands before a scheduler's command; ``$REAL`` in its text calls that command."""
    tool = folder / "bin" / command
    tool.parent.mkdir(exist_ok=True)
    tool.write_text("#!/bin/sh\n" + text.replace("$REAL", f'PATH={path} exec {command} "$@"') + "\n")
    tool.chmod(0o755)
    return f"{tool.parent}:{path}"


def held(gate: Path) -> tuple[str, ...]:
    """Overrides: one program a job, and counters wait in the middle of their training for a file."""
    return "launch.pack=1", f'launch.setup=["export TOY_GATE={gate}"]'


def outage(batch: Batch, quiet: dict[str, bytes], status: str, folder: Path) -> None:
    """The scheduler gives no answer while jobs end.

    Args:
        batch: the study.
        quiet: the bits that it must end with.
        status: the command that asks the scheduler.
        folder: for the command that stands in front of it.
    """
    down, gate = folder / "down", folder / "open"
    silent = f'[ -e {down} ] && {{ echo "cannot connect to server" >&2; exit 111; }}\n$REAL'
    path = in_front(folder, status, silent, batch.environment["PATH"])
    process = batch.start(STEPS, *held(gate), PATH=path)
    wait_for(lambda: len(batch.counts()) == 4, 120)
    down.touch()
    gate.touch()
    wait_for(lambda: len(list(batch.house.runs().glob("count/*/DONE"))) == 4)
    down.unlink()
    end(process)
    assert batch.house.bits() == quiet and len(batch.counts()) == 4


def ctrl_c(
    batch: Batch,
    quiet: dict[str, bytes],
    folder: Path,
    queue: Callable[[], Collection[str]],
    steps: str = STEPS,
) -> None:
    """Ctrl-C while four jobs wait for a file in `folder` that does not come: nothing but cancelling ends them."""
    gate = folder / "open"
    process = batch.start(steps, *held(gate))
    wait_for(lambda: len(batch.counts()) == 4, 120)
    assert len(queue()) == 4
    process.send_signal(signal.SIGINT)
    output = end(process, 130)
    assert "cancelled 4 jobs" in output.splitlines() and "stopped; the same command continues" in output
    wait_for(lambda: not queue())
    gate.touch()
    batch.run(steps)
    assert batch.house.bits() == quiet and len(batch.counts()) == 8


def killed_front_door(batch: Batch, quiet: dict[str, bytes], folder: Path) -> None:
    """One program a job; front door and engine get SIGKILL while four jobs wait for a file in `folder`."""
    gate = folder / "open"
    held = ("launch.pack=1", f'launch.setup=["until test -e {gate}; do sleep 0.1; done"]')
    process = batch.start(STEPS, *held)
    wait_for(lambda: len(batch.submissions()) == 4, 120)
    batch.stop()
    assert process.returncode == -signal.SIGKILL
    before = {entry["id"] for entry in batch.submissions()}
    (engine,) = batch.house.runs().glob(".engine/*")
    (engine / "verdicts").unlink(missing_ok=True)
    # Snakemake remembers the ids that it was told, submitted.json the others
    process = batch.start(STEPS, *held)
    wait_for((engine / "verdicts").is_file, 120)
    assert living(site(batch.launch)) == before
    gate.touch()
    end(process)
    assert batch.house.bits() == quiet and len(batch.counts()) == 4, "a job was started twice"
    assert len({entry["id"] for entry in batch.submissions()}) == 8
