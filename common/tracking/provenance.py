"""Where a result comes from: code, packages, machine, seed, cost. No host name, no user, no absolute path."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from common.files import sha256
from common.tracking.redact import redact

ROOT = Path(__file__).resolve().parents[2]
GIT_SECONDS = 30
CODE = ("--", ".", ":(exclude)results", ":(exclude)configs/launch")  # how jobs are launched changes no number
_LARGEST_HASHED = 16 << 20

# The x86-64 psABI levels: which of them a CPU has decides which kernels the libraries choose.
_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("x86-64-v2", {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)


def provenance(
    *,
    fingerprint: str,
    parts: Mapping[str, Any],
    packages: Iterable[str],
    seed: int | None,
    command: Sequence[str] | str,
    started: float | None = None,
    root: Path = ROOT,
) -> dict[str, Any]:
    """What provenance.json holds when a job starts; `finished` adds the end.

    Args:
        fingerprint, parts: of the job, as given.
        packages: distributions whose versions are recorded; a missing one is null.
        seed: the job's seed, if it has one.
        command: what repeats the job; secrets and paths of this machine are taken out.
        started: Unix seconds; default now.
        root: the repository.
    """
    record = {
        "git": git_state(root),
        "fingerprint": fingerprint,
        "parts": dict(parts),
        "packages": package_versions(packages),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": {"model": cpu_model(), "level": cpu_level(), "cores": os.cpu_count()},
        "usable_cores": usable_cores(),
        "gpus": gpu_names(),
        "seed": seed,
        "started": round(time.time() if started is None else started, 3),
        "ended": None,
        "peak_memory_bytes": None,
        "cpu_seconds": None,
        "command": portable(command if isinstance(command, str) else shlex.join(command), root),
    }
    return redact(record)


def finished(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a job that ended now in this process: end, peak memory, CPU time, the GPUs it used."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return {
        **record,
        "gpus": gpu_names(),
        "ended": round(time.time(), 3),
        "peak_memory_bytes": max(own.ru_maxrss, children.ru_maxrss) * unit,
        "cpu_seconds": round(cpu, 2),
    }


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """commit, dirty, and the digest of what differs from the commit (changes and untracked files).

    results/ is left out: what a study wrote changes no study.
    All null, with a note that says why, when `root` is no git work tree or git is not installed.
    """
    try:
        top = _git(root, "rev-parse", "--show-toplevel").decode().strip()
        if Path(top).resolve() != root.resolve():
            return _no_git("the folder is not the root of a git work tree")
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        changes = _git(root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "HEAD", *CODE)
        untracked = _git(root, "ls-files", "-z", "--others", "--exclude-standard", *CODE).split(b"\0")
    except FileNotFoundError:
        return _no_git("git is not installed")
    except (subprocess.SubprocessError, OSError):
        return _no_git("git gave no commit for this folder")
    names = sorted(name for name in untracked if name)
    dirty = bool(changes or names)
    return {"commit": commit, "dirty": dirty, "diff": _diff_digest(root, changes, names) if dirty else None}


def package_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each distribution, null where it is not installed."""
    return {name: _version(name) for name in sorted(set(names))}


@cache
def cpu_model() -> str:
    """The CPU's model name with its family and model numbers: "same bits" is promised on one model.

    The numbers tell models apart where a virtual machine shortens the name.
    """
    name = _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name} (family {family}, model {model})" if family and model else name


@cache
def cpu_level() -> str:
    """The widest x86-64 level that the CPU has, or the architecture's name."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine() or "unknown"
    flags = set(_cpuinfo("flags").split())
    for number, (level, _) in enumerate(_LEVELS):
        if all(needed <= flags for _, needed in _LEVELS[number:]):
            return level
    return "x86-64-v1"


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_names() -> list[str]:
    """Names of the GPUs, if this process uses CUDA; torch is never imported, CUDA never initialised here."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]


def portable(text: str, root: Path = ROOT) -> str:
    """`text` without paths of this machine: the interpreter is ``python``, `root` ``.``, home ``~``."""
    for path, short in ((sys.executable, "python"), (str(root), "."), (str(Path.home()), "~")):
        if len(path) > 1:
            text = re.sub(re.escape(path) + r"(?![\w-]|\.\w)", lambda _, short=short: short, text)
    return text


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> bytes:
    # Without GIT_OPTIONAL_LOCKS=0 many jobs that start together would fight for index.lock.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS, env=environment)
    return done.stdout


def _no_git(why: str) -> dict[str, Any]:
    return {"commit": None, "dirty": None, "diff": None, "note": why}


def _diff_digest(root: Path, changes: bytes, untracked: list[bytes]) -> str:
    total = hashlib.sha256(changes)
    for name in untracked:
        path = root / os.fsdecode(name)
        small = path.is_file() and path.stat().st_size <= _LARGEST_HASHED
        total.update(b"\0" + name + b"\0" + (sha256(path) if small else "not read").encode())
    return total.hexdigest()
