"""What real files are is part of a job's fingerprint; what is absent is not asked for."""

from __future__ import annotations

import importlib
from pathlib import Path, PurePath

import pytest

from common.data.cifar import KINDS
from common.data.ondisk import on_disk
from common.study.config import compose
from common.study.jobs import Job, expand, load_study
from projects.proxy_isa import ondisk as photographs
from projects.sam_batch_study import ondisk as images


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_names_and_bytes_count_and_nothing_else(data: Path) -> None:
    assert on_disk(["set/*.txt", "weights.pth"]) == on_disk([]) == ""
    write(data / "set" / "a.txt", "1")
    first = on_disk(["set/*.txt", "weights.pth"])
    (data / "set" / "folder.txt").mkdir()
    write(data / "set" / "a.jpg", "image")
    assert first == on_disk(["set/a.*t", "set/*.txt"]) != ""
    write(data / "set" / "a.txt", "2")
    second = on_disk(["set/*.txt"])
    (data / "set" / "a.txt").rename(data / "set" / "b.txt")
    assert len({first, second, on_disk(["set/*.txt"])}) == 3


@pytest.mark.parametrize("name", photographs.LISTS)
def test_the_lists_of_photographs_are_those_that_are_read(name: str) -> None:
    source = importlib.import_module(f"common.data.retrieval.{name}").SOURCE
    paths = [PurePath(source.name, file) for file in source.files]
    assert paths and all(path.match(photographs.LISTS[name]) for path in paths)


@pytest.mark.parametrize("name", KINDS)
def test_the_files_of_cifar_are_those_that_are_read(name: str) -> None:
    sources = [version.source for version in KINDS[name].versions]
    paths = [PurePath(source.name, file) for source in sources for file in source.files]
    assert paths and all(any(path.match(pattern) for pattern in images.FILES[name]) for path in paths)


def trainings(project: str, scale: str, stage: str, **axes: str) -> dict[str, Job]:
    jobs = expand(load_study(project), compose(project, scale), cpu="any")
    found = [job for job in jobs if job.stage.name == stage]
    return {
        job.fingerprint: job for job in found if all(job.axes[axis] == value for axis, value in axes.items())
    }


def test_other_weights_are_another_job(data: Path) -> None:
    """At paper scale; at the laptop's, which reads no file, the folder of the data changes nothing."""
    laptop = trainings("proxy_isa", "laptop", "learn").keys()
    without = trainings("proxy_isa", "paper", "learn", data="cub")
    assert {str(job.parts["data"]) for job in without.values()} == {""}
    seen = [without.keys()]
    for text in ("one", "other"):
        write(data / "weights" / "resnet50.pth", text)
        seen.append(trainings("proxy_isa", "paper", "learn", data="cub").keys())
    write(data / "CUB_200_2011" / "images.txt", "1 a.jpg")
    seen.append(trainings("proxy_isa", "paper", "learn", data="cub").keys())
    assert len(set().union(*seen)) == sum(map(len, seen)) == 4 * len(without)
    cars = trainings("proxy_isa", "paper", "learn", data="cars").keys()
    write(data / "CUB_200_2011" / "images.txt", "1 b.jpg")
    assert cars == trainings("proxy_isa", "paper", "learn", data="cars").keys()
    assert laptop == trainings("proxy_isa", "laptop", "learn").keys()


def test_images_on_disk_reach_the_studys_jobs(data: Path) -> None:
    before = trainings("sam_batch_study", "paper", "search", task="cifar10").keys()
    write(data / "cifar-10-batches-bin" / "data_batch_1.bin", "images")
    after = trainings("sam_batch_study", "paper", "search", task="cifar10").keys()
    assert before and not before & after
