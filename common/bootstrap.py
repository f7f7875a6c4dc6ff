"""`make setup`: the virtual environment, from the hashed lock. Standard library only; Python 3.9 can read it.

The stamp `.venv/.ready` is written last and holds the lock's digest: without it, or with another digest, the
environment is built again from nothing, so an interrupted or outdated one is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED_GB = 9.0
VENV = ("-m", "venv", "--clear")
SUPPORTED = ("3.11", "3.12")
DEFAULT = (str(ROOT / ".venv" / "bin" / "python"), "python3", "python3.11", "python3.12")
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys._base_executable)"


class SetupError(Exception):
    """Setup cannot go on; the message says what to do."""


def find_python(candidates: tuple[str, ...]) -> tuple[str, str]:
    """The first of `candidates` that starts, is supported and can make environments: its (path, version).

    Raises:
        SetupError: none is.
    """
    for python in candidates:
        try:
            probe = subprocess.run([python, "-I", "-c", PROBE], capture_output=True, text=True, check=False)
        except OSError:
            continue
        version, _, path = probe.stdout.strip().partition(" ")
        if probe.returncode == 0 and version in SUPPORTED:
            return path, version
    raise SetupError(
        f"none of {', '.join(candidates)} is a Python {' or '.join(SUPPORTED)} with the venv module. Install one "
        "(Debian, Ubuntu: apt install python3.11 python3.11-venv), or name it: make setup PYTHON=/path/to/python3.11"
    )


def check_disk(folder: Path, needed_gb: float = NEEDED_GB) -> None:
    """Raise SetupError unless `folder` has `needed_gb` (10^9 bytes) free."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"{free_gb:.1f} GB free in {folder}, {needed_gb:.0f} GB needed: about 6 GB for torch with its CUDA "
            "libraries, the rest for downloads while they are unpacked. Free some space and run the same command."
        )


def install(python: Path, lock: Path) -> None:
    """Install `lock` with `python -m pip`: hashes required, a count while it goes on, pip's words if it fails.

    Raises:
        SetupError: pip failed.
    """
    total = lock.read_text(encoding="utf-8").count("==")
    command = [str(python), "-m", "pip", "install", "--require-hashes", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "-r", str(lock)]
    done, last = 0, deque[str](maxlen=20)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            last.append(line)
            if line.startswith(("Collecting ", "Processing ")):
                done += 1
                _say(f"  {done}/{total} {Path(line.split()[1]).name}", done % 20 == 0 or done == total)
            elif line.startswith("Installing"):
                _say(f"  unpacking {total} packages (about a minute)", True)
    if pip.returncode != 0:
        raise SetupError(f"pip failed:\n{''.join(last)}The same command tries again.")


def setup(root: Path, candidates: tuple[str, ...]) -> Path:
    """Make `root/.venv` hold exactly the lock's packages, and return its stamp. Concurrent calls wait their turn.

    Raises:
        SetupError: no usable Python, too little disk, or pip failed.
    """
    python, version = find_python(candidates)
    lock = root / "requirements" / f"py{version.replace('.', '')}.txt"
    stamp = root / ".venv" / ".ready"
    digest = f"{lock.name} {hashlib.sha256(lock.read_bytes()).hexdigest()}\n"
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
            stamp.touch()
            return stamp
        check_disk(root)
        print(
            f"Python {version}: installing {lock.name} into .venv (about 6.5 GB, about two minutes, once)",
            flush=True,
        )
        stamp.unlink(missing_ok=True)
        subprocess.run([python, *VENV, str(stamp.parent)], check=True)
        install(stamp.parent / "bin" / "python", lock)
        stamp.write_text(digest, encoding="utf-8")
    return stamp


def _say(text: str, always: bool) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if text.startswith("  unpacking") else "", flush=True)
    elif always:
        print(text, flush=True)


if __name__ == "__main__":
    try:
        print(f"ready: {setup(ROOT, tuple(sys.argv[1:]) or DEFAULT)}")
    except (SetupError, subprocess.CalledProcessError) as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit("setup: stopped; the same command starts it again")
