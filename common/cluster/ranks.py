"""Which process of a job am I: read from what torchrun, an MPI or a scheduler put into the environment.

No MPI library is loaded. Where one starter runs inside another (torchrun or mpirun inside Slurm), the inner one
knows better and stands first in the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from common.errors import BadInputError

T = TypeVar("T")


@dataclass(frozen=True)
class Variables:
    """The names under which one starter tells a process its place; empty: it does not tell."""

    starter: str
    rank: str
    size: str
    local_rank: str
    local_size: str = ""
    node: str = ""


# Slurm's SLURM_NTASKS also stands in a batch script, where one process runs: only srun sets SLURM_STEP_NUM_TASKS.
# Grid Engine sets no ranks; its MPI does.
TABLE = (
    Variables("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    Variables(
        "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    Variables("PALS", "PMI_RANK", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE", "PALS_NODEID"),
    Variables("PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    Variables("PJM", "PMIX_RANK", "PJM_MPI_PROC", "PLE_RANK_ON_NODE", "PJM_PROC_BY_NODE"),
    Variables("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_NODEID"),
)  # fmt: skip
HOST_FILES = ("PBS_NODEFILE", "PE_HOSTFILE", "PJM_O_NODEINF")  # one host a line, the first word of it
HOSTS = ("MASTER_ADDR", "SLURM_LAUNCH_NODE_IPADDR")
JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "PJM_JOBID")
STRATEGY = "RETHESIS_STRATEGY"
STRATEGIES = ("ddp", "fsdp")
PORTS = (20000, 20000)  # the first, and how many


@dataclass(frozen=True)
class Place:
    """A process's place among those of its job.

    Attributes:
        rank: 0 <= rank < size.
        size: processes of the job.
        local_rank: on its node, which is also its device.
        node: number of its node.
        starter: who said so.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0
    starter: str = "none"

    def share(self, batch: Sequence[T]) -> list[T]:
        """This process's part of a batch that all of them know: the entries rank, rank + size, rank + 2 size, ...

        Raises:
            BadInputError: the parts would not be equal; gradients are averaged with equal weight.
        """
        if len(batch) % self.size:
            raise BadInputError(
                f"a batch of {len(batch)} cannot be shared by {self.size} processes; make it a multiple."
            )
        return list(batch[self.rank :: self.size])


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place; alone when no starter says otherwise.

    Raises:
        BadInputError: a starter's numbers contradict each other.
    """
    for row in TABLE:
        if not all(name in environment for name in (row.rank, row.size, row.local_rank)):
            continue
        rank, size, local = (_number(environment, name) for name in (row.rank, row.size, row.local_rank))
        if not 0 <= rank < size or not 0 <= local <= rank:
            raise BadInputError(
                f"{row.starter} says rank {rank} of {size}, local rank {local}: that cannot be."
            )
        return Place(rank, size, local, _node(environment, row, rank, local), row.starter)
    return Place()


def strategy(environment: Mapping[str, str] = os.environ) -> str:
    """How the processes of a training work together (``parallel.strategy`` of the configuration)."""
    return environment.get(STRATEGY) or "ddp"


def parts(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Into how many parts a training cuts its weights, and which of them this process holds; (1, 0): into none."""
    here = place(environment)
    return (here.size, here.rank) if strategy(environment) == "fsdp" else (1, 0)


def address(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Where rank 0 listens: MASTER_ADDR and MASTER_PORT, else the first host of the job and a port of its id."""
    host = next((environment[name] for name in HOSTS if environment.get(name)), "")
    if not host:
        files = [Path(environment[name]) for name in HOST_FILES if environment.get(name)]
        lines = [file.read_text(encoding="utf-8").split() for file in files if file.is_file()]
        host = next((words[0] for words in lines if words), "127.0.0.1")
    if environment.get("MASTER_PORT"):
        return host, _number(environment, "MASTER_PORT")
    ids = [match for name in JOB_IDS if (match := re.match(r"\d+", environment.get(name, "")))]
    return host, PORTS[0] + (int(ids[0].group()) if ids else 0) % PORTS[1]


def _node(environment: Mapping[str, str], row: Variables, rank: int, local: int) -> int:
    if row.node in environment:
        return _number(environment, row.node)
    # nodes of equal size, filled one after the other, as every launcher of ours asks for
    return (
        rank // _number(environment, row.local_size)
        if row.local_size in environment
        else (rank - local > 0) * 1
    )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name].strip()
    if not text.isdigit():
        raise BadInputError(f"{name}={text!r} is no whole number; unset it or let the launcher set it.")
    return int(text)
