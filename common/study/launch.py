"""What a batch launch will ask of its site: tasks packed into jobs, each with what it asks for and its script."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cluster import script
from common.cluster.profile import Profile, profile
from common.study.fingerprint import short
from common.study.tasks import Task

ROUND = 300  # walltimes are whole five minutes


@dataclass(frozen=True)
class Pack:
    """Tasks that one job of the scheduler runs side by side; the engine's node of the dependency graph.

    Attributes:
        name: of the job.
        tasks: of one stage.
        needs: names of packs.
        ask: what the job asks for; None where there is no scheduler.
    """

    name: str
    tasks: tuple[Task, ...]
    needs: tuple[str, ...]
    ask: script.Ask | None = None

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.tasks[0].stage


def packed(tasks: Sequence[Task], launch: Mapping[str, Any]) -> list[Pack]:
    """The engine's jobs: on this machine one a task, for a scheduler up to ``launch.pack`` tasks of one stage."""
    if launch["executor"] == "local":
        return [Pack(task.name, (task,), task.needs) for task in tasks]
    chosen = profile(launch)
    stages: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        stages[task.stage].append(task)
    chunks: list[list[Task]] = []
    for group in stages.values():
        stage = group[0].jobs[0].stage
        resources = group[0].jobs[0].resources
        alone = stage.measures_host or resources.gpus or resources.nodes * resources.processes > 1
        size = 1 if alone else chosen.pack
        chunks += [group[start : start + size] for start in range(0, len(group), size)]
    owner = {task.name: _name(chunk) for chunk in chunks for task in chunk}
    packs: list[Pack] = []
    for chunk in chunks:
        needs = {owner[need] for task in chunk for need in task.needs}
        packs.append(Pack(_name(chunk), tuple(chunk), tuple(sorted(needs)), ask(chosen, chunk)))
    return packs


def ask(chosen: Profile, tasks: Sequence[Task]) -> script.Ask:
    """What a job of these tasks asks for; its walltime is the longest task's estimate with slack, within limits."""
    job = tasks[0].jobs[0]
    resources = job.resources
    wanted = max(task.minutes for task in tasks) * 60 * chosen.slack
    seconds = math.ceil(wanted / ROUND) * ROUND
    return script.Ask(
        name=_name(tasks),
        seconds=chosen.walltime or min(max(seconds, chosen.shortest), chosen.longest),
        nodes=resources.nodes,
        processes=max(resources.processes, resources.gpus),
        gpus=resources.gpus,
        threads=int(job.parts["environment"]["threads"]),
        memory_gb=resources.memory_gb * max(len(tasks), resources.processes),
        pack=len(tasks),
    )


def script_of(
    chosen: Profile, asked: script.Ask, programs: Sequence[Sequence[str]], logs: Sequence[Path], root: Path
) -> str:
    """The job script of programs, each given by the folders of its jobs."""
    commands = [[sys.executable, "-m", "common.study.job", *folders] for folders in programs]
    return script.render(chosen, asked, commands, root, logs)


def _name(tasks: Sequence[Task]) -> str:
    return tasks[0].name if len(tasks) == 1 else f"{tasks[0].stage}-{short([task.name for task in tasks])}"
