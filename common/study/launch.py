"""Tasks packed into what the engine starts; for a scheduler with what each job asks for, and its script."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cluster import script
from common.cluster.ask import Ask, classes
from common.cluster.profile import Profile, profile, whole
from common.study.fingerprint import short
from common.study.tasks import Task
from common.tracking.provenance import usable_cores

ROUND = 300  # walltimes are whole five minutes
SHORT = 0.5  # minutes: of a shorter task the imports are a sixth or more
SERIES = 2.0  # minutes of short tasks in one process


@dataclass(frozen=True)
class Pack:
    """Tasks that one process runs one after the other, or one job of a scheduler side by side.

    Attributes:
        name: of the node in the engine's dependency graph.
        tasks: of one stage.
        needs: names of packs.
        ask: what the job asks for; None where there is no scheduler.
    """

    name: str
    tasks: tuple[Task, ...]
    needs: tuple[str, ...]
    ask: Ask | None = None

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.tasks[0].stage


def packed(tasks: Sequence[Task], launch: Mapping[str, Any]) -> list[Pack]:
    """The engine's jobs, each of one stage: for a scheduler up to ``launch.pack`` tasks, here several if short."""
    chosen = None if launch["executor"] == "local" else profile(launch)
    stages: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        stages[task.stage].append(task)
    chunks: list[list[Task]] = []
    for group in stages.values():
        chunks += _chunks(group, _size(group, launch), chosen)
    owner = {task.name: _name(chunk) for chunk in chunks for task in chunk}
    packs: list[Pack] = []
    for chunk in chunks:
        needs = {owner[need] for task in chunk for need in task.needs}
        asked = ask(chosen, chunk) if chosen else None
        packs.append(Pack(_name(chunk), tuple(chunk), tuple(sorted(needs)), asked))
    return packs


def cores(launch: Mapping[str, Any]) -> int:
    """Processes at once that the launch profile allows, on this machine by default a core each.

    Raises:
        BadInputError: the profile gives no whole number.
    """
    if launch["executor"] == "batch":
        return whole(launch["jobs"], "launch.jobs", 1) * whole(launch["pack"], "launch.pack", 1)
    return usable_cores() if launch["cores"] is None else whole(launch["cores"], "launch.cores", 1)


def _chunks(tasks: Sequence[Task], size: int, chosen: Profile | None) -> list[list[Task]]:
    """Tasks in groups of at most `size`, and of what fits together into the smallest node that has each of them."""
    nodes = [one.memory_gb or math.inf for one in classes(chosen)] if chosen else []
    largest = max(_memory([task]) for task in tasks)
    room = min((memory for memory in nodes if memory >= largest), default=0.0 if nodes else math.inf)
    chunks: list[list[Task]] = [[]]
    for task in tasks:
        if len(chunks[-1]) == size or (chunks[-1] and _memory([*chunks[-1], task]) > room):
            chunks.append([])
        chunks[-1].append(task)
    return chunks


def _memory(tasks: Sequence[Task]) -> float:
    """GB a node of tasks side by side."""
    return sum(task.jobs[0].resources.memory_gb * task.jobs[0].resources.processes for task in tasks)


def _size(tasks: Sequence[Task], launch: Mapping[str, Any]) -> int:
    """How many of a stage's tasks share a process or a scheduler's job; every core here keeps something to do."""
    resources = tasks[0].jobs[0].resources
    if tasks[0].alone or resources.gpus or resources.nodes * resources.processes > 1:
        return 1
    if launch["executor"] == "batch":
        return int(launch["pack"])
    longest = max(task.minutes for task in tasks)
    if longest > SHORT:
        return 1
    return min(math.ceil(len(tasks) / cores(launch)), math.floor(SERIES / max(longest, 0.01)))


def ask(chosen: Profile, tasks: Sequence[Task]) -> Ask:
    """What a job of these tasks asks for; its walltime is the longest task's estimate with slack, within limits."""
    job = tasks[0].jobs[0]
    resources = job.resources
    wanted = max(task.minutes for task in tasks) * 60 * chosen.slack
    seconds = math.ceil(wanted / ROUND) * ROUND
    return Ask(
        name=_name(tasks),
        seconds=chosen.walltime or min(max(seconds, chosen.shortest), chosen.longest),
        nodes=resources.nodes,
        processes=max(resources.processes, resources.gpus),
        gpus=resources.gpus,
        threads=int(job.parts["environment"]["threads"]),
        memory_gb=_memory(tasks),
        pack=len(tasks),
    )


def script_of(
    chosen: Profile, asked: Ask, programs: Sequence[Sequence[str]], logs: Sequence[Path], root: Path
) -> str:
    """The job script of programs, each given by the folders of its jobs."""
    python = chosen.python or sys.executable
    commands = [[python, "-m", "common.study.job", *folders] for folders in programs]
    return script.render(chosen, asked, commands, root, logs)


def _name(tasks: Sequence[Task]) -> str:
    return tasks[0].name if len(tasks) == 1 else f"{tasks[0].stage}-{short([task.name for task in tasks])}"
