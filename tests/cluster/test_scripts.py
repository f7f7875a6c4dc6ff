"""Job scripts of the sites that we have in full, letter by letter; WRITE_GOLDEN=1 writes them again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from launches import launch_of, script_for

from common.cluster.script import Ask, choose
from common.cluster.sites import SITES
from common.errors import BadInputError

GOLDEN = Path(__file__).parent / "golden"
ASKS = {
    "one": Ask("count-0", seconds=3600),
    "pack": Ask("count-0", seconds=3600, pack=4, memory_gb=8.0),
    "device": Ask("train-0", seconds=7200, gpus=1, threads=8, memory_gb=32),
    "nodes": Ask("train-0", seconds=86400, nodes=2, processes=4, gpus=4, threads=8, memory_gb=400),
}
WHOLE = {"abci3": Ask("train-0", seconds=86400, nodes=2, processes=8, gpus=8, threads=8, memory_gb=400)}


@pytest.mark.parametrize("site", ["abci3", "tsubame4", "slurm", "pbs", "sge"])
@pytest.mark.parametrize("what", ASKS)
def test_scripts_are_the_golden_ones(site: str, what: str) -> None:
    ask = WHOLE.get(site, ASKS[what]) if what == "nodes" else ASKS[what]
    text = script_for(launch_of(site), ask)
    path = GOLDEN / f"{site}-{what}.sh"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_on_fugaku_the_volume_of_the_work_tree_is_named() -> None:
    line = "#PJM -x PJM_LLIO_GFSCACHE=/vol0006\n"
    ask = Ask("count-0", seconds=3600)
    assert line in script_for(launch_of("fugaku"), ask, Path("/vol0006/group/rethesis"))
    assert "LLIO" not in script_for(launch_of("fugaku"), ask, Path("/data/group/rethesis"))


@pytest.mark.parametrize("site", [row.name for row in SITES.values() if not row.retired])
@pytest.mark.parametrize("extra", [{}, {"image": "/images/a b.sif", "stage_data": True}])
def test_every_script_is_a_script_and_names_nobody(
    site: str, extra: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETHESIS_ACCOUNT", "gaa50000")
    nodes = 385 if site == "fugaku" else 2
    for ask in (
        Ask("a-0", seconds=1200),
        Ask("a-0", seconds=1200, pack=3),
        Ask("a-0", seconds=1200, nodes=nodes, processes=2, threads=2),
    ):
        class_of = {"abci3": "rt_HF", "tsubame4": "node_f"}.get(site) if ask.nodes > 1 else None
        class_of = "large" if site == "fugaku" and ask.nodes > 1 else class_of
        text = script_for(launch_of(site, **extra, node_class=class_of), ask)
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert "gaa50000" not in text


def test_the_deadline_is_the_walltime_and_signals_reach_every_program(tmp_path: Path) -> None:
    """The body is run: two programs side by side, USR1 to the shell as Slurm sends it, both see it."""
    text = script_for(launch_of("slurm", margin=7), Ask("a-0", seconds=1000, pack=2))
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/bash\ntrap 'echo got; exit 0' USR1\n"
        "echo $(($RETHESIS_DEADLINE - $(date +%s))) $RETHESIS_MARGIN $OMP_NUM_THREADS\n"
        "for i in $(seq 100); do sleep 0.1; done\n"
    )
    program.chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(text.replace("/gs/user/rethesis", str(tmp_path)).replace("python -m", f"{program} -m"))
    with subprocess.Popen(["bash", str(script)]) as shell:
        while not all(
            (tmp_path / f"log{n}").is_file() and (tmp_path / f"log{n}").read_text() for n in (0, 1)
        ):
            pass
        shell.send_signal(10)
        assert shell.wait(20) == 0
    for n in (0, 1):
        first, last = (tmp_path / f"log{n}").read_text().splitlines()
        left, margin, threads = first.split()
        assert 995 <= int(left) <= 1000 and (margin, threads, last) == ("7", "1", "got")


def test_a_job_goes_to_the_first_class_that_it_fits() -> None:
    abci = launch_of("abci3")
    chosen = {
        what: choose(abci, WHOLE["abci3"] if what == "nodes" else ask).name for what, ask in ASKS.items()
    }
    assert chosen == {"one": "rt_HC", "pack": "rt_HC", "device": "rt_HG", "nodes": "rt_HF"}
    with pytest.raises(BadInputError, match=r"fits in no node class of ABCI 3\.0: rt_HC: 200 cores of 32"):
        choose(abci, Ask("a", seconds=60, threads=200))
