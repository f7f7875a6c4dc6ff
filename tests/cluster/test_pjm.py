"""The launch layer on PJM, Fugaku's scheduler: on a stub that refuses what Fugaku refuses. There is no free PJM."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pjm_stub
import pytest
from batches import STEPS, Batch, ctrl_c, deadline_kill_and_packs, killed_front_door, outage, quiet_bits
from house import make_house, wait_for
from launches import launch_of, script_for

from common.cluster.ranks import place
from common.cluster.rules import violations
from common.cluster.schedulers import SchedulerError, cancel, living, submit
from common.cluster.script import Ask
from common.cluster.sites import site

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
FUGAKU = site("fugaku")
HOUR = Ask("a-0", seconds=3600)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which pjsub, pjstat and pjdel are those of the stub; this process has it too."""
    found = pjm_stub.install(tmp_path / "pjm")
    monkeypatch.setenv("PATH", found["PATH"])
    return found


@pytest.fixture
def batch(tmp_path: Path, commands: dict[str, str]) -> Iterator[Batch]:
    batch = Batch(make_house(tmp_path / "house"), "fugaku", {**commands, "RETHESIS_ACCOUNT": "grp"})
    yield batch
    batch.stop()
    cancel(FUGAKU, sorted(living(FUGAKU)))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return quiet_bits(make_house(tmp_path_factory.mktemp("quiet") / "house"), STEPS)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("old", "new", "account", "message"),
    [
        ("", "", "", "PJM 0071 pjsub Group not authorized to submit a job"),
        ("rscgrp=small", "rscgrp=smal", "grp", "RSCGRP NOT EXIST"),
        ("elapse=01:00:00", "elapse=72:00:01", "grp", r"elapse=259201 is greater than the upper limit \(259200\)"),
        ("elapse=01:00:00", "elapse=00:00:59", "grp", r"elapse=59 is less than the lower limit \(60\)"),
        ("-L node=1", "-L node=12x4x9:torus", "grp", r"node=432 is greater than the upper limit \(384\)"),
        ("rscgrp=small", "rscgrp=large", "grp", r"PJM 0054 pjsub node=1 is less than the lower limit \(385\)"),
        ("max-proc-per-node=1", "max-proc-per-node=49", "grp", "more processes"),
    ],
)  # fmt: skip
def test_what_fugaku_refuses_is_refused_with_its_words_and_seen_offline(
    tmp_path: Path, old: str, new: str, account: str, message: str
) -> None:
    script = tmp_path / "job.sh"
    text = script_for(launch_of("fugaku"), HOUR, tmp_path, ("true",))
    assert old in text and violations(FUGAKU, text, "grp") == []
    script.write_text(text.replace(old, new))
    with pytest.raises(SchedulerError, match=message):
        submit(FUGAKU, script, account)
    assert len(violations(FUGAKU, script.read_text(), account)) == 1


@pytest.mark.usefixtures("commands")
def test_a_job_starts_where_it_was_submitted_with_the_variables_of_pjm_and_ends_by_pjdel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("NOT_PASSED_ON", "x")
    ask = Ask("count-of-arms-0", seconds=3600, nodes=2, processes=4)
    directives = ["-x PJM_LLIO_GFSCACHE=/vol0004"]
    text = script_for(launch_of("fugaku", directives=directives), ask, tmp_path)
    head = text[: text.index("(trap '' XCPU")]
    script = tmp_path / "job.sh"
    script.write_text(
        head.replace(f"cd {tmp_path}", f"pwd >{tmp_path}/start; cd {tmp_path}")
        + "env >seen.new && mv seen.new seen && exec sleep 60\n#PJM -L node=9\n"
    )
    job = submit(FUGAKU, script, "grp")
    wait_for((tmp_path / "seen").is_file)
    variables = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert (
        (tmp_path / "start").read_text().strip() == variables["PJM_O_WORKDIR"] == str(tmp_path / "elsewhere")
    )
    assert variables["PJM_LLIO_GFSCACHE"] == "/vol0004" and "NOT_PASSED_ON" not in variables
    assert variables["PJM_NODE"] == "2", "directives after the first command are comments"
    # what mpiexec adds to them makes each process's place
    found = place({**variables, "PMIX_RANK": "5", "PLE_RANK_ON_NODE": "1"})
    assert (found.rank, found.size, found.local_rank, found.starter) == (5, 8, 1, "PJM")
    (_, row) = subprocess.run(["pjstat"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert row.split()[:4] == [job, "count-of-a", "NM", "RUN"]
    assert living(FUGAKU) == {job}
    cancel(FUGAKU, [job, "77"])  # 77 is not there (any more)
    wait_for(lambda: not living(FUGAKU))


def test_states_of_the_manual_that_may_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = "ACC CCL ERR EXT HLD QUE RJT RNA RNE RNO RNP RSM RUN SPD SPP".split()  # noqa: SIM905
    rows = "".join(f"{number:<10} {state}\n" for number, state in enumerate(states))
    (tmp_path / "pjstat").write_text(f"#!/bin/sh\ncat <<END\nJOB_ID     ST \n{rows}END\n")
    (tmp_path / "pjstat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert {states[int(job)] for job in living(FUGAKU)} == set(states) - {"CCL", "ERR", "EXT", "RJT"}


def test_at_the_limit_every_program_of_a_pack_is_told_by_sigterm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PJM sends SIGXCPU to every process of the job, of which a program that does not know it dies."""
    monkeypatch.setenv("PATH", pjm_stub.install(tmp_path / "pjm", shortest=1)["PATH"])
    program = "trap 'sleep 0.3; echo saved; exit' TERM; while :; do sleep 0.1; done"
    ask = Ask("a-0", seconds=2, pack=2)
    script = tmp_path / "job.sh"
    script.write_text(script_for(launch_of("fugaku"), ask, tmp_path, ("bash", "-c", program)))
    submit(FUGAKU, script, "grp")
    wait_for(lambda: not living(FUGAKU))
    assert [(tmp_path / f"log{number}").read_text() for number in (0, 1)] == ["saved\n", "saved\n"]


def test_a_deadline_a_kill_and_packs_end_with_the_same_bits(batch: Batch, quiet: dict[str, bytes]) -> None:
    deadline_kill_and_packs(batch, quiet)


def test_a_dead_server_is_no_verdict(batch: Batch, quiet: dict[str, bytes], tmp_path: Path) -> None:
    outage(batch, quiet, "pjstat", tmp_path)


def test_ctrl_c_leaves_no_orphan_and_the_same_command_continues(
    batch: Batch, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    ctrl_c(batch, quiet, tmp_path, lambda: living(FUGAKU))


def test_a_killed_front_door_adopts_its_jobs_and_ends_with_the_same_bits(
    batch: Batch, quiet: dict[str, bytes], tmp_path: Path
) -> None:
    killed_front_door(batch, quiet, tmp_path)
