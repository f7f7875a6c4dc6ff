"""Data on the nodes' own disks: the script's own lines are run, with starters that pass on what they are told alone."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from house import wait_for
from launches import launch_of, script_for

from common.cluster.ask import Ask
from common.cluster.rules import violations
from common.cluster.sites import site

ONE = Ask("a-0", seconds=1000)
NODES = Ask("a-0", seconds=1000, nodes=2, processes=8, gpus=8)
# One process after the other, each with an empty environment but for what -x names: as by ssh on another node.
MPIRUN = """#!/bin/bash
passed=(PATH="$PATH")
while :; do case $1 in
    -n) number=$2; shift 2;;
    --map-by) shape=$2; shift 2;;
    -hostfile) hosts=$2; shift 2;;
    --bind-to) shift 2;;
    -x) passed+=("$2=${!2?}"); shift 2;;
    *) break;;
esac; done
echo "$number $shape $hosts" >>calls
for rank in $(seq "$number"); do env -i "${passed[@]}" "$@" || exit 1; done
"""
SRUN = """#!/bin/bash
while [ "${1:0:1}" = - ]; do case $1 in -n) number=$2; shift 2;; *) shift;; esac; done
for rank in $(seq "$number"); do "$@" || exit 1; done
"""
# Whatever goes wrong in a test, the root of the file system is not copied.
COPY = '#!/bin/bash\n[ "$2" != /. ] || exit 9\nprintf . >>copies\nexec /bin/cp "$@"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A work tree with data, a node-local folder, and starters of one machine."""
    for name in ("data/deep", "local", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/deep/x").write_text("1")
    for name, text in (("mpirun", MPIRUN), ("srun", SRUN), ("cp", COPY)):
        tool(tmp_path, name, text)
    return tmp_path


def tool(place: Path, name: str, text: str) -> None:
    (place / "bin" / name).write_text(text)
    (place / "bin" / name).chmod(0o755)


def environment(place: Path, **variables: str) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PBS", "SLURM", "PJM"))
    }
    return {**clean, "PATH": f"{place}/bin:{os.environ['PATH']}", **variables}


def started(place: Path, text: str, **variables: str) -> subprocess.Popen[bytes]:
    script = place / f"{len(list(place.glob('*.sh')))}.sh"
    script.write_text(text)
    return subprocess.Popen(
        ["bash", str(script)], cwd=place, env=environment(place, **variables), stderr=subprocess.DEVNULL
    )


def staged_on_slurm(place: Path, job: str, program: str) -> subprocess.Popen[bytes]:
    text = script_for(launch_of("slurm", stage_data=True), ONE, place, ("bash", "-c", program))
    return started(place, text.replace("log0", f"log{job}"), SLURM_JOB_ID=job, TMPDIR=f"{place}/local")


def copies(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "local").iterdir())


def test_jobs_that_share_a_node_share_no_copy_and_leave_none(place: Path) -> None:
    held = f"touch {place}/staged; until [ -e {place}/go ]; do sleep 0.05; done; "
    first = staged_on_slurm(place, "1", held + 'cat "$RETHESIS_DATA/deep/x"')
    wait_for((place / "staged").exists)
    second = staged_on_slurm(place, "2", 'cat "$RETHESIS_DATA/deep/x"')
    assert second.wait(60) == 0 and (place / "log2").read_text() == "1"
    assert copies(place) == ["rethesis-data-1"], "the second job took its own copy away, and no other"
    (place / "go").touch()
    assert first.wait(60) == 0 and (place / "log1").read_text() == "1"
    assert copies(place) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_the_program_that_is_no_longer_the_shell_itself(
    place: Path, number: signal.Signals
) -> None:
    program = "trap 'echo saved; exit' USR1 TERM; touch ready; while :; do sleep 0.05; done"
    job = staged_on_slurm(place, "1", program)
    wait_for((place / "ready").exists)
    job.send_signal(number)
    assert job.wait(60) == 0 and (place / "log1").read_text() == "saved\n"
    assert copies(place) == []


def test_a_copy_that_fails_ends_the_job_and_is_removed(place: Path) -> None:
    tool(place, "cp", '#!/bin/bash\n/bin/cp "$@"\nexit 1\n')
    assert staged_on_slurm(place, "1", "true").wait(60) == 1
    assert not (place / "log1").exists() and copies(place) == []


def test_without_a_job_id_nothing_is_removed_or_copied(place: Path) -> None:
    (place / "local/rethesis-data-").mkdir()
    text = script_for(launch_of("pbs", stage_data=True), ONE, place, ("true",))
    assert started(place, text, TMPDIR=f"{place}/local").wait(60) != 0
    assert copies(place) == ["rethesis-data-"] and not (place / "log0").exists()


def test_the_others_clean_their_scratch_folder_and_the_shell_becomes_the_program(place: Path) -> None:
    for name, job in (
        ("abci3", "PBS_JOBID"),
        ("pbs", "PBS_JOBID"),
        ("tsubame4", "JOB_ID"),
        ("sge", "JOB_ID"),
    ):
        text = script_for(launch_of(name, stage_data=True), ONE, place, ("true",))
        assert "\nexec true" in text and "EXIT" not in text
        assert f"/rethesis-data-${{{job}:?}}" in text


@pytest.mark.parametrize("name", ["abci3", "tsubame4", "pbs"])
def test_mpirun_passes_on_what_copy_and_program_need(place: Path, name: str) -> None:
    """In an image, on two nodes on which nothing of the job's environment is known."""
    runtime = {"abci3": "singularity"}.get(name, "apptainer")
    tool(
        place,
        runtime,
        '#!/bin/bash\necho "$RETHESIS_DATA" "$APPTAINER_BIND" "$SINGULARITY_BIND" $(find "$RETHESIS_DATA" -name x)\n',
    )
    setup = ["export APPTAINER_BIND=/site"]
    chosen = launch_of(name, stage_data=True, image="images/cpu-0.sif", setup=setup)
    ask = NODES if name != "tsubame4" else Ask("a-0", seconds=1000, nodes=2, processes=4, gpus=4)
    text = script_for(chosen, ask, place)
    assert violations(site(name), text, "grp") == []
    (place / "nodes").write_text("localhost\n")
    variables = {"PBS_JOBID": "7.pbs1", "JOB_ID": "7", "PBS_NODEFILE": f"{place}/nodes"}
    folder = {"PBS_LOCALDIR": f"{place}/local"} if name == "abci3" else {"TMPDIR": f"{place}/local"}
    assert started(place, text, **variables, **folder).wait(60) == 0
    copy = f"{place}/local/rethesis-data-{'7' if name == 'tsubame4' else '7.pbs1'}"
    # a module of the site may have bound something of its own before
    assert (place / "log0").read_text() == f"{copy} /site,{copy} {copy} {copy}/deep/x\n" * ask.world
    hosts = "" if name == "tsubame4" else f"{place}/nodes"
    each = ask.processes
    assert (place / "calls").read_text() == f"2 ppr:1:node {hosts}\n{2 * each} ppr:{each}:node {hosts}\n"
    assert (place / "copies").read_text() == ".."


def test_on_slurm_every_node_copies_and_every_node_removes(place: Path) -> None:
    tool(place, "rm", '#!/bin/bash\nprintf . >>removals\nexec /bin/rm "$@"\n')
    text = script_for(
        launch_of("slurm", stage_data=True), NODES, place, ("bash", "-c", 'find "$RETHESIS_DATA" -name x')
    )
    assert violations(site("slurm"), text, "") == []
    wrong = text.replace("-n 16 ", "-n 15 ")
    assert "15 processes are started, and 2 x 8 were asked for" in violations(site("slurm"), wrong, "")
    job = started(place, text, SLURM_JOB_ID="5", TMPDIR=f"{place}/local")
    assert job.wait(60) == 0
    assert (place / "log0").read_text() == f"{place}/local/rethesis-data-5/deep/x\n" * 16
    assert (place / "copies").read_text() == ".." and (place / "removals").read_text() == "...."
    assert copies(place) == []


def test_on_fugaku_every_process_comes_and_one_of_each_node_copies(place: Path) -> None:
    """The script's own lines, with an mpiexec that starts the processes of two nodes at the same time."""
    start = 'while [ "$1" != bash ]; do shift; done\nfor i in 0 1 2 3 4 5 6 7; do\n'
    start += (
        '  RETHESIS_LOCAL=${RETHESIS_LOCAL/node0/node$((i / 4))} "$@" &\ndone\nwait -n && wait -n && wait\n'
    )
    tool(place, "mpiexec", f"#!/bin/bash\n{start}")
    for node in ("node0", "node1"):
        (place / node).mkdir()
    ask = Ask("a-0", seconds=1200, nodes=385, processes=4)
    text = script_for(launch_of("fugaku", stage_data=True, node_class="large"), ask, place)
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if "RETHESIS_LOCAL=" in line)
    assert lines[first + 1].startswith("mpiexec -n 1540 bash -c")
    for job in ("1", "2"):  # the next job on a node copies anew
        variables = {"RETHESIS_DATA": f"{place}/data", "PJM_LOCALTMP": f"{place}/node0", "PJM_JOBID": job}
        assert started(place, "\n".join(lines[first : first + 2]), **variables).wait(60) == 0
    assert (place / "copies").read_text() == "...."
    for node in ("node0", "node1"):
        found = [(place / node / f"rethesis-data-{job}" / "deep/x").read_text() for job in "12"]
        assert found == ["1", "1"]
