"""The schedulers' own commands: submit, ask about all of one's jobs in one call, cancel."""

from __future__ import annotations

import getpass
import re
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.cluster.sites import Site
from common.errors import BadInputError, RethesisError

PATIENCE = 60.0  # seconds that a scheduler may take to answer
AT_ONCE = 100  # ids that one cancelling command takes
GOING = (0, 0.5, 1, 2, 4, 8, 15)  # seconds before each question whether cancelled jobs have gone
# Said by a command that found no scheduler to talk to, which is no refusal.
AWAY = re.compile(
    r"unable to contact|timed out|commlib error|communication (error|failure)"
    r"|(cannot|could not|unable to|failed to) connect|connect(ion)? (failure|refused|reset)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Commands:
    """One family of schedulers.

    Attributes:
        submit: the command; account option and script follow.
        job_id: where its answer holds the id.
        list_jobs: prints every job of one's own that has not ended.
        row: where a line of that holds id and state, and perhaps why it waits.
        ended: states of jobs that will not run (any more), although they are listed.
        stuck: those of them that stay listed until somebody cancels them.
        held: states, and reasons, of waiting jobs that will not start by themselves.
        cancel: the command; ids follow.
    """

    submit: tuple[str, ...]
    job_id: str
    list_jobs: Callable[[], tuple[str, ...]]
    row: str
    ended: tuple[str, ...]
    cancel: tuple[str, ...]
    stuck: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


FAMILIES = {
    "slurm": Commands(
        submit=("sbatch", "--parsable"),
        job_id=r"^(\d+)(?:;\S+)?$",
        list_jobs=lambda: ("squeue", "--noheader", "--me", "--format=%A %T %r"),
        row=r"^(\d+) (\w+)(?: (\w+))?",
        # CONFIGURING and REQUEUED come back; COMPLETING may still hold the nodes, but its processes have ended.
        ended=("COMPLETING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"),
        cancel=("scancel",),
        held=(
            "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
            "JobHeldAdmin", "JobHeldUser", "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit",
            "AccountNotAllowed",
        ),
    ),
    "pbs": Commands(
        submit=("qsub",),
        job_id=r"^(\d+(?:\[\])?)(?:\.\S+)?$",
        list_jobs=lambda: ("qstat",),
        row=r"^(\d+(?:\[\d*\])?)(?:\.\S*)? .* ([A-Z]) +\S+ *$",
        ended=("F", "X"),
        cancel=("qdel",),
        held=("H",),
    ),
    "sge": Commands(
        submit=("qsub", "-terse"),
        job_id=r"^(\d+)(?:\.\S+)?$",
        list_jobs=lambda: ("qstat", "-u", getpass.getuser()),
        row=r"^ *(\d+) +\S+ +\S+ +\S+ +(\w+) ",
        ended=("Eqw", "Ehqw"),
        cancel=("qdel",),
        stuck=("Eqw", "Ehqw"),
        held=("hqw",),
    ),
    "pjm": Commands(
        submit=("pjsub",),
        job_id=r"Job (\d+) submitted",
        list_jobs=lambda: ("pjstat", "--choose", "jid,st"),  # a site may change the columns shown by default
        row=r"^(\d+) +(\w+) *$",
        # RUNOUT may still be writing back what the job wrote; an ERROR stays listed until pjdel, and never runs again.
        ended=("EXT", "RJT", "CCL", "ERR"),
        cancel=("pjdel",),
        stuck=("ERR",),
        held=("HLD",),
    ),
}  # fmt: skip


class SchedulerError(RethesisError):
    """The scheduler refused, or did not answer."""


class RefusedError(SchedulerError):
    """The scheduler was there and did not take the job."""


def submit(site: Site, script: Path, account: str) -> str:
    """Submit a script and return the job's id.

    Raises:
        RefusedError: it was refused; the scheduler's words are in the message.
        SchedulerError: the scheduler was not found, or did not answer.
        BadInputError: the command is not here: this is no login node of the site.
    """
    family = FAMILIES[site.scheduler]
    pays = _option(site.account, account) if account and site.account else []
    # A session of its own: a Ctrl-C at the terminal must not end it between submission and the id.
    answer = _run([*family.submit, *pays, str(script)])
    if answer.returncode:
        words = (answer.stderr or answer.stdout).strip()
        if AWAY.search(words):
            raise SchedulerError(f"{site.title} could not be asked to run {script.name}: {words}")
        raise RefusedError(f"{site.title} refused {script.name}: {words}")
    for line in reversed(answer.stdout.splitlines()):  # sites print notices before it
        match = re.search(family.job_id, line.strip())
        if match:
            return match.group(1)
    said = f"{answer.stdout}{answer.stderr}".strip()  # some refusals end with 0
    raise RefusedError(f"no job id in what {family.submit[0]} printed: {said!r}")


def living(site: Site) -> set[str]:
    """Ids of one's own jobs that wait or run, by one command.

    Raises:
        SchedulerError: no answer; nothing is known about any job then.
    """
    return set(queue(site))


def queue(site: Site) -> dict[str, str]:
    """The same, each with the scheduler's word for why it will not start by itself, empty where it may.

    Raises:
        SchedulerError: no answer.
    """
    family = FAMILIES[site.scheduler]
    rows = [(job, state, why) for job, state, why in _listed(family) if state not in family.ended]
    return {job: next((word for word in (why, state) if word in family.held), "") for job, state, why in rows}


def remove_stuck(site: Site, jobs: Collection[str]) -> list[str]:
    """Cancel those of the jobs that stand in an error state for good; return them.

    Raises:
        SchedulerError: no answer.
    """
    family = FAMILIES[site.scheduler]
    if not family.stuck:
        return []
    found = sorted({job for job, state, _ in _listed(family) if state in family.stuck} & set(jobs))
    for start in range(0, len(found), AT_ONCE):
        _run([*family.cancel, *found[start : start + AT_ONCE]])
    return found


def _listed(family: Commands) -> list[tuple[str, str, str]]:
    """Id, state and perhaps a reason of every job that the scheduler lists."""
    answer = _run(family.list_jobs())
    if answer.returncode:
        raise SchedulerError(f"{family.list_jobs()[0]}: {(answer.stderr or answer.stdout).strip()}")
    matches = (re.match(family.row, line) for line in answer.stdout.splitlines())
    return [(match[1], match[2], match[3] or "" if match.re.groups > 2 else "") for match in matches if match]


def cancel(site: Site, jobs: Sequence[str]) -> None:
    """Cancel jobs and see them go; those that have ended already are no error.

    Raises:
        SchedulerError: some of them are still there after half a minute, or the scheduler does not say.
    """
    family, words = FAMILIES[site.scheduler], ""
    for start in range(0, len(jobs), AT_ONCE):
        try:
            answer = _run([*family.cancel, *jobs[start : start + AT_ONCE]])
            words = (answer.stderr.strip() if answer.returncode else "") or words
        except SchedulerError as error:  # the others are cancelled all the same
            words = str(error)
    left = _left(site, set(jobs))
    if left is None or left:
        which = "does not say what became of" if left is None else "still lists"
        raise SchedulerError(
            f"{family.list_jobs()[0]} {which} {', '.join(sorted(left or jobs))}. {words}".strip()
        )


def _left(site: Site, jobs: set[str]) -> set[str] | None:
    """Those of the cancelled jobs that do not go; None: no answer."""
    left: set[str] | None = None if jobs else set()
    deadline = time.monotonic() + PATIENCE
    for pause in GOING:
        if left == set() or time.monotonic() > deadline:
            break
        time.sleep(pause)
        with suppress(SchedulerError):
            left = jobs & living(site)
    return left


def _option(flag: str, value: str) -> list[str]:
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False, start_new_session=True
        )
    except FileNotFoundError as error:
        raise BadInputError(
            f"{command[0]} is not found: LAUNCH works on a login node of its site. `make launch-check` works anywhere."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} gave no answer in {PATIENCE:.0f} s") from error
