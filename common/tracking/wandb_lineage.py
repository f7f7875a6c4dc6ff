"""Which run read which artefact, told to the server after an upload: an offline run cannot say it, and a run that
is followed live may begin before its inputs are there.

The lines that W&B draws go from the first stage over every reader to the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import read_json, write_json
from common.tracking import wandb_runs as runs

LINKED = "linked"


def unlinked(directory: Path) -> list[Path]:
    """State files of the uploaded runs whose inputs the server was not told of."""
    return [path for path, state in _uploaded(directory) if state["inputs"] and not state.get(LINKED)]


def link(wandb: Any, directory: Path, entity: str) -> int:
    """Tell the server the inputs of every uploaded run that it lacks them of, and return their number.

    An input whose producer was never uploaded (its folder was removed before) stays a name in the config.

    Args:
        wandb: the module, in an online session.
        directory: of all of W&B's files.
        entity: who owns the runs.

    Raises:
        wandb.errors.Error: the server did not answer; the same call continues.
    """
    api = wandb.Api(timeout=runs.SERVER_SECONDS)
    known = {path.stem for path, _ in _uploaded(directory)}
    todo = unlinked(directory)
    for path in todo:
        state = read_json(path)
        run = api.run(f"{entity}/{state['project']}/{path.stem}")
        for name in state["inputs"]:
            if name.rpartition("-")[2] in known:
                run.use_artifact(api.artifact(f"{entity}/{state['project']}/{name}:latest"))
        write_json(path, {**state, LINKED: True})
    return len(todo)


def exported_groups(directory: Path) -> set[str]:
    """The groups of which a run was exported."""
    return {read_json(path)["group"] for path in (directory / "state").glob("*.json")}


def groups_of(directory: Path) -> dict[str, str]:
    """Group -> W&B's project, of every uploaded run."""
    return {state["group"]: state["project"] for _, state in _uploaded(directory)}


def _uploaded(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((directory / "state").glob("*.json")):
        state = read_json(path)
        folder = directory / "wandb" / state["folder"]  # none: every row went to the server while online
        if not state["folder"] or any(folder.glob("run-*.wandb.synced")):
            yield path, state
