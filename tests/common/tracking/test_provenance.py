import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from common.tracking import provenance as module
from common.tracking.provenance import cpu_level, cpu_model, finished, git_state, package_versions, portable


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_clean_tree(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_state(repository) == {"commit": commit, "dirty": False, "diff": None}


def test_the_diff_digest_tells_changes_apart(repository: Path) -> None:
    digests: set[str] = set()
    for content in ("x = 2\n", "x = 3\n"):
        (repository / "a.py").write_text(content)
        digests.add(git_state(repository)["diff"])
    (repository / "a.py").write_text("x = 1\n")
    for content in ("new", "newer"):
        (repository / "b.py").write_text(content)
        state = git_state(repository)
        assert state["dirty"] is True
        digests.add(state["diff"])
    assert len(digests) == 4
    expected = hashlib.sha256(b"\0b.py\0" + hashlib.sha256(b"newer").hexdigest().encode()).hexdigest()
    assert git_state(repository)["diff"] == expected


def test_ignored_files_are_no_dirt(repository: Path) -> None:
    (repository / ".git" / "info" / "exclude").write_text("data/\n")
    (repository / "data").mkdir()
    (repository / "data" / "x").write_text("x")
    assert git_state(repository)["dirty"] is False


def test_results_that_were_written_make_no_tree_dirty(repository: Path) -> None:
    clean, result = git_state(repository), repository / "results" / "opirl" / "laptop" / "report.md"
    result.parent.mkdir(parents=True)
    result.write_text("new")
    assert git_state(repository) == clean
    git(repository, "add", "results")
    git(repository, "commit", "-q", "-m", "results")
    result.write_text("rendered again")
    assert git_state(repository)["dirty"] is False
    (repository / "results.py").write_text("x = 1\n")
    assert git_state(repository)["dirty"] is True


def test_a_launch_profile_of_ones_own_makes_no_tree_dirty(repository: Path) -> None:
    """It changes no number, and a site may need one."""
    clean, folder = git_state(repository), repository / "configs" / "launch"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [slurm, _self_]\n")
    assert git_state(repository) == clean
    (folder.parent / "config.yaml").write_text("x: 1\n")
    assert git_state(repository)["dirty"] is True


def test_no_git_is_said(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = repository / "copy"
    inside.mkdir()
    assert git_state(inside)["note"] == "the folder is not the root of a git work tree"
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    other = tmp_path.parent / (tmp_path.name + "-other")
    other.mkdir()
    state = git_state(other)
    assert (state["commit"], state["dirty"], state["diff"]) == (None, None, None)
    assert state["note"] == "git gave no commit for this folder"
    monkeypatch.setenv("PATH", "")
    assert git_state(repository)["note"] == "git is not installed"


def test_the_record_names_neither_host_nor_paths_nor_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "planted-in-environment")
    record = finished(
        module.provenance(
            fingerprint="ab" * 32,
            parts={"config": "cd" * 32},
            packages=["pytest", "no-such-distribution"],
            seed=3,
            command=[sys.executable, "-m", "x", str(module.ROOT / "results"), "--password", "hunter2",
                     "note=planted-in-environment"],
        )
    )  # fmt: skip
    text = json.dumps(record)
    for absent in (platform.node(), str(module.ROOT), str(Path.home()) + "/", "hunter2", "planted-in"):
        assert absent not in text
    assert record["command"].startswith("python -m x ./results --password [redacted]")
    assert record["packages"] == {"pytest": pytest.__version__, "no-such-distribution": None}
    assert record["fingerprint"] == "ab" * 32
    assert record["seed"] == 3


def test_the_end_is_measured() -> None:
    record = finished(module.provenance(fingerprint="f", parts={}, packages=[], seed=None, command="x"))
    assert record["started"] <= record["ended"]
    assert 1 << 20 < record["peak_memory_bytes"] < 1 << 40
    assert record["cpu_seconds"] > 0


def test_cpu_model_is_that_of_the_kernel() -> None:
    plain = {**os.environ, "LC_ALL": "C"}
    lscpu = subprocess.run(["lscpu"], check=False, capture_output=True, text=True, env=plain)
    if lscpu.returncode or platform.machine() != "x86_64":
        pytest.skip("needs lscpu and an x86-64 CPU")
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lscpu.stdout.splitlines())}
    assert cpu_model() == f"{fields['Model name']} (family {fields['CPU family']}, model {fields['Model']})"
    assert (cpu_level() >= "x86-64-v3") == ({"avx2", "fma", "bmi2", "movbe"} <= set(fields["Flags"].split()))


def test_without_cpuinfo_the_platform_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cpuinfo", lambda key: "")
    assert cpu_model.__wrapped__() == (platform.processor() or platform.machine())
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpu_level.__wrapped__() == "aarch64"


def test_versions_are_sorted_and_unique() -> None:
    assert list(package_versions(["pytest", "hypothesis", "pytest"])) == ["hypothesis", "pytest"]


def test_portable_paths(tmp_path: Path) -> None:
    assert portable(f"{sys.executable} {tmp_path}/results/x", tmp_path) == "python ./results/x"
    assert (
        portable(f"{tmp_path} {tmp_path}2/data {tmp_path}-old", tmp_path)
        == f". {tmp_path}2/data {tmp_path}-old"
    )
