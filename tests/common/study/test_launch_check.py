"""What `launch-check` refuses: jobs that cannot fit, times that leave nothing, bad values, a missing image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from house import House, make_house
from launches import section

from common.cluster.profile import profile
from common.study.launch import packed
from common.study.launch_check import Row, examine
from common.study.model import Resources
from common.study.tasks import plan_tasks
from tests.common.study.jobs_example import jobs

DEVICE = Resources(gpus=1)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETHESIS_ACCOUNT", "grp")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("launch") / "house")


def examined(
    root: Path, name: str, asked: Resources = DEVICE, **changes: object
) -> tuple[list[Row], list[str]]:
    launch = section(name, **changes)
    tasks = [
        replace(task, jobs=tuple(replace(job, resources=asked) for job in task.jobs))
        for task in plan_tasks(jobs(), root)
    ]
    return examine(packed(tasks, launch), profile(launch), root)


def faults(root: Path, name: str, asked: Resources = DEVICE, **changes: object) -> list[str]:
    return examined(root, name, asked, **changes)[1]


def test_a_class_without_devices_is_refused_once_for_all_jobs(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "abci3", node_class="rt_HC")
    assert "the job does not fit in rt_HC of ABCI 3.0: 1 devices of 0" in fault
    assert faults(tmp_path, "abci3", node_class="rt_HG") == []


def test_a_pack_and_a_memory_that_are_too_large_are_refused(tmp_path: Path) -> None:
    wide = jobs(seeds={"first": 0, "count": 64})
    launch = section("abci3", node_class="rt_HC", pack=64)
    _, (fault,) = examine(packed(plan_tasks(wide, tmp_path), launch), profile(launch), tmp_path)
    assert fault.startswith("test: ") and "64 cores of 32" in fault
    (fault,) = faults(tmp_path, "abci3", Resources(memory_gb=400), node_class="rt_HC")
    assert "400 GB of 320" in fault


def test_devices_that_a_site_cannot_say_are_refused_until_the_directives_say_them(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "sge")
    assert 'launch.directives=["-l gpu=1"]' in fault
    assert faults(tmp_path, "sge", directives=["-l gpu=1"]) == []


def test_a_margin_as_long_as_the_walltime_is_refused(tmp_path: Path) -> None:
    for changes in ({"walltime": "00:02:00"}, {"shortest": None, "longest": "00:01:00"}):
        (fault,) = faults(tmp_path, "slurm", Resources(), **changes)
        assert "is not longer than launch.margin=120 s" in fault
    assert faults(tmp_path, "slurm", Resources(), walltime="00:02:01") == []


def test_no_fault_hides_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETHESIS_ACCOUNT")
    found = "\n".join(
        faults(tmp_path, "abci3", walltime="200:00:00", margin=720_000, jobs=2000, image="images/cpu-0.sif")
    )
    for part in (
        "200:00:00 of 168 h", "set RETHESIS_ACCOUNT=", "launch.margin=720000", "takes 1000 unfinished jobs",
        "launch.image=images/cpu-0.sif is not there; make container",
    ):  # fmt: skip
        assert part in found


def test_an_image_that_is_there_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "cpu-0.sif").touch()
    (tmp_path / "containers").symlink_to(Path(__file__).parents[3] / "containers")
    assert faults(tmp_path, "abci3", image="cpu-0.sif", runtime="no-such-apptainer") == []


def test_queues_that_are_not_in_the_table_have_rows_and_prices(tmp_path: Path) -> None:
    rows, wrong = examined(tmp_path, "slurm", node_class="gpu")
    assert wrong == [] and {row.one for row in rows} == {"gpu"}
    rows, wrong = examined(tmp_path, "abci3", directives=["-q R123 -v RTYPE=rt_HF"])
    assert wrong == [] and {row.one for row in rows} == {"rt_HF"}


def check(house: House, *arguments: str, code: int, command: str = "launch-check") -> str:
    text = house.run(command, "--project", "toy", *arguments, code=code, RETHESIS_ACCOUNT="grp")
    assert "Traceback" not in text
    return text


def test_the_price_of_a_queue_is_given_as_the_message_says(house: House) -> None:
    text = check(house, "--launch", "slurm", "launch.node_class=gpu-long", code=0)
    assert "give the site's price per unit and hour (launch.points={gpu-long:<price>})" in text
    priced = check(
        house, "--launch", "slurm", "launch.node_class=gpu-long", "launch.points={gpu-long:2}", code=0
    )
    assert " points\n" in priced and "give the site's price" not in priced


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--launch", "slurm", "launch.retries=null"), "launch.retries=null is no whole number"),
        (("--launch", "slurm", "launch.setup=null"), "launch.setup=null is no list of lines"),
        (("--launch", "abci3", "launch.points.rt_HC=abc"), "launch.points.rt_HC='abc' is no number"),
        (("--launch", "local", "launch.cores=two"), "launch.cores='two' is no whole number"),
    ],
)
def test_bad_values_are_named_and_end_with_2(house: House, arguments: tuple[str, ...], message: str) -> None:
    command = "reproduce" if "local" in arguments else "launch-check"
    assert message in check(house, *arguments, code=2, command=command)
    assert not list(house.root.glob("results/.runs/toy/count"))


def test_an_image_without_a_program_that_reads_it_ends_with_2(house: House) -> None:
    for name in ("containers", "requirements"):
        (house.root / name).symlink_to(Path(__file__).parents[3] / name)
    (house.root / "cpu-0.sif").touch()
    arguments = ("--launch", "slurm", "launch.image=cpu-0.sif", "launch.runtime=no-such-apptainer")
    text = check(house, *arguments, code=2, command="reproduce")
    assert "no-such-apptainer cannot be started here" in text and "load the site's module" in text
