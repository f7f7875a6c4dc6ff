"""A real Apptainer builds, runs and refuses the same definitions as our checker. `make test-containers`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from private_apptainer import Apptainer

from common.container import build, inside
from common.container.definition import check
from common.container.render import DEFINITION, LOCK
from common.container.table import image_named, site_named
from common.errors import BadInputError
from common.tracking.provenance import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]
SMOKE = ["PROJECT=opirl", "SCALE=smoke", "TRACK=off"]


def built(root: Path, apptainer: Apptainer) -> build.Build:
    """The cpu image of a repository, its definition unchanged: debootstrap, the lock, %test."""
    begun = time.monotonic()
    site, image = site_named("local", root), image_named("cpu", root)
    plan = build.prepare(image, site, root, apptainer.arguments, apptainer.binds, apptainer.program)
    build.run(plan)
    size = plan.target.stat().st_size / 1e6
    print(
        f"measured: containers: {root.name}: built and tested in {time.monotonic() - begun:.0f} s, {size:.0f} MB"
    )
    return plan


@pytest.fixture(scope="module")
def image(small: Path, apptainer: Apptainer) -> build.Build:
    return built(small, apptainer)


def test_the_image_says_what_it_was_made_from(image: build.Build, small: Path, apptainer: Apptainer) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=small, capture_output=True, text=True, check=True
    )
    found = build.labels(image.target, apptainer.program)
    assert found["org.opencontainers.image.revision"] == commit.stdout.strip()
    kind = image_named("cpu", small)
    build.require_same_lock(image.target, kind, apptainer.program, small)
    with pytest.raises(BadInputError, match="was made from another lock"):
        build.require_same_lock(image.target, kind, apptainer.program, ROOT)
    with pytest.raises(BadInputError, match="cannot be read as an image"):
        build.labels(image.folder / LOCK, apptainer.program)


def test_the_study_inside_equals_the_study_outside(
    image: build.Build, small: Path, apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = apptainer.run("run", image.target, "reproduce", *SMOKE)
    assert done.returncode == 0, done.stderr
    outside = subprocess.run([sys.executable, "study.py", "opirl", "smoke"], cwd=small, check=False)
    assert outside.returncode == 0
    table = Path("results") / "opirl" / "smoke" / "table.json"
    assert (apptainer.folder / "rethesis" / table).read_bytes() == (small / table).read_bytes()


def test_a_job_runs_inside_in_the_work_tree_with_its_environment(
    image: build.Build, small: Path, apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETHESIS_DEADLINE", "1234.5")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    program = (
        "import os, sys; print(os.getcwd(), sys.prefix, [os.environ.get(name) for name in sys.argv[1:]])"
    )
    names = ["RETHESIS_DEADLINE", "OMPI_COMM_WORLD_RANK", "PYTHONPATH"]
    words = [sys.executable, "-c", program, *names]
    command = inside(image.target, words, gpus=False, runtime=apptainer.program, root=small)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"{small} /opt/rethesis/venv ['1234.5', '3', None]", done.stderr


Change = Callable[[str], str]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("%post", "%psot"), id="misspelt section"),
        pytest.param(lambda text: text.replace("From:", "Form:"), id="misspelt keyword"),
        pytest.param(lambda text: text.replace(": localimage", ": localimag"), id="unknown agent"),
        pytest.param(lambda text: text.replace("{{ CA }}", "{{ CERT }}"), id="undefined build argument"),
        pytest.param(lambda text: text.replace("    source.tar", "    sourc.tar"), id="missing file"),
        pytest.param(lambda text: text.replace("set -eu\n", "set -eu; if\n", 1), id="no shell script"),
        pytest.param(None, id="altered lock"),
    ],
)
def test_both_refuse_a_broken_definition(
    change: Change | None, image: build.Build, apptainer: Apptainer, tmp_path: Path
) -> None:
    folder = variant(image, tmp_path, change or (lambda text: text))
    if change is None:
        with (folder / LOCK).open("a") as file:
            file.write("# one more line\n")
    arguments = {name: value for name, value in apptainer.arguments.items() if name != "MIRROR"}
    with pytest.raises(BadInputError):
        check(folder / DEFINITION, arguments, folder)
    assert_refused(folder, apptainer)


def test_both_refuse_a_build_argument_that_nobody_uses(
    image: build.Build, apptainer: Apptainer, tmp_path: Path
) -> None:
    folder = variant(image, tmp_path, lambda text: text)
    with pytest.raises(BadInputError, match="unknown build argument"):
        check(folder / DEFINITION, {"NOBODY": "x"}, folder)
    assert_refused(folder, apptainer, "--build-arg", "NOBODY=x")


def test_a_failing_test_leaves_no_image(image: build.Build, apptainer: Apptainer, tmp_path: Path) -> None:
    folder = variant(image, tmp_path, lambda text: text.replace("make reproduce", "make nothing"))
    check(folder / DEFINITION, {}, folder)  # only running it can show this
    assert_refused(folder, apptainer)


def variant(image: build.Build, folder: Path, change: Change) -> Path:
    """The image's own definition upon the image instead of debootstrap, changed, with its files."""
    shutil.copytree(image.folder, folder / "context")
    path = folder / "context" / DEFINITION
    header, rest = path.read_text().split("%arguments", 1)
    assert "Bootstrap: debootstrap" in header
    text = f"Bootstrap: localimage\nFrom: {image.target}\n\n%arguments{rest}".replace("    MIRROR=\n", "")
    path.write_text(change(text))
    return path.parent


def assert_refused(folder: Path, apptainer: Apptainer, *options: str) -> None:
    done = apptainer.run("build", *options, folder / "out.sif", DEFINITION, cwd=folder)
    assert done.returncode != 0, done.stderr
    assert not (folder / "out.sif").exists()


@pytest.mark.slow
def test_our_own_image_gives_the_same_bits(apptainer: Apptainer, tmp_path: Path) -> None:
    """The whole lock: half an hour and 20 GB."""
    clone = tmp_path / "rethesis"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    plan = built(clone, apptainer)
    (work := tmp_path / "work").mkdir()
    (clone / ".venv").symlink_to(ROOT / ".venv")
    done = apptainer.run("run", plan.target, "reproduce", *SMOKE, cwd=work)
    assert done.returncode == 0, done.stderr
    subprocess.run(["make", "reproduce", *SMOKE], cwd=clone, check=True)
    jobs = Path("results") / ".runs" / "opirl"
    outside = {path.relative_to(clone): path.read_bytes() for path in (clone / jobs).glob("*/*/metrics.json")}
    assert len(outside) > 10
    within = work / "rethesis"
    assert {path: (within / path).read_bytes() for path in outside} == outside
