"""The definitions that the generator makes, and what the checker refuses. No Apptainer is needed."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.container import inside
from common.container.__main__ import main
from common.container.build import FOLDER, prepare
from common.container.command import CLEAN, PYTHON
from common.container.definition import LOCK_LABEL, check, parse
from common.container.render import DEFINITION, LOCK, context, without
from common.container.table import image_named, images, site_named
from common.errors import BadInputError
from common.tracking.provenance import ROOT

DIGEST = "sha256:" + "0" * 64
NAMES = sorted(images(ROOT))


def made(name: str, root: Path, folder: Path) -> Path:
    context(images(root)[name], folder, root)
    return folder / DEFINITION


def needed(name: str) -> dict[str, str]:
    """The build arguments that an image cannot do without."""
    image = images(ROOT)[name]
    return {"MIRROR": "m"} if image.suite else {} if image.digest else {"DIGEST": DIGEST}


@pytest.mark.parametrize("name", NAMES)
def test_every_definition_is_accepted_pinned_and_names_no_address(name: str, tmp_path: Path) -> None:
    path = made(name, ROOT, tmp_path)
    (stage,) = check(path, needed(name), tmp_path)
    assert not re.search(r"\w+://", path.read_text())
    assert stage.header["bootstrap"] == ("debootstrap" if name == "cpu" else "docker")
    if name != "cpu":
        assert re.search(r"^[\w/-]+@sha256:[0-9a-f]{64}$", stage.header["from"])
    labels = dict(line.split(maxsplit=1) for line in stage.body("labels"))
    assert labels[LOCK_LABEL] == hashlib.sha256((tmp_path / LOCK).read_bytes()).hexdigest()
    assert re.fullmatch("[0-9a-f]{40}", labels["org.opencontainers.image.revision"])
    assert "make reproduce PROJECT=opirl SCALE=smoke TRACK=off" in stage.body("test")
    assert all(value == "" or value.startswith("sha256:") for value in
               (line.partition("=")[2] for line in parse(path.read_text())[0].body("arguments")))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_is_the_repositorys_less_what_the_base_brings(name: str, tmp_path: Path) -> None:
    made(name, ROOT, tmp_path)
    image = images(ROOT)[name]
    ours = (ROOT / "requirements" / image.lock_name).read_text()
    theirs = (tmp_path / LOCK).read_text()
    listed = {*re.findall(r"^([\w.-]+)==", ours, re.MULTILINE)}
    left_out = listed - {*re.findall(r"^([\w.-]+)==", theirs, re.MULTILINE)}
    if image.provided:
        assert {"torch", "torchvision", "triton"} <= left_out
        assert all(each.startswith(("torch", "triton", "nvidia-", "cuda-")) for each in left_out)
        assert "torchmetrics" not in left_out
    else:
        assert theirs == ours
    assert set(theirs.splitlines()) <= set(ours.splitlines())


def test_an_entry_goes_with_all_its_hashes() -> None:
    first, second, third = (
        f"{name} \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n" for name in ("a==1", "b-x==2", "c==3")
    )
    assert without(first + second + third, ["b-*"]) == first + third
    assert without(first + second + third, ["a", "c"]) == second


Change = Callable[[str], str]
BROKEN: list[tuple[Change, str]] = [
    (lambda text: text.replace("%post", "%psot"), r"line \d+: unknown section 'psot'. Did you mean 'post'\?"),
    (lambda text: text.replace("MirrorURL:", "MirorURL:"), r"unknown keyword 'MirorURL'. Did you mean 'MirrorURL'\?"),
    (lambda text: text.replace(": debootstrap", ": debotstrap"), "unknown Bootstrap agent 'debotstrap'"),
    (lambda text: text.replace("Bootstrap:", "Bootstap:"), "unknown keyword 'Bootstap'"),
    (lambda text: text.replace("OSVersion: bookworm\n", ""), "needs OSVersion"),
    (lambda text: text.replace("{{ CA }}", "{{ CERT }}", 1), "build argument CERT is not declared"),
    (lambda text: text.replace("    CA=\n", "    CA=\n    CERT=\n"), "build argument CERT is declared .* used nowhere"),
    (lambda text: text.replace("    CA=\n", "    CA\n"), "'CA' is not NAME=VALUE"),
    (lambda text: text.replace("    source.tar /opt", "    sourc.tar /opt"), r"line \d+: sourc.tar does not exist"),
    (lambda text: text + "\n%test\n    true\n", "%test is there twice"),
    (lambda text: "%post\n    true\n" + text, "%post stands before the Bootstrap line"),
    (lambda text: text.replace("set -eu\n", "if true\n", 1), "%post is no shell script"),
    (lambda text: re.sub(rf"({LOCK_LABEL} )....", r"\g<1>0000", text), "hash .* one of them was altered"),
    (lambda text: re.sub(rf" *{LOCK_LABEL}.*\n", "", text), "belong together; one is missing"),
    (lambda text: "", "there is no Bootstrap line"),
    (lambda text: text.replace("%files\n", "%files from base\n"), "no such earlier stage"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_definition_is_refused_by_name(change: Change, message: str, tmp_path: Path) -> None:
    path = made("cpu", ROOT, tmp_path)
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(BadInputError, match=message):
        check(path, needed("cpu"), tmp_path)


def test_an_altered_lock_is_refused(tmp_path: Path) -> None:
    path = made("cpu", ROOT, tmp_path)
    with (tmp_path / LOCK).open("a") as file:
        file.write("# harmless\n")
    with pytest.raises(BadInputError, match="one of them was altered"):
        check(path, needed("cpu"), tmp_path)


def test_two_stages_are_read(tmp_path: Path) -> None:
    path = tmp_path / DEFINITION
    head = "Bootstrap: localimage\nFrom: base.sif\n"
    path.write_text(
        f"{head}Stage: build\n\n%post\n    make\n\n{head}\n%files from build\n    /opt/x /opt/x\n"
    )
    first, second = check(path, {}, tmp_path)
    assert (first.header["stage"], second.sections[0].words) == ("build", ["from", "build"])


def run(*words: str, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words, root)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_prints_what_it_would_run(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBS_LOCALDIR", "/local/7.pbs1")
    code, out, err = run("--site", "abci3", "--print", root=small, capsys=capsys)
    assert (code, err) == (0, "")
    assert "SINGULARITY_TMPDIR=/local/7.pbs1 " in out
    (part,) = re.findall(r"(?:singularity|apptainer) build --fakeroot (\S+)\.part image\.def", out)
    assert re.search(r"/cuda-x86-[0-9a-f]{12}$", part) and f"mv {part}.part {part}.sif" in out
    assert (small / FOLDER / "cuda-x86" / DEFINITION).is_file()
    assert not list((small / FOLDER).glob("*.sif"))


@pytest.mark.parametrize(
    ("site", "variables", "folder", "advised"),
    [
        ("abci3", {"PBS_LOCALDIR": "/local/7", "TMPDIR": "/var/tmp"}, "/local/7", "PBS_LOCALDIR"),
        ("abci3", {"TMPDIR": "/var/tmp"}, "/var/tmp", "TMPDIR"),
        ("abci3", {}, "/tmp", "TMPDIR"),
        ("tsubame4", {"PBS_LOCALDIR": "/local/7", "TMPDIR": "/var/tmp"}, "/var/tmp", "TMPDIR"),
    ],
)
def test_temporary_files_lie_where_the_sites_variable_says_then_in_tmpdir_then_in_tmp(
    site: str,
    variables: dict[str, str],
    folder: str,
    advised: str,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PBS_LOCALDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    row = site_named(site, small)
    plan = prepare(image_named(row.image, small), row, small, {}, [], "apptainer")
    assert plan.environment["APPTAINER_TMPDIR"] == plan.environment["SINGULARITY_TMPDIR"] == folder
    assert plan.scratch == advised


def test_a_login_of_an_index_is_not_printed(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "https://user:swordfish-17@example.org/packages"
    words = ["--site", "abci3", "--build-arg", f"INDEX={secret}"]
    code, out, _ = run(*words, "--print", root=small, capsys=capsys)
    assert code == 0 and "example.org/packages" in out and "swordfish" not in out
    code, _, err = run("--build-arg", secret, root=small, capsys=capsys)
    assert code == 2 and "is not NAME=VALUE" in err and "swordfish" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--site", "abci2"], "ABCI 2.0 is retired"),
        (["--image", "cpus"], "unknown image 'cpus'. Did you mean 'cpu'?"),
        (["--site", "local"], "give the build argument MIRROR"),
        (["--image", "xpu"], "is not pinned. Give the build argument DIGEST=sha256:..."),
        (["--build-arg", "MIRROR"], "--build-arg MIRROR is not NAME=VALUE."),
        (["--build-arg", "MIROR=m"], "unknown build argument 'MIROR'. Did you mean 'MIRROR'?"),
        (
            ["--build-arg", "MIRROR=m", "--runtime", "/nowhere/apptainer"],
            "/nowhere/apptainer is not installed here",
        ),
    ],
)
def test_bad_input_is_named_and_ends_with_2(
    words: list[str], message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(*words, root=small, capsys=capsys)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_folder_of_temporary_files_that_is_not_there_is_named(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    code, _, err = run("--build-arg", "MIRROR=m", "--runtime", "true", root=small, capsys=capsys)
    assert code == 2 and f"TMPDIR={tmp_path / 'absent'} is no folder" in err


def test_a_folder_without_a_commit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: Path
) -> None:
    (tmp_path / "containers").symlink_to(small / "containers")
    code, _, err = run("--site", "abci3", root=tmp_path, capsys=capsys)
    assert code == 2
    assert "an image is made from a commit" in err


def test_a_command_inside_an_image() -> None:
    image, root = Path("/images/cpu.sif"), Path("/tree")
    assert inside(image, [sys.executable, "-m", "common.study.job", "folder"], gpus=True, root=root) == [
        "apptainer", "exec", "--nv", "--bind", "/tree", "--pwd", "/tree", "/images/cpu.sif",
        *CLEAN, PYTHON, "-m", "common.study.job", "folder",
    ]  # fmt: skip
    assert inside(image, ["hostname"], gpus=False, runtime="singularity", root=root) == [
        "singularity", "exec", "--bind", "/tree", "--pwd", "/tree", str(image),
        *CLEAN, "hostname",
    ]  # fmt: skip
    assert "--rocm" in inside(image, ["true"], gpus=True, gpu="--rocm", root=root)
    assert inside(image, ["true"], gpus=True, gpu="", root=root)[2] == "--bind"
    assert PYTHON in (ROOT / "containers" / "image.def.jinja").read_text()
