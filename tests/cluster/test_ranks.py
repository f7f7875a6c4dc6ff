"""Ranks from the environment: every starter's variables as it sets them, the inner one first, and contradictions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cluster.environment import StartedElsewhere
from common.cluster.ranks import Place, address, place
from common.errors import BadInputError

ROOT = Path(__file__).resolve().parents[2]
# Rank 5 of 8 on two nodes with four processes each, as the starters write it (Slurm, Open MPI and torchrun were
# looked at on this code's own test clusters; PALS, PMI and PJM are from their documents).
FIFTH = {
    "torchrun": {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"},
    "Open MPI": {
        "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    },
    "PALS": {"PMI_RANK": "5", "PMI_SIZE": "8", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "4", "PALS_NODEID": "1"},
    "PMI": {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
    "PJM": {"PMIX_RANK": "5", "PJM_MPI_PROC": "8", "PLE_RANK_ON_NODE": "1", "PJM_PROC_BY_NODE": "4"},
    "Slurm": {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
}  # fmt: skip


@pytest.mark.parametrize("starter", FIFTH)
def test_every_starter_is_understood(starter: str) -> None:
    assert place(FIFTH[starter]) == Place(5, 8, 1, 1, starter)


def test_alone_without_a_starter_and_in_a_batch_script() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
    assert place({}) == place(batch) == Place()


def test_the_inner_starter_knows_better() -> None:
    alone = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    for inner in ("torchrun", "Open MPI"):
        assert place(alone | FIFTH[inner]) == Place(5, 8, 1, 1, inner)


COUNTED = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                 "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "PJM": ("PMIX_RANK", "PJM_MPI_PROC", "PLE_RANK_ON_NODE", "PJM_PROC_BY_NODE"),
}  # fmt: skip


@given(st.sampled_from(sorted(COUNTED)), st.integers(1, 6), st.integers(1, 6))
def test_nodes_filled_one_after_the_other(starter: str, nodes: int, each: int) -> None:
    for rank in range(nodes * each):
        numbers = (rank, nodes * each, rank % each, each)
        here = place(dict(zip(COUNTED[starter], map(str, numbers), strict=True)))
        assert (here.node, here.local_rank) == divmod(rank, each)


@pytest.mark.parametrize("change", [{"RANK": "8"}, {"LOCAL_RANK": "6"}, {"WORLD_SIZE": "many"}])
def test_contradictions_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match=r"that cannot be|is no whole number"):
        place(FIFTH["torchrun"] | change)


def test_addresses(tmp_path: Path) -> None:
    assert address({"MASTER_ADDR": "h1", "MASTER_PORT": "1234"}) == ("h1", 1234)
    assert address({}) == ("127.0.0.1", 20000)
    nodes = tmp_path / "nodes"
    nodes.write_text("hnode1\nhnode1\nhnode2\n")
    assert address({"PBS_NODEFILE": str(nodes), "PBS_JOBID": "41234.pbs1"}) == ("hnode1", 20000 + 1234)
    nodes.write_text("r1n1 4 all.q@r1n1 UNDEFINED\nr1n2 4 all.q@r1n2 UNDEFINED\n")
    assert address({"PE_HOSTFILE": str(nodes), "JOB_ID": "9"}) == ("r1n1", 20009)


def test_lightning_sees_the_table_and_nothing_else() -> None:
    environment = StartedElsewhere(place(FIFTH["Slurm"]))
    assert environment.creates_processes_externally
    told = (
        environment.world_size(),
        environment.global_rank(),
        environment.local_rank(),
        environment.node_rank(),
    )
    assert told == (8, 5, 1, 1)
    environment.set_world_size(8)
    with pytest.raises(BadInputError, match="size 4, and Slurm started this process with 8"):
        environment.set_world_size(4)


@pytest.mark.cluster
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: apt-get install openmpi-bin")
def test_a_real_mpirun_starts_ranks(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from common.cluster.ranks import place; here = place();"
        "Path(sys.argv[1], str(here.rank)).write_text(json.dumps(list(vars(here).values())))"
    )
    user = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PYTHONPATH": str(ROOT)}
    command = ["mpirun", "-n", "3", "--oversubscribe", sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True, env={**os.environ, **user})
    seen = [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())]
    assert seen == [[rank, 3, rank, 0, "Open MPI"] for rank in range(3)]
