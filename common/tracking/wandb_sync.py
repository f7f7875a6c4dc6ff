"""Upload of the offline W&B runs, by W&B's own command in a process with a time limit. Safe to repeat."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from common.errors import BadInputError, RethesisError
from common.files import read_json
from common.tracking import wandb_runs as runs
from common.tracking.redact import redact_text

REACH_SECONDS = 10
RUN_SECONDS = 30
START_SECONDS = 60
_ADDRESS = "import wandb; print('base_url', wandb.setup().settings.base_url)"


@dataclass(frozen=True)
class SyncReport:
    """Runs uploaded now and before."""

    uploaded: int
    before: int


def sync(directory: Path) -> SyncReport:
    """Upload the exported offline runs that the server does not have yet.

    Nothing is deleted, and an uploaded run is marked, so the same command continues after any failure.

    Raises:
        BadInputError: no API key, or the server refused it.
        RethesisError: the server cannot be reached, or did not take everything in time.
    """
    folders = exported_folders(directory)
    todo = [folder for folder in folders if not is_synced(folder)]
    before = len(folders) - len(todo)
    if not todo:
        return SyncReport(0, before)
    environment = {**os.environ, **runs.environment(directory, "online")}
    environment.pop("WANDB_MODE", None)
    environment.pop("WANDB_SILENT", None)
    _reach(_address(environment))
    output = _upload(todo, environment, directory)
    left = [folder for folder in todo if not is_synced(folder)]
    if not left:
        return SyncReport(len(todo), before)
    if "api key" in output.lower() or "401" in output:
        raise BadInputError(
            "W&B accepted no API key: set WANDB_API_KEY or run `wandb login`, then `make sync` again. "
            "Nothing is lost."
        )
    raise RethesisError(
        f"W&B took {len(todo) - len(left)} of {len(todo)} runs; `make sync` again uploads the rest. "
        f"It last said: {_last_line(output)}"
    )


def exported_folders(directory: Path) -> list[Path]:
    """The complete offline folders, one a run, oldest first: an open or torn one is not among them."""
    states = [read_json(path) for path in (directory / "state").glob("*.json")]
    names = sorted(state["folder"] for state in states if state["folder"])
    return [directory / "wandb" / name for name in names if (directory / "wandb" / name).is_dir()]


def is_synced(folder: Path) -> bool:
    """Whether W&B's command marked the run as uploaded."""
    return any(folder.glob("run-*.wandb.synced"))


def _address(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", _ADDRESS]
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=START_SECONDS
    )
    for line in done.stdout.splitlines():
        if line.startswith("base_url "):
            return line.split()[1]
    raise RethesisError("wandb does not start; `make setup` repairs the environment.")


def _reach(address: str) -> None:
    """Ask first: W&B's command retries an unreachable server without end."""
    try:
        with urllib.request.urlopen(address, timeout=REACH_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answered
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RethesisError(
            f"the W&B server {redact_text(address)} cannot be reached ({reason}). The offline runs are kept; "
            "run `make sync` again with a network, or set WANDB_BASE_URL."
        ) from error


def _upload(folders: list[Path], environment: dict[str, str], directory: Path) -> str:
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
    limit = START_SECONDS + RUN_SECONDS * len(folders)
    log = directory / "sync.log"
    with log.open("w+", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=directory
        )
        try:
            process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            file.write(f"\nno end within {limit} s\n")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return log.read_text(encoding="utf-8", errors="replace")


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return redact_text(lines[-1])[:200] if lines else "nothing"
