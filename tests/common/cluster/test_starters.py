"""How a program on several nodes is started; its line of a PBS script is run by a real Open MPI where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from launches import launch_of, script_for

from common.cluster.ask import Ask

NODES = Ask("a-0", seconds=1000, nodes=2, processes=2, gpus=2, threads=3)
# In place of ssh or tm: the other node is this one with an empty environment and its own folder of temporary files.
AGENT = """#!/bin/sh
folder=%s/$1; shift
mkdir -p "$folder"
exec env -i PATH="$PATH" TMPDIR="$folder" sh -c "$*"
"""
SAYS = "echo $OMPI_COMM_WORLD_RANK $OMPI_COMM_WORLD_LOCAL_RANK $OMP_NUM_THREADS $RETHESIS_MARGIN $TMPDIR"


def start_of(name: str, ask: Ask = NODES) -> str:
    """The line that starts the program."""
    (line,) = [line for line in script_for(launch_of(name), ask).splitlines() if line.startswith("exec ")]
    return line


def test_srun_is_told_the_cores_of_a_process() -> None:
    assert start_of("slurm").startswith(
        "exec srun --kill-on-bad-exit=1 -n 4 --ntasks-per-node=2 --cpus-per-task=3 python"
    )
    assert start_of("slurm", Ask("a-0", seconds=1000, threads=3)).startswith("exec python")


@pytest.mark.parametrize("name", ["abci3", "pbs"])
def test_mpirun_is_told_the_hosts_of_pbs(name: str) -> None:
    assert ' -n 4 --map-by ppr:2:node --bind-to none -hostfile "$PBS_NODEFILE" -x ' in start_of(name)


def test_mpirun_passes_on_what_the_user_names() -> None:
    line = script_for(launch_of("pbs", passed=["NCCL_DEBUG"]), NODES).splitlines()[-1]
    assert " -x PATH -x NCCL_DEBUG ${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH} python " in line


def test_and_only_those_of_pbs() -> None:
    assert "-hostfile" not in start_of("tsubame4", Ask("a-0", seconds=1000, nodes=2, processes=4))
    assert start_of("aurora").startswith("exec mpiexec -n 4 -ppn 2 python")


def test_abci_loads_its_mpi() -> None:
    lines = script_for(launch_of("abci3"), NODES).splitlines()
    assert lines.index("module load hpcx") < lines.index(start_of("abci3"))


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: apt-get install openmpi-bin")
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_real_mpirun_runs_the_line_of_a_pbs_script(tmp_path: Path, nodes: int) -> None:
    ask = Ask("a-0", seconds=1000, nodes=nodes, processes=2, gpus=2, threads=3)
    chosen = launch_of("abci3", node_class="rt_HF", setup=[], margin=77)
    (tmp_path / "job.sh").write_text(script_for(chosen, ask, tmp_path, ("bash", "-c", SAYS)))
    (tmp_path / "agent").write_text(AGENT % tmp_path)
    (tmp_path / "agent").chmod(0o755)
    # PBS's file has a line a process. A single node is this host itself.
    hosts = ["localhost"] if nodes == 1 else ["pbs1", "pbs2"]
    (tmp_path / "nodes").write_text("".join(f"{host}\n" * 2 for host in hosts))
    environment = {
        **os.environ, "PBS_NODEFILE": str(tmp_path / "nodes"), "OMPI_MCA_plm_rsh_agent": str(tmp_path / "agent"),
        "TMPDIR": str(tmp_path), "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    done = subprocess.run(["bash", str(tmp_path / "job.sh")], env=environment, check=False, timeout=120)
    said = [
        line for line in (tmp_path / "log0").read_text().splitlines() if "/" in line and line[0].isdigit()
    ]
    folders = [tmp_path] if nodes == 1 else [tmp_path / host for host in hosts]
    expected = [
        f"{2 * node + rank} {rank} 3 77 {folder}" for node, folder in enumerate(folders) for rank in (0, 1)
    ]
    assert done.returncode == 0 and sorted(said) == expected, (tmp_path / "log0").read_text()
