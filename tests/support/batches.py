"""The toy study on a scheduler: what the tests of all schedulers share."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
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
        return (*STUDY, "--launch", self.launch, "launch.poll=1")

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


def outage_and_ctrl_c(batch: Batch, quiet: dict[str, bytes], status: str, folder: Path) -> None:
    """The scheduler gives no answer while jobs end, and later the front door is stopped by Ctrl-C.

    Args:
        batch: the study.
        quiet: the bits that it must end with.
        status: the command that asks the scheduler; while ``folder / "down"`` exists it does not answer.
        folder: for the command that stands in front of it.
    """
    down, path = folder / "down", batch.environment["PATH"]
    tool = folder / "bin" / status
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\n[ -e {down} ] && {{ echo "cannot connect to server" >&2; exit 111; }}\n'
        f'PATH={path} exec {status} "$@"\n'
    )
    tool.chmod(0o755)
    process = batch.start(STEPS, SLOW, PATH=f"{tool.parent}:{path}")
    wait_for(lambda: len(batch.counts()) == 4, 120)
    down.touch()
    wait_for(lambda: len(list(batch.house.runs().glob("count/*/DONE"))) == 4)
    down.unlink()
    wait_for(lambda: "stacked" in "".join(batch.house.calls()))
    process.send_signal(signal.SIGINT)
    process.communicate()
    wait_for(lambda: not living(site(batch.launch)))
    batch.run(STEPS)
    assert batch.house.bits() == quiet and len(batch.counts()) == 4


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
