"""A build with a program that only writes a file: the image that jobs use stays until the next one is whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.container import build
from common.container.table import images
from common.errors import BadInputError, RethesisError
from common.tracking.provenance import ROOT


def planned(folder: Path, program: str) -> build.Build:
    """A build by a shell line; $1 is what it is to make."""
    (folder / "program").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "program").chmod(0o755)
    part, target = folder / "cpu-0.part", folder / "cpu-0.sif"
    target.write_text("old")
    return build.Build(
        image=images(ROOT)["cpu"],
        folder=folder,
        command=[str(folder / "program"), str(part)],
        environment={"APPTAINER_TMPDIR": str(folder)},
        part=part,
        target=target,
        scratch="PBS_LOCALDIR",
    )


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e12))


@pytest.mark.usefixtures("room")
def test_an_image_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    plan = planned(tmp_path, f'cat {tmp_path}/cpu-0.sif >{tmp_path}/seen; echo new >"$1"')
    plan.part.write_text("left by a build that was killed")
    assert build.run(plan) == plan.target
    assert (tmp_path / "seen").read_text() == "old" and plan.target.read_text() == "new\n"
    assert not plan.part.exists()


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("program", ['echo half >"$1"; exit 255', "exit 0"])
def test_a_build_that_fails_takes_no_image_away(tmp_path: Path, program: str) -> None:
    plan = planned(tmp_path, program)
    with pytest.raises(RethesisError, match="and made no image; see above"):
        build.run(plan)
    assert plan.target.read_text() == "old" and not plan.part.exists()


def test_too_little_room_is_said_with_the_variable_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    with pytest.raises(BadInputError, match=r"1 GB free in .*, or point PBS_LOCALDIR to one"):
        build.run(planned(tmp_path, "true"))


def test_a_folder_for_temporary_files_that_is_not_there_is_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, "true")
    plan.environment["APPTAINER_TMPDIR"] = str(tmp_path / "absent")
    with pytest.raises(BadInputError, match=r"PBS_LOCALDIR=.*/absent is no folder"):
        build.run(plan)
    assert plan.target.read_text() == "old"


@pytest.mark.parametrize("name", ["no-such-apptainer", "not-executable"])
def test_a_program_that_cannot_read_labels_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "not-executable").touch()
    runtime = str(tmp_path / name) if name == "not-executable" else name
    with pytest.raises(BadInputError, match=rf"{name} cannot be started here .* load the site's module"):
        build.labels(tmp_path / "cpu-0.sif", runtime)
