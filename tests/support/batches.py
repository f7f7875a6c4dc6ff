"""The toy study on a scheduler: what the tests of all schedulers share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil
from house import House

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
                for victim in (*psutil.Process(process.pid).children(recursive=True), process):
                    victim.kill()
                process.communicate()

    def submissions(self) -> list[dict[str, str]]:
        (path,) = self.house.runs().glob(".engine/*/submitted.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

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
                process.kill()
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
