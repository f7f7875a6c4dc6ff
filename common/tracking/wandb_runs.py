"""One job as one W&B run: what is read from its folder, how the run is opened, filled and closed.

W&B is a view. Its files are made from JSONL and can be made again, so an unfinished one is simply replaced.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import yaml

from common.errors import RethesisError
from common.files import digest, read_json, write_json
from common.tracking.record import Row
from common.tracking.redact import redact

Mode = Literal["offline", "online"]
ID_DIGITS = 16
SERVER_SECONDS = 10  # an unreachable server costs this once, not the default 90 s
FINISH_SECONDS = 60
TAG_LENGTH = 64
COMMIT_DIGITS = 8
ARM = "arm"  # config key: the stage and all axes but the seed, what curves are averaged over
# Where to upload and as whom; every other WANDB_ variable would change what is recorded.
_LOGIN = ("API_KEY", "BASE_URL", "ENTITY", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE")
_KEPT = {f"WANDB_{name}" for name in _LOGIN}


@dataclass(frozen=True)
class Target:
    """Where runs go: W&B's project, the group ``<project>/<scale>``, and the folder of all of W&B's files."""

    project: str
    group: str
    directory: Path


class Table(NamedTuple):
    """A table of a run: columns, and rows of text, numbers or None."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True)
class Exported:
    """A finished job folder, or a running one, as W&B shall show it.

    Attributes:
        files: what its artefact holds, once it is done.
        tables: shown beside the curves, by key.
    """

    folder: Path
    stage: str
    run_id: str
    status: Literal["done", "failed", "running"]
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: Sequence[Path]
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])

    @property
    def axes(self) -> Mapping[str, Any]:
        """The job's axes, empty if its config names none."""
        return self.config.get("axes") or {}

    @property
    def inputs(self) -> list[str]:
        """Names of the artefacts that it read."""
        inputs: Mapping[str, Sequence[str]] = self.config.get("inputs") or {}
        return [artifact_name(stage, name[:ID_DIGITS]) for stage, found in inputs.items() for name in found]


def read_job(folder: Path) -> Exported:
    """What a job folder holds so far, redacted; results/.runs/<project>/<stage>/<fingerprint>.

    Raises:
        OSError, ValueError: a file is unreadable.
    """
    config: dict[str, Any] = _yaml(folder / "config.yaml")
    record = _json(folder / "provenance.json")
    git: dict[str, Any] = record.get("git", {})
    parts: dict[str, Any] = record.get("parts", {})
    done, failed = (folder / "DONE").exists(), (folder / "FAILED").exists()
    lineage = {
        "fingerprint": folder.name,
        "commit": git.get("commit"),
        "inputs": parts.get("inputs", {}),
    }
    return Exported(
        folder=folder,
        stage=folder.parent.name,
        run_id=folder.name[:ID_DIGITS],
        status="done" if done else "failed" if failed else "running",
        config=redact({**config, **lineage}),
        metrics=_json(folder / "metrics.json") if done else {},
        files=(folder / "metrics.json",) if done else (),
    )


def logged_in() -> bool:
    """Whether a key for the server is at hand: in WANDB_API_KEY, or where `wandb login` put it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or "wandb"
    with suppress(OSError, NetrcParseError):
        return any(server in host for host in netrc().hosts)
    return False


@contextmanager
def session(directory: Path, mode: Mode) -> Generator[Any, None, None]:
    """The wandb module with all its files under `directory`; its service is stopped at the end.

    Raises:
        RethesisError: wandb is not installed.
    """
    saved = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    try:
        for name in saved:
            if mode == "offline" or not is_passed_on(name):
                del os.environ[name]
        os.environ |= environment(directory, mode)
        try:
            import wandb
        except ImportError as error:
            raise RethesisError("wandb is not installed: `make setup` installs it.") from error
        wandb.teardown()  # a session that someone else opened has read other folders
        try:
            yield wandb
        finally:
            wandb.teardown()
    finally:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            del os.environ[name]
        os.environ |= saved


def is_passed_on(variable: str) -> bool:
    """Whether a user's variable reaches wandb: what says where to upload and as whom, and all that is not wandb's."""
    return variable in _KEPT or not variable.startswith("WANDB_")


def environment(directory: Path, mode: Mode) -> dict[str, str]:
    """Variables that keep wandb's files under `directory` and its reports at home.

    Online it still reads the user's own settings, where the address of a private server may stand.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = ["WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"]
    names += ["WANDB_CONFIG_DIR"] if mode == "offline" else []
    switches = {"WANDB_DISABLE_GIT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    return dict.fromkeys(names, str(directory.resolve())) | switches


def open_run(wandb: Any, job: Exported, target: Target, mode: Mode) -> Any:
    """Start the W&B run of a job; neither console, program arguments, host nor git are recorded."""
    axes = [f"{name}={value}" for name, value in job.axes.items()]
    commit = str(job.config.get("commit") or "")[:COMMIT_DIGITS]
    tags = [*target.group.split("/"), *axes, *([f"commit={commit}"] if commit else [])]
    settings = wandb.Settings(
        mode=mode, console="off", silent=True, symlink=False, reinit="create_new", host="",
        disable_git=True, disable_code=True, save_code=False, program="",
        init_timeout=SERVER_SECONDS, login_timeout=SERVER_SECONDS,
        finish_timeout=FINISH_SECONDS, finish_timeout_raises=True,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    run = wandb.init(
        project=target.project,
        id=job.run_id,
        name=" ".join([job.stage, *axes]),
        group=target.group,
        job_type=job.stage,
        tags=[tag[:TAG_LENGTH] for tag in tags],
        config={**job.config, ARM: arm(job)},
        dir=target.directory,
        resume="allow" if mode == "online" else None,
        settings=settings,
    )
    run.define_metric("*", step_metric="step")
    return run


def arm(job: Exported) -> str:
    """The stage and the values of all axes but the seed: runs that differ by their seed alone share it."""
    return " ".join([job.stage, *(str(value) for name, value in job.axes.items() if name != "seed")])


def log_rows(run: Any, rows: Sequence[Row], first: int) -> None:
    """Log rows of history.jsonl; W&B's own step is the row's number, so a row sent twice stays one."""
    for number, row in enumerate(rows, start=first):
        run.log(row, step=number, commit=True)


def close_run(wandb: Any, run: Any, job: Exported) -> None:
    """Add summary and artefact, and finish the run."""
    if job.tables:
        tables = {
            key: wandb.Table(list(table.columns), [list(row) for row in table.rows])
            for key, table in job.tables.items()
        }
        run.log(tables, step=0)
    run.summary.update({**job.metrics, "status": job.status})
    if job.status == "done":
        metadata = {name: job.config[name] for name in ("fingerprint", "commit", "inputs")}
        artifact = wandb.Artifact(artifact_name(job.stage, job.run_id), type=job.stage, metadata=metadata)
        for path in job.files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish(exit_code=0 if job.status == "done" else 1)
    for name in ("logs", "tmp"):
        shutil.rmtree(Path(run.settings.sync_dir) / name, ignore_errors=True)


def artifact_name(stage: str, run_id: str) -> str:
    """Name of a job's artefact: what its consumers' runs refer to."""
    return re.sub(r"[^\w.-]", "-", f"{stage}-{run_id}")


def source_digest(job: Exported, rows: Sequence[Row]) -> str:
    """Digest of everything a run shows: an equal one need not be exported again."""
    return digest([list(rows), job.status, dict(job.metrics), _plain(job.config)])


def read_state(directory: Path, run_id: str) -> dict[str, Any]:
    """What was exported of a run, as `write_state` wrote it; empty if nothing was."""
    return _json(directory / "state" / f"{run_id}.json")


def write_state(target: Target, job: Exported, rows: Sequence[Row], uploaded: int, folder: str) -> None:
    """Mark a run as exported. Only now may an older folder of it, or one torn by a kill, be removed.

    Args:
        uploaded: rows that went to a server while online.
        folder: name of the offline folder that holds the other rows, empty if there is none.
    """
    state = {
        "source": source_digest(job, rows), "rows": len(rows), "uploaded": uploaded, "folder": folder,
        "project": target.project, "group": target.group, "inputs": job.inputs,
    }  # fmt: skip
    write_json(target.directory / "state" / f"{job.run_id}.json", state)
    remove_leftovers(target.directory, job.run_id, keep=folder)


def remove_leftovers(directory: Path, run_id: str, keep: str) -> None:
    """Remove W&B's folders of a run other than `keep`: they hold no row that JSONL or the server lacks."""
    for pattern in (f"offline-run-*-{run_id}*", f"run-*-{run_id}*"):
        for path in (directory / "wandb").glob(pattern):
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def claimed(directory: Path, run_id: str) -> Generator[bool, None, None]:
    """Whether this process may export the run: a follower and an exporter may run beside each other."""
    (directory / "state").mkdir(parents=True, exist_ok=True)
    with (directory / "state" / f"{run_id}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _plain(value: Any) -> Any:
    """JSON of any YAML value: a date or an infinity is compared as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_plain(item) for item in value]  # pyright: ignore
    return value if isinstance(value, str | int | bool | None) else repr(value)
