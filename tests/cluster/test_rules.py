"""The offline checker: each of a site's rules is broken once, by editing a good script."""

from __future__ import annotations

import pytest
from launches import launch_of, script_for

from common.cluster import profile as profiles
from common.cluster.rules import node_hours, violations
from common.cluster.script import Ask
from common.cluster.sites import SITES, site
from common.errors import BadInputError

SMALL = Ask("a-0", seconds=3600)
LARGE = Ask("a-0", seconds=3600, nodes=4, processes=8, gpus=8, threads=2)
TILES = Ask("a-0", seconds=3600, nodes=4, processes=12, gpus=12, threads=2)


@pytest.mark.parametrize(
    ("name", "ask", "old", "new", "message"),
    [
        ("abci3", SMALL, "walltime=01:00:00", "walltime=168:00:01", "over the limit of rt_HC, 168 h"),
        ("abci3", SMALL, "#PBS -l walltime=01:00:00\n", "", "no walltime is asked for"),
        ("abci3", LARGE, "-q rt_HF", "-q rt_HG", "4 nodes of rt_HG, which is for one node"),
        (
            "abci3",
            LARGE,
            "select=4:mpiprocs",
            "select=200:mpiprocs",
            "200 nodes of rt_HF, which takes 1 to 128",
        ),
        ("abci3", SMALL, "select=1:", "select=1:ncpus=4:", "ncpus and ngpus are fixed by rt_HC"),
        ("abci3", LARGE, ":mpiprocs=8:ompthreads=2", "", "mpiprocs is left at its default"),
        (
            "abci3",
            LARGE,
            "select=4:mpiprocs=8",
            "select=4:mpiprocs=4",
            "32 processes are started, and 4 x 4 were",
        ),
        ("abci3", LARGE, "mpirun -n 32", "mpirun -n 16", "16 processes do not match 4 x 8 devices"),
        (
            "abci3",
            LARGE,
            "-q rt_HF",
            "-q rt_F",
            "rt_F is not a node class of ABCI 3.0; valid: rt_HC, rt_HG, rt_HF",
        ),
        ("abci3", LARGE, "walltime=01:00:00", "walltime=168:00:00", ""),
        ("abci3", SMALL, "-m n", "exclusive", "directive 'exclusive' is not one of pbs"),
        (
            "aurora",
            TILES,
            "#PBS -l filesystems=home:flare\n",
            "",
            "filesystems is missing: add -l filesystems=home",
        ),
        ("aurora", TILES, "mpiexec -n 48", "mpiexec -n 32", "32 processes do not match 4 x 12 devices"),
        ("tsubame4", SMALL, "h_rt=01:00:00", "h_rt=24:00:01", "over the limit of cpu_4, 24 h"),
        ("tsubame4", SMALL, "-l cpu_4=1", "-l cpu_4=2", "2 nodes of cpu_4, which is for one node"),
        ("lumi", LARGE, "--time=01:00:00", "--time=3-00:00:00", ""),
        ("lumi", LARGE, "--time=01:00:00", "--time=3-00:00:01", "over the limit of small-g, 72 h"),
        ("lumi", LARGE, "--gpus-per-node=8", "--gpus-per-node=4", "32 processes do not match 4 x 4 devices"),
        ("fugaku", SMALL, "-L node=1", "-L node=48x6x48", "13824 nodes of small, which takes 1 to 384"),
        (
            "frontier",
            LARGE,
            "--cpus-per-task=2",
            "--cpus-per-task=8",
            "8 processes of 8 threads, and batch has 56",
        ),
    ],
)
def test_each_broken_rule_is_named(name: str, ask: Ask, old: str, new: str, message: str) -> None:
    good = script_for(launch_of(name), ask)
    assert violations(site(name), good, "grp") == []
    assert old in good
    found = violations(site(name), good.replace(old, new), "grp")
    assert any(message in fault for fault in found) if message else found == []


def test_a_node_hour_limit_counts_nodes() -> None:
    text = script_for(launch_of("abci3"), Ask("a", seconds=168 * 3600, nodes=128, processes=8, gpus=8))
    assert node_hours(site("abci3"), text) == 128 * 168 == 21504
    assert violations(site("abci3"), text, "grp") == []
    over = text.replace("select=128", "select=1+128").replace("-n 1024", "-n 1032")
    assert any(
        "node-hours are over the limit of 21504" in fault for fault in violations(site("abci3"), over, "grp")
    )


@pytest.mark.parametrize("name", [row.name for row in SITES.values() if row.account_needed])
def test_without_an_account_the_variable_is_named(name: str) -> None:
    text = script_for(launch_of(name), SMALL)
    (fault,) = violations(site(name), text, "")
    assert "set RETHESIS_ACCOUNT=" in fault and ".accounts" in fault


def test_a_trial_on_tsubame_needs_no_group() -> None:
    assert violations(site("tsubame4"), script_for(launch_of("tsubame4"), Ask("a", seconds=600)), "") == []


def test_accounts_come_from_the_environment_or_an_ignored_file(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path  # type: ignore[assignment]
    monkeypatch.delenv("RETHESIS_ACCOUNT", raising=False)
    assert profiles.account(site("abci3"), root) == ""
    (root / ".accounts").write_text("tsubame4 = tga-x\nabci3=gaa50001\n")
    assert profiles.account(site("abci3"), root) == "gaa50001"
    monkeypatch.setenv("RETHESIS_ACCOUNT", "other")
    assert profiles.account(site("abci3"), root) == "other"
    monkeypatch.setenv("RETHESIS_ACCOUNT", "x; rm -rf /")
    with pytest.raises(BadInputError, match="holds characters"):
        profiles.account(site("abci3"), root)


@pytest.mark.parametrize("name", ["abci2", "summit"])
def test_retired_machines_refuse(name: str) -> None:
    with pytest.raises(BadInputError, match="is retired"):
        site(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"walltime": 3600}, "launch.walltime=3600 is no time; write HH:MM:SS, quoted"),
        ({"retries": -1}, "launch.retries=-1: at least 0"),
        ({"node_class": "rt_F"}, "unknown node class of abci3 'rt_F'. Did you mean 'rt_HF'"),
    ],
)
def test_bad_profiles_say_what_to_write(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError) as error:
        script_for(launch_of("abci3", **changes), SMALL)
    assert message in str(error.value)
