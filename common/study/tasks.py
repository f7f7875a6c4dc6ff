"""Which processes have to run: jobs without DONE, grouped along the stacked axis, with what they wait for."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from common.errors import EXIT_NON_FINITE
from common.study.fingerprint import short
from common.study.jobs import Job
from common.study.store import failure, given_up, is_done

STACK = 8  # members of one process at most


@dataclass(frozen=True, eq=False)
class Task:
    """One process: one job, or up to eight members of a stacked stage."""

    name: str
    jobs: tuple[Job, ...]
    needs: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.jobs[0].stage.name

    @property
    def arm(self) -> str:
        """The axes without the stacked one, for a person."""
        first = self.jobs[0]
        return " ".join(f"{value}" for axis, value in first.axes.items() if axis != "seed") or "-"

    @property
    def minutes(self) -> float:
        """Estimated minutes; a stack's estimate is that of a whole process."""
        return max(job.minutes for job in self.jobs)

    @property
    def alone(self) -> bool:
        """Whether nothing may run beside it on this machine: it measures times."""
        return self.jobs[0].stage.measures_host


def plan_tasks(jobs: Sequence[Job], root: Path, without: Set[str] = frozenset()) -> list[Task]:
    """The processes that a study still needs, producers first.

    Jobs that failed twice deterministically are left out, and so is all that reads them.

    Args:
        jobs: of a study, producers first.
        root: the repository's root.
        without: fingerprints of jobs to leave out likewise.
    """
    out_of_reach = set(without)
    for job in jobs:  # producers stand before consumers
        inputs = [need for needs in job.inputs.values() for need in needs]
        if given_up(job.folder(root)) or any(need.fingerprint in out_of_reach for need in inputs):
            out_of_reach.add(job.fingerprint)
    todo = [job for job in jobs if job.fingerprint not in out_of_reach and not is_done(job.folder(root))]
    groups: dict[str, list[Job]] = {}
    for job in todo:
        groups.setdefault(_group(job, root), []).append(job)
    chunks = [jobs[start : start + STACK] for jobs in groups.values() for start in range(0, len(jobs), STACK)]
    owner = {job.fingerprint: _name(chunk) for chunk in chunks for job in chunk}
    return [Task(_name(chunk), tuple(chunk), _waits_for(chunk, owner)) for chunk in chunks]


def _group(job: Job, root: Path) -> str:
    axis = job.stage.stacked
    # A stack in which one member diverged falls apart, so that the others finish alone.
    if axis is None or failure(job.folder(root)).get("exit_code") == EXIT_NON_FINITE:
        return job.fingerprint
    others = {name: value for name, value in job.axes.items() if name != axis}
    return short([job.stage.name, others, job.role])


def _name(chunk: Sequence[Job]) -> str:
    return f"{chunk[0].stage.name}-{short([job.fingerprint for job in chunk])}"


def _waits_for(chunk: Sequence[Job], owner: dict[str, str]) -> tuple[str, ...]:
    needed = {need.fingerprint for job in chunk for needs in job.inputs.values() for need in needs}
    return tuple(sorted({owner[fingerprint] for fingerprint in needed if fingerprint in owner}))
