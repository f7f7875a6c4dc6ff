"""Upload of the offline W&B runs, by W&B's own command in a process with a time limit. Safe to repeat."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import BadInputError, RethesisError
from common.files import read_json
from common.tracking import wandb_runs as runs
from common.tracking.redact import redact_text
from common.tracking.wandb_lineage import groups_of, link, unlinked
from common.tracking.wandb_workspace import View, save

REACH_SECONDS = 10
RUN_SECONDS = 30
START_SECONDS = 60
REFUSED = ("api key", "401", "not logged in", "not authenticated")  # in W&B's words
_ADDRESS = "import wandb; print('base_url', wandb.setup().settings.base_url)"


@dataclass(frozen=True)
class SyncReport:
    """Runs uploaded now and before, and the addresses of the workspaces that show them."""

    uploaded: int
    before: int
    workspaces: tuple[str, ...] = ()


def sync(directory: Path, views: Sequence[View] = ()) -> SyncReport:
    """Upload the exported offline runs that the server does not have yet, their lineage, and the workspaces.

    Nothing is deleted, and what was uploaded is marked, so the same command continues after any failure.

    Args:
        directory: of all of W&B's files.
        views: workspaces to save, those of groups of which something is uploaded now.

    Raises:
        BadInputError: no API key, or the server refused it.
        RethesisError: the server cannot be reached, or did not take everything in time.
    """
    folders = exported_folders(directory)
    todo = [folder for folder in folders if not is_synced(folder)]
    before = len(folders) - len(todo)
    if not todo and not unlinked(directory):
        return SyncReport(0, before)
    mine = {name: value for name, value in os.environ.items() if runs.is_passed_on(name)}
    environment = {**mine, **runs.environment(directory, "online")}
    environment.pop("WANDB_SILENT", None)
    _reach(_address(environment))
    output = _upload(todo, environment, directory) if todo else ""
    if left := [folder for folder in todo if not is_synced(folder)]:
        raise _refusal(output, f"W&B took {len(todo) - len(left)} of {len(todo)} runs")
    return SyncReport(len(todo), before, _finish(directory, views))


def _finish(directory: Path, views: Sequence[View]) -> tuple[str, ...]:
    """Tell the server the lineage of what was uploaded, and save the workspaces of its groups."""
    groups = groups_of(directory)
    with runs.session(directory, "online") as wandb:
        try:
            api = wandb.Api(timeout=runs.SERVER_SECONDS)
            entity = os.environ.get("WANDB_ENTITY") or api.default_entity
            link(wandb, directory, entity)
            app = api.settings["base_url"]
            return tuple(
                save(view, entity, groups[view.group], app) for view in views if view.group in groups
            )
        except Exception as error:  # the public interface raises more than wandb.errors
            raise _refusal(
                f"{type(error).__name__}: {error}", "the runs are uploaded, not all of their lineage"
            ) from None


def _refusal(said: str, what: str) -> RethesisError:
    if any(sign in said.lower() for sign in REFUSED):
        return BadInputError(
            "W&B accepted no API key: set WANDB_API_KEY or run `wandb login`, then `make sync` again. "
            "Nothing is lost."
        )
    return RethesisError(f"{what}; `make sync` again uploads the rest. W&B last said: {_last_line(said)}")


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
    try:
        done = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=START_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise RethesisError(
            f"wandb took more than {START_SECONDS} s to start, as on a cold file system; the same command tries again. "
            "The offline runs are kept."
        ) from error
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
            file.write(f"\nnothing more within {limit} s: the server is out of order, or too slow\n")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return log.read_text(encoding="utf-8", errors="replace")


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return redact_text(lines[-1])[:200] if lines else "nothing"
