"""Queues that a user names: by launch.node_class, by a directive, and in a reservation that has its own queue."""

from __future__ import annotations

import pytest
from launches import launch_of, script_for

from common.cluster.ask import Ask, choose, classes
from common.cluster.rules import read, violations
from common.cluster.sites import site
from common.errors import BadInputError

HOUR = Ask("a-0", seconds=3600)
DEVICES = Ask("a-0", seconds=3600, nodes=2, processes=8, gpus=8)


def directives(text: str, *options: str) -> list[str]:
    """The lines of a script that begin with one of the options."""
    found = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("#")]
    return [line for line in found if line.startswith(options)]


@pytest.mark.parametrize(
    ("name", "written"), [("slurm", "--partition=gpu"), ("pbs", "-q gpu"), ("sge", "-q gpu")]
)
def test_a_site_without_a_table_takes_the_queue_that_node_class_names(name: str, written: str) -> None:
    text = script_for(launch_of(name, node_class="gpu"), HOUR)
    assert directives(text, "--partition", "-q") == [written]
    assert violations(site(name), text, "") == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("slurm", "--partition=gpu"), ("slurm", "--partition gpu"), ("slurm", "-p gpu"), ("slurm", "-pgpu"),
        ("pbs", "-q gpu"), ("pbs", "-qgpu"), ("sge", "-q gpu"),
    ],
)  # fmt: skip
def test_or_the_one_that_a_directive_names(name: str, line: str) -> None:
    chosen = launch_of(name, node_class="other", directives=[line])
    text = script_for(chosen, HOUR)
    assert read(site(name), text).queue == choose(chosen, HOUR).name == "gpu"
    assert directives(text, "--partition", "-p", "-q") == [line], "one queue, not two that contradict"
    assert violations(site(name), text, "") == []


def test_slots_are_asked_for_in_a_named_queue_of_grid_engine_too() -> None:
    text = script_for(launch_of("sge", node_class="long.q"), Ask("a-0", seconds=3600, threads=8))
    assert directives(text, "-q", "-pe") == ["-q long.q", "-pe mpi 8"]


def test_a_reservation_of_abci_is_checked_by_the_class_that_it_is_for() -> None:
    chosen = launch_of("abci3", directives=["-q R123 -v RTYPE=rt_HF"])
    assert [one.name for one in classes(chosen)] == ["rt_HF"]
    text = script_for(chosen, DEVICES)
    assert directives(text, "-q") == ["-q R123 -v RTYPE=rt_HF"]
    assert violations(site("abci3"), text, "grp") == []
    more = violations(site("abci3"), text.replace("select=2:", "select=200:"), "grp")
    assert any("200 nodes of rt_HF, which takes 1 to 128" in fault for fault in more)


def test_a_class_beside_other_variables_is_found_and_the_queue_is_then_the_class() -> None:
    text = script_for(launch_of("abci3", directives=["-v USE_SSH=1,RTYPE=rt_HF"]), HOUR)
    assert directives(text, "-q") == ["-q rt_HF"]
    assert violations(site("abci3"), text, "grp") == []


@pytest.mark.parametrize("line", ["-q R123", "-q R123 -v RTYPE=rt_F"])
def test_a_reservation_without_a_class_of_the_table_is_refused(line: str) -> None:
    with pytest.raises(BadInputError, match="unknown node class of abci3"):
        script_for(launch_of("abci3", directives=[line]), HOUR)


def test_several_options_of_a_line_are_read() -> None:
    asked = read(
        site("slurm"), '#SBATCH -N 2 --gpus-per-node=a100:4 -t "1-00:00:00"\n#SBATCH --exclusive -c 8\n'
    )
    assert (asked.nodes, asked.gpus, asked.seconds, asked.threads, asked.unread) == (2, 4, 86400, 8, [])
    assert read(site("pbs"), '#PBS -N "open\n#PBS stray -q x\n').unread == ['-N "open', "stray -q x"]
