"""Jobs that cannot run as they are asked for are refused before they are submitted."""

from __future__ import annotations

import pytest
from launches import launch_of

from common.cluster.ask import Ask, choose, impossible
from common.errors import BadInputError

DEVICE = Ask("train-0", seconds=3600, gpus=1)


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (DEVICE, "1 devices of 0"),
        (Ask("a-0", seconds=3600, pack=64), "64 cores of 32"),
        (Ask("a-0", seconds=3600, memory_gb=321), "321 GB of 320"),
        (Ask("a-0", seconds=3600, nodes=2), "2 nodes, where 1 to 1 are allowed"),
    ],
)
def test_a_class_that_was_named_is_no_excuse(ask: Ask, reason: str) -> None:
    with pytest.raises(BadInputError, match=rf"does not fit in rt_HC of ABCI 3\.0: {reason}"):
        choose(launch_of("abci3", node_class="rt_HC"), ask)
    with pytest.raises(BadInputError, match=reason):
        choose(launch_of("abci3", directives=["-q R1 -v RTYPE=rt_HC"]), ask)


def test_devices_that_grid_engine_has_no_word_for_are_not_dropped_in_silence() -> None:
    (fault,) = impossible(launch_of("sge"), DEVICE)
    assert 'launch.directives=["-l gpu=1"]' in fault
    for said in ({"directives": ["-l ngpus=1"]}, {"directives": ["-l cuda=1"]}, {"node_class": "GPU.q"}):
        assert impossible(launch_of("sge", **said), DEVICE) == []
    assert impossible(launch_of("sge", directives=["-l mem=8G"]), DEVICE)


@pytest.mark.parametrize("name", ["slurm", "pbs", "abci3", "tsubame4"])
def test_elsewhere_devices_are_asked_for(name: str) -> None:
    assert impossible(launch_of(name), DEVICE) == []


@pytest.mark.parametrize(("seconds", "possible"), [(119, False), (120, False), (121, True)])
def test_a_walltime_that_the_margin_eats_is_refused(seconds: int, possible: bool) -> None:
    found = impossible(launch_of("slurm", margin=120), Ask("a-0", seconds=seconds))
    assert (found == []) is possible
    assert possible or "is not longer than launch.margin=120 s" in found[0]


def test_a_class_has_to_have_the_memory() -> None:
    tsubame = launch_of("tsubame4")
    assert choose(tsubame, Ask("a-0", seconds=3600, memory_gb=8)).name == "cpu_4"
    assert choose(tsubame, Ask("a-0", seconds=3600, memory_gb=25)).name == "cpu_16"
    assert choose(tsubame, Ask("a-0", seconds=3600, memory_gb=120)).name == "node_q"
