"""The launch layer on a real Grid Engine: generic, and with TSUBAME's consumable node types and group option."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import Batch, ctrl_c, end, quiet_bits
from gridengine import GridEngine, missing
from house import make_house, wait_for

from common.cluster import schedulers
from common.cluster.sites import site

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
STEPS = "toy.steps=30"
SLOW = 'launch.setup=["export TOY_SLEEP=0.3"]'  # Grid Engine passes no environment on
# On TSUBAME -g and a mandatory h_rt are a wrapper's work; Grid Engine itself knows neither.
WRAPPER = """#!/bin/bash
[ "$2" = -g ] || { echo "no group" >&2; exit 1; }
grep -q '^#\\$ -l h_rt=' "$4" || { echo "Unable to run job: Job is rejected. h_rt must be specified." >&2; exit 1; }
exec /usr/bin/qsub "$1" "$4"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    cluster = GridEngine(tmp_path_factory.mktemp("sge"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def batch(tmp_path: Path, engine: GridEngine) -> Iterator[Batch]:
    batch = Batch(make_house(tmp_path / "house"), "sge", engine.environment)
    yield batch
    batch.stop()
    engine.run("qdel", "-u", "root", check=False)
    engine.wait(lambda: not engine.jobs())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return quiet_bits(make_house(tmp_path_factory.mktemp("quiet") / "house"), STEPS)


def test_an_array_of_a_user_is_known_by_its_id_while_it_runs_and_is_cancelled_whole(
    engine: GridEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qsub names it 12.1-4:1, qstat has a line a task."""
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "array.sh"
    script.write_text(
        f"#!/bin/bash\n#$ -t 1-4\n#$ -S /bin/bash\n#$ -o /dev/null\n#$ -j y\n"
        f"touch {tmp_path}/began-$SGE_TASK_ID\nexec sleep 200\n"
    )
    job = schedulers.submit(site("sge"), script, "")
    engine.wait(lambda: bool(list(tmp_path.glob("began-*"))))
    assert job.isdigit() and job in schedulers.living(site("sge"))
    schedulers.cancel(site("sge"), [job])
    engine.wait(lambda: not engine.jobs())
    assert job not in schedulers.living(site("sge"))


def test_a_soft_limit_met_again_and_again_is_continued_to_the_same_bits(
    batch: Batch, quiet: dict[str, bytes]
) -> None:
    """s_rt six seconds after the start, together with the deadline."""
    limit = ('launch.walltime="00:01:00"', 'launch.shortest="00:01:00"', "launch.margin=54")
    batch.run(STEPS, *limit, SLOW)
    assert batch.house.bits() == quiet and len(batch.counts()) >= 8


def test_node_types_a_reschedule_and_a_kill(
    batch: Batch, engine: GridEngine, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "qsub").write_text(WRAPPER)
    (tools / "qsub").chmod(0o755)
    path = {"PATH": f"{tools}:{engine.environment['PATH']}", "RETHESIS_ACCOUNT": "tga-test"}
    tsubame = Batch(batch.house, "tsubame4", {**engine.environment, **path})
    process = tsubame.start(STEPS, "launch.pack=1", SLOW.replace("0.3", "0.6"))
    # three units of cpu_4 are there: the fourth counter waits
    wait_for(lambda: sorted(engine.jobs().values()) == ["qw", "r", "r", "r"])
    assert len(tsubame.counts()) <= 3
    first = min(engine.jobs(), key=int)
    engine.run("qmod", "-rj", first)
    wait_for(lambda: len(tsubame.counts()) >= 4)
    assert tsubame.kill_workers() >= 1
    end(process)
    assert batch.house.bits() == quiet
    assert [entry["id"] for entry in tsubame.submissions()].count(first) <= 2
    assert {"-l cpu_4=1" in path.read_text() for path in batch.house.runs().glob(".engine/*/scripts/*")} == {
        True
    }


def test_ctrl_c_leaves_no_orphan_and_the_same_command_continues(
    batch: Batch, engine: GridEngine, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    ctrl_c(batch, quiet, tmp_path, engine.jobs)
