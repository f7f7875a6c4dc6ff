"""The engine's promises: what runs again, what does not, and that no interruption changes a bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from house import House, wait_for
from processes import kill

pytestmark = pytest.mark.timeout(180)

STAGES = ("count", "stacked", "total")  # of the toy study


def reproduce(house: House, *arguments: str, code: int | None = 0, **extra: str) -> str:
    return house.run("reproduce", "--project", "toy", "--track", "off", *arguments, code=code, **extra)


def test_rerun_does_nothing_and_a_comment_changes_nothing(house: House) -> None:
    assert "report: results/toy/laptop/report.html" in reproduce(house)
    calls, bits = house.calls(), house.bits()
    assert len(calls) == 14 and len(bits) == 22 + 10
    house.edit("projects/toy/fast.py", "FACTOR = 3.0", "# a comment\nFACTOR  =  3.0")
    house.edit("projects/toy/fast.py", "Another arm", "Another docstring")
    shutil.rmtree(house.root / ".snakemake")
    for path in house.runs().glob("*/*/DONE"):
        path.touch()
    assert "nothing to do" in reproduce(house)
    assert "nothing to do" in house.run("why", "--project", "toy")
    assert house.calls() == calls and house.bits() == bits


def test_a_constant_of_one_arm_reruns_that_arm_alone(house: House) -> None:
    reproduce(house)
    (house.root / "calls.txt").unlink()
    house.edit("projects/toy/fast.py", "3.0", "3.5")
    why = house.run("why", "--project", "toy")
    assert "module projects.toy.fast changed:" in why and "count fast (5 jobs)" in why and "slow" not in why
    reproduce(house)
    assert Counter(line.split()[0] for line in house.calls()) == {"count": 5, "stacked": 1, "total": 1}
    assert not [line for line in house.calls() if "slow" in line]


def test_one_override_goes_to_its_own_result_and_reruns_what_reads_it(house: House) -> None:
    reproduce(house, "--scale", "smoke")
    (house.root / "calls.txt").unlink()
    before = {
        path.name: path.read_bytes()
        for path in (house.root / "results/toy/smoke").iterdir()
        if path.is_file()
    }
    reproduce(house, "--scale", "smoke", "toy.steps=6")
    assert len(house.calls()) == 8  # `total` reads no `toy` section, but its input changed
    folders = sorted(path.name for path in (house.root / "results" / "toy").iterdir())
    assert folders[0] == "smoke" and folders[1].startswith("smoke+")
    assert before == {
        path.name: path.read_bytes()
        for path in (house.root / "results/toy/smoke").iterdir()
        if path.is_file()
    }
    why = house.run("why", "--project", "toy", "--scale", "smoke", "toy.steps=7")
    assert "config key toy.steps changed" in why


def test_only_and_seeds_narrow(house: House) -> None:
    reproduce(house, "--only", "count,fast", "--seeds", "2")
    assert sorted(house.calls()) == ["count fast 0", "count fast 1"]
    reproduce(house, "--only", "total,slow", "--seeds", "2")
    assert len(house.calls()) == 2 + 4
    assert "Did you mean 'slow'?" in reproduce(house, "--only", "sloww", code=2)


def test_other_scales_share_jobs(house: House) -> None:
    reproduce(house)
    calls = len(house.calls())
    reproduce(house, "--scale", "smoke")
    assert len(house.calls()) == calls + 2  # the fan-ins over two seeds instead of five


@pytest.mark.parametrize(
    "victims", ["front door", pytest.param("front door and engine", marks=pytest.mark.slow), "everything"]
)
def test_kill_nine_then_the_same_command_gives_the_same_bits(
    new_house: Callable[[], House], victims: str
) -> None:
    whole, killed = new_house(), new_house()
    reproduce(whole, "toy.sleep=0.05", "--scale", "smoke")
    process = killed.start(
        "reproduce", "--project", "toy", "--track", "off", "--scale", "smoke", "toy.sleep=0.05"
    )
    wait_for(lambda: len(killed.calls()) >= 2)
    tree = psutil.Process(process.pid).children(recursive=True)
    engine = [child for child in tree if "snakemake" in " ".join(child.cmdline()[:4])]
    chosen = {"front door": [], "front door and engine": engine, "everything": tree}[victims]
    kill(psutil.Process(process.pid), *chosen)
    process.communicate()
    reproduce(killed, "toy.sleep=0.05", "--scale", "smoke")
    assert killed.bits() == whole.bits()
    assert max(Counter(killed.calls()).values()) <= 2
    again = len(killed.calls())
    assert "nothing to do" in reproduce(killed, "toy.sleep=0.05", "--scale", "smoke")
    assert len(killed.calls()) == again


@pytest.mark.parametrize(
    ("number", "code", "ignored"),
    [
        (signal.SIGINT, 130, ""),
        pytest.param(signal.SIGINT, 130, "INT", marks=pytest.mark.slow),  # as in a shell's background
        pytest.param(signal.SIGTERM, 143, "", marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_everything_and_the_same_command_continues(
    new_house: Callable[[], House], number: signal.Signals, code: int, ignored: str
) -> None:
    whole, stopped = new_house(), new_house()
    reproduce(whole, "toy.sleep=0.1", "--scale", "smoke")
    process = stopped.start(
        *("reproduce", "--project", "toy", "--track", "off", "--scale", "smoke", "toy.sleep=0.1"),
        ignored=ignored,
    )
    wait_for(lambda: len(stopped.calls()) >= 2)
    tree = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code and time.monotonic() - started < 8
    assert "stopped; the same command continues" in output
    assert not [child for child in tree if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    reproduce(stopped, "toy.sleep=0.1", "--scale", "smoke")
    assert stopped.bits() == whole.bits()


def test_eight_identical_commands_one_works(house: House) -> None:
    processes = [
        house.start("reproduce", "--project", "toy", "--track", "off", "--scale", "smoke") for _ in range(8)
    ]
    outputs = [process.communicate(timeout=150)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, outputs
    assert sum("nothing to do" in output for output in outputs) == 7
    assert max(Counter(house.calls()).values()) == 1
    assert any("waiting for process" in output for output in outputs)


def test_a_crash_leaves_the_rest_running_and_logs_show_it(house: House) -> None:
    house.edit(
        "projects/toy/stages.py",
        'state["step"] == cfg["toy"]["crash_at"]',
        'cfg["axes"] == {"arm": "fast", "seed": 1}',
    )
    output = reproduce(house, "--scale", "smoke", code=1)
    assert "make logs" in output
    logs = house.run("logs", "--project", "toy")
    assert (
        "planted crash" in logs
        and "RuntimeError" in logs
        and "count arm=fast seed=1 failed with code 1" in logs
    )
    alone = logs.strip().splitlines()[-1].removeprefix("alone: .venv/bin/python -m common.study.job ")
    assert (house.root / alone / "FAILED").is_file()
    assert "sk-planted-secret" not in logs
    text = (house.root / "results/toy/smoke/table.csv").read_text()
    assert ",failed," in text and text.count(",done,") == 7  # the other arm, and the other seed
    reproduce(house, "--scale", "smoke", TOY_MENDED="1")


def test_a_non_finite_loss_is_tried_twice_then_counted(house: House) -> None:
    house.edit(
        "projects/toy/stages.py",
        'state["step"] == cfg["toy"]["nan_at"]',
        'cfg["axes"] == {"arm": "fast", "seed": 1}',
    )
    assert "diverged" in reproduce(house, "--scale", "smoke", "--only", "count", code=None)
    assert len(house.calls()) == 4
    reproduce(house, "--scale", "smoke", "--only", "count", code=70)
    assert len(house.calls()) == 5
    assert "diverged" in reproduce(house, "--scale", "smoke", "--only", "count", code=0)
    assert len(house.calls()) == 5
    folder = next(path for path in (house.root / "results/toy").iterdir())
    assert ",diverged," in (folder / "table.csv").read_text()


def test_one_diverging_member_does_not_take_its_stack_with_it(house: House) -> None:
    reproduce(house, "toy.nan_seed=3", code=None)
    folder = next(path for path in (house.root / "results/toy").iterdir())
    stacked = [line for line in (folder / "table.csv").read_text().splitlines() if ",stacked," in line]
    assert (
        sum(",done," in line for line in stacked) == 8 and sum(",diverged," in line for line in stacked) == 2
    )


def test_altered_results_are_refused(house: House) -> None:
    reproduce(house, "--scale", "smoke")
    metrics = next(house.runs().glob("count/*/metrics.json"))
    metrics.write_text(metrics.read_text().replace("score", "scare"))
    (house.root / "results/toy/smoke/claims.json").unlink()
    assert "was altered after the job finished" in reproduce(house, "--scale", "smoke", code=2)


def test_a_report_that_could_not_be_drawn_is_drawn_by_the_next_command(house: House) -> None:
    drawn = "    made = pages(study, folder)\n"
    house.edit("common/study/report/page.py", drawn, f"    raise ValueError('oops')\n{drawn}")
    reproduce(house, "--scale", "smoke", code=1)
    house.edit("common/study/report/page.py", f"    raise ValueError('oops')\n{drawn}", drawn)
    assert "nothing to do" not in reproduce(house, "--scale", "smoke")
    report = house.root / "results/toy/smoke/report.html"
    assert report.is_file()
    report.write_text("old")
    house.edit("common/study/report/page.py", drawn, f"    raise ValueError('oops')\n{drawn}")
    house.edit("projects/toy/fast.py", "3.0", "3.5")
    reproduce(house, "--scale", "smoke", code=1)
    assert not report.exists(), "the report of other numbers is gone"


def test_two_claims_of_one_id_are_refused_before_anything_runs(house: House) -> None:
    house.edit("projects/toy/study.py", "    claims=(\n", "    claims=2 * (\n")
    assert "two claims of the study have the same id" in house.run("plan", "--project", "toy", code=2)


def test_clean_lists_then_removes_what_no_study_names(house: House) -> None:
    reproduce(house)
    house.edit("projects/toy/fast.py", "3.0", "3.5")
    listed = house.run("clean", "--project", "toy")
    assert "11 folders" in listed and len(list(house.runs().glob("*/*/DONE"))) == 22
    house.run("clean", "--project", "toy", "--yes")
    assert len(list(house.runs().glob("*/*/DONE"))) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reproduce", "--project", "toi"), "Did you mean 'toy'?"),
        (("reproduce", "--project", "toy", "--scale", "labtop"), "Did you mean 'laptop'?"),
        (("plan", "--project", "toy", "toy.stepz=3"), "Did you mean 'toy.steps'?"),
        (("plan", "--project", "toy", "toy.steps=many"), "toy.steps takes a value of type int"),
        (("plan", "--project", "toy", "toy.steps=1.5"), "toy.steps takes a whole number"),
        (("plan", "--project", "toy", "+toy.new=1"), "new keys cannot be added"),
        (("plan", "--project", "toy", "--launch", "abci"), "unknown LAUNCH 'abci'"),
        (("plan", "--project", "toy", "--seeds", "x"), "SEEDS='x' is not a whole number"),
        (("plan", "--project", "toy", "--seeds", "0"), "SEEDS=0: at least 1"),
        (
            ("plan", "--project", "toy", *(f"grid.{stage}=[]" for stage in STAGES)),
            "has no job: see seeds and grid",
        ),
        (("reproduze", "--project", "toy"), "Did you mean 'reproduce'?"),
        (("plan", "--projekt", "toy"), "Did you mean '--project'?"),
        (("plan", "--project", "../toy"), "unknown PROJECT"),
    ],
)
def test_wrong_names_end_early_with_the_nearest(
    house: House, arguments: tuple[str, ...], message: str
) -> None:
    started = time.monotonic()
    assert message in house.run(*arguments, code=2)
    assert time.monotonic() - started < 5  # 2 s on an idle machine: benchmarks/house.py measures it


def test_read_only_results_are_known_at_once(house: House) -> None:
    results = house.root / "results"
    results.mkdir(mode=0o555)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(results)]  # root may write in spite of a mode
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if os.geteuid() == 0 and not mounted:
        pytest.skip("root may write everywhere, and mounting is not permitted here")
    try:
        started = time.monotonic()
        output = reproduce(house, "--scale", "smoke", code=2)
        assert time.monotonic() - started < 5  # a second on an idle machine, imports included
    finally:
        if mounted:
            subprocess.run(["umount", str(results)], check=True)
    assert f"{results}/.runs" in output
    assert "Mend its rights" in output
    assert "Traceback" not in output
    assert house.calls() == []


def test_the_time_limit_stops_with_a_checkpoint_and_the_same_command_continues(
    new_house: Callable[[], House],
) -> None:
    whole, stopped = new_house(), new_house()
    study = ("--scale", "smoke", "--only", "count", "toy.steps=20")
    reproduce(whole, *study)
    deadline = time.time() + 12  # no job of twenty seconds ends before it
    limit = {"RETHESIS_DEADLINE": str(deadline), "RETHESIS_MARGIN": "2", "TOY_SLEEP": "1"}
    output = reproduce(stopped, *study, code=75, **limit)
    assert time.time() < deadline + 5
    assert "jobs stopped: " in output
    assert "RETHESIS_DEADLINE" in output
    assert "The same command continues." in output
    steps = [json.loads(path.read_text())["step"] for path in stopped.runs().glob("count/*/checkpoint.json")]
    assert steps and max(steps) < 20
    assert "RETHESIS_DEADLINE" in stopped.run("logs", "--project", "toy")
    reproduce(stopped, *study)
    assert stopped.bits() == whole.bits()


def test_a_job_that_is_killed_alone_is_named_and_runs_again(house: House) -> None:
    house.edit(
        "projects/toy/stages.py",
        'state["step"] == cfg["toy"]["crash_at"]',
        'cfg["axes"] == {"arm": "fast", "seed": 1}',
    )
    house.edit("projects/toy/stages.py", "raise RuntimeError(", "os.kill(os.getpid(), 9); print(")
    output = reproduce(house, "--scale", "smoke", code=1)
    assert "jobs not done, the first: count arm=fast seed=1" in output
    logs = house.run("logs", "--project", "toy")
    assert "killed, or out of memory" in logs
    assert "alone: .venv/bin/python -m common.study.job results/.runs/toy/count/" in logs
    reproduce(house, "--scale", "smoke", TOY_MENDED="1")
    assert len(house.bits()) == 14


def test_a_claim_edited_after_its_verdict_is_superseded_until_fresh_runs(house: House) -> None:
    def hashes() -> list[str]:
        return [claim["hash"] for claim in json.loads(claims.read_text())["claims"]]

    reproduce(house)
    claims = house.root / "results" / "toy" / "laptop" / "claims.json"
    before, calls = hashes(), len(house.calls())
    house.edit("projects/toy/study.py", "fast is above slow", "fast is far above slow")
    output = reproduce(house)
    assert "edited after these runs" in output and "nothing to do" in output
    assert hashes() == before and len(house.calls()) == calls
    assert "superseded" in (claims.parent / "report.md").read_text()
    shutil.rmtree(house.runs())
    reproduce(house)
    assert hashes() != before
    assert "superseded" not in (claims.parent / "report.md").read_text()


def test_a_claim_that_no_verdict_was_given_on_may_be_edited(house: House) -> None:
    reproduce(house, "--scale", "smoke")
    house.edit("projects/toy/study.py", "fast is above slow", "fast is far above slow")
    assert "report: " in reproduce(house, "--scale", "smoke")
    assert "far above" in (house.root / "results/toy/smoke/report.md").read_text()
    assert "nothing to do" in reproduce(house, "--scale", "smoke")
    assert len(house.calls()) == 8


def test_a_stage_function_sees_its_inputs_sorted(house: House, tmp_path: Path) -> None:
    house.edit(
        "projects/toy/stages.py",
        'note("total " + cfg["axes"]["arm"])',
        'note("total " + str([ref.axes["seed"] for ref in inputs["stacked"]]))',
    )
    reproduce(house, "--scale", "smoke")
    assert "total [0, 1]" in house.calls()
