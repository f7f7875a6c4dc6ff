"""A real Apptainer for tests: the system's, or Debian's newest in a private root folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

WRAPPER = Path(__file__).parents[1] / "containers" / "apptainer.sh"
ROOT = Path(os.environ.get("RETHESIS_APPTAINER_ROOT") or Path(tempfile.gettempdir()) / "rethesis-apptainer")
PACKAGES = "singularity-container,ca-certificates,debootstrap,mmdebstrap,squashfs-tools"
NEEDED_GB = 1.0


@dataclass(frozen=True)
class Apptainer:
    """`program` is its path, `folder` where it may write; builds of ours get `arguments` and `binds`."""

    program: str
    folder: Path
    arguments: dict[str, str]
    binds: list[str]

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [self.program, *map(str, words)]
        return subprocess.run(command, cwd=cwd or self.folder, capture_output=True, text=True, check=False)


def missing() -> str:
    """Why it cannot be had here; empty where it can."""
    if os.geteuid() != 0:
        return "apptainer is not installed, and only root can make a private one"
    for name in ("mmdebstrap", "unshare", "apt-get"):
        if shutil.which(name) is None:
            return f"apptainer is not installed, and to make a private one {name} is missing (Debian: apt install)"
    if not mirror():
        return "apptainer is not installed, and apt names no mirror of Debian to take it from"
    if shutil.disk_usage(ROOT.parent).free / 1e9 < NEEDED_GB:
        return (
            f"apptainer is not installed, and {ROOT.parent} has no {NEEDED_GB:.0f} GB free for a private one"
        )
    return ""


def mirror() -> str:
    """The mirror of Debian that apt uses here, empty if it uses none."""
    command = ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line.partition("|")[2] for line in done.stdout.splitlines() if line.startswith("Debian|")]
    return found[0].rstrip("/") if found else ""


def make() -> None:
    """Fill the folder; unstable's release file may be older than its date says."""
    if (ROOT / "usr" / "bin" / "apptainer").exists():
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    options = [f'--aptopt=Acquire::{name} "false"' for name in ("Check-Valid-Until", "Check-Date")]
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        *options,
        f"--include={PACKAGES}",
        "sid",
        str(ROOT),
    ]
    subprocess.run([*command, mirror()], check=True)
