"""Programs of a study: ``python -m common.study.job FOLDER [FOLDER ...] [-- FOLDER ...]``.

Each folder holds a job.json. Several folders are members of one stacked stage and run as one program. Programs behind
``--`` are of the same stage and run one after the other, each in a process of its own that is forked after the imports,
which take longer than a short program.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import yaml

from common.cluster.ranks import STRATEGY, place
from common.errors import (
    DISK_FULL,
    EXIT_OTHER,
    EXIT_STOPPED,
    FORBIDDEN,
    BadInputError,
    RethesisError,
    StoppedError,
)
from common.files import read_json, write_json, write_text
from common.study.config import ROOT
from common.study.model import JobRef, Member, Metrics
from common.study.programs import header, programs_of
from common.study.store import (
    DETERMINISTIC,
    FIXED,
    SPEC,
    STOPPED,
    append_index,
    given_up,
    is_done,
    locked,
    mark_done,
    mark_failed,
    mark_stopped,
    read_metrics,
)
from common.tracking.provenance import finished, provenance
from common.tracking.redact import redact, redact_text
from common.training import stop

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(folders: Sequence[Path], root: Path = ROOT) -> int:
    """Run the jobs in `folders` that are not done; return the exit code of common.errors."""
    stop.install()
    if place().rank > 0:
        return follow(folders, root)
    with ExitStack() as locks:
        for folder in sorted(folders):
            locks.enter_context(locked(folder / ".lock", str(folder)))
        todo = [folder for folder in folders if not is_done(folder)]
        if not todo:
            return 0
        try:
            _sweep(todo)
            if reason := stop.requested():  # before anything heavy is imported
                raise StoppedError(f"not started: {reason}.")
            run(todo, root)
        except StoppedError as error:
            return _stop(todo, str(error))
        except OSError as error:
            if error.errno in DISK_FULL:
                return _stop(todo, f"{error.filename or todo[0]}: {error.strerror}; free some space.")
            return _fail(todo, error)
        except BaseException as error:
            return _fail(todo, error)
    return 0


def series(several: Sequence[Sequence[Path]], root: Path = ROOT) -> int:
    """Run each program in a forked process; return the exit code of the first that failed, or 0."""
    stop.install()
    with suppress(Exception):  # what fails here fails again in the program, which says so where people look
        spec = read_json(several[0][0] / SPEC)
        _set_environment(spec)
        _function(spec)
    codes: list[int] = []
    for folders in several:
        print(header(folders), flush=True)
        child = multiprocessing.get_context("fork").Process(target=_exit, args=(folders, root))
        child.start()
        child.join()
        codes.append(child.exitcode or 0)
    failed = next((code for code in codes if code), 0)
    return failed if failed >= 0 else 128 - failed


def _exit(folders: Sequence[Path], root: Path) -> None:
    sys.exit(main(folders, root))


def run(folders: Sequence[Path], root: Path = ROOT) -> None:
    """Run jobs of one stage, in the order given, and mark each done.

    Raises:
        BadInputError: an input is not done, the folder cannot be written, or a metric's name is taken.
        RethesisError: what the stage function raised.
    """
    specs = [read_json(folder / SPEC) for folder in folders]
    _set_environment(specs[0])
    members = [_member(spec, folder, root) for spec, folder in zip(specs, folders, strict=True)]
    records = [_start(spec, folder, root) for spec, folder in zip(specs, folders, strict=True)]
    results = _call(specs, members)
    for spec, metrics in zip(specs, results, strict=True):
        _check_names(spec, metrics)
    end = finished({}) | {"process": specs[0]["fingerprint"]}  # members of a stack share one, and its cost
    for spec, folder, record, metrics in zip(specs, folders, records, results, strict=True):
        write_json(folder / "provenance.json", {**record, **end})
        append_index(folder.parents[1], spec)
        mark_done(folder, metrics)


def follow(folders: Sequence[Path], root: Path = ROOT) -> int:
    """A process beside rank 0: the same program, whose files go to a folder of its own that is removed.

    It takes no lock and writes no marker; rank 0 does. Return the exit code of common.errors.
    """
    if all(is_done(folder) for folder in folders):
        return 0
    with tempfile.TemporaryDirectory(prefix="rethesis-rank-") as name:
        try:
            specs = [read_json(folder / SPEC) for folder in folders]
            outs = [Path(name) / str(number) for number in range(len(folders))]
            for out in outs:
                out.mkdir()
            _set_environment(specs[0])
            _call(specs, [_member(spec, out, root) for spec, out in zip(specs, outs, strict=True)])
        except StoppedError:
            return EXIT_STOPPED
        except BaseException as error:
            print(redact_text(traceback.format_exc()), file=sys.stderr, flush=True)
            return error.exit_code if isinstance(error, RethesisError) else EXIT_OTHER
    return 0


def _check_names(spec: Mapping[str, Any], metrics: Metrics) -> None:
    taken = sorted(set(metrics) & {*FIXED, *spec["axes"]})
    if taken:
        raise BadInputError(
            f"stage {spec['stage']} gives a metric the name of a column that says which job it is: "
            f"{', '.join(taken)}. Name it otherwise; the table of results would hold one of the two only."
        )


def _call(specs: Sequence[Mapping[str, Any]], members: Sequence[Member]) -> Sequence[Metrics]:
    function = _function(specs[0])
    if specs[0]["stacked"]:
        return function(members)
    return [function(member.cfg, member.inputs, member.out) for member in members]


def _function(spec: Mapping[str, Any]) -> Callable[..., Any]:
    module, _, name = spec["run"].partition(":")
    return getattr(importlib.import_module(module), name)


def _member(spec: Mapping[str, Any], folder: Path, root: Path) -> Member:
    inputs = {stage: [_reference(need, root) for need in needs] for stage, needs in spec["inputs"].items()}
    return Member(cfg=spec["config"], inputs=inputs, out=folder, axes=spec["axes"])


def _reference(need: Mapping[str, Any], root: Path) -> JobRef:
    folder = root / need["folder"]
    if not is_done(folder):
        raise BadInputError(f"input {need['folder']} is not done; run `make reproduce` for the whole study.")
    return JobRef(axes=need["axes"], folder=folder, metrics=read_metrics(folder))


def _start(spec: Mapping[str, Any], folder: Path, root: Path) -> dict[str, Any]:
    try:
        write_text(folder / "config.yaml", yaml.safe_dump(redact(spec["config"]), sort_keys=False))
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        raise BadInputError(f"{folder} cannot be written: {error.strerror}. Mend its rights.") from error
    packages = set(spec["parts"]["environment"]) - {"device", "threads", "processes", "strategy"}
    record = provenance(
        fingerprint=spec["fingerprint"],
        parts=spec["parts"],
        packages=packages,
        seed=spec["axes"].get("seed"),
        command=f"python -m common.study.job {folder.relative_to(root)}",
        root=root,
    )
    write_json(folder / "provenance.json", record)
    return record


def _set_environment(spec: Mapping[str, Any]) -> None:
    threads = int(spec["threads"])
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    os.environ[STRATEGY] = spec["parts"]["environment"].get("strategy", "ddp")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _sweep(folders: Sequence[Path]) -> None:
    """Remove what a killed process left half written, and the note of why it stopped."""
    for folder in folders:
        for path in (*folder.glob(".*.tmp"), folder / STOPPED):
            path.unlink(missing_ok=True)


def _stop(folders: Sequence[Path], reason: str) -> int:
    print(reason, flush=True)
    with suppress(OSError):  # on a full disk the note may be lost; nothing else depends on it
        for folder in folders:
            mark_stopped(folder, redact_text(reason))
    return EXIT_STOPPED


def _fail(folders: Sequence[Path], error: BaseException) -> int:
    code = error.exit_code if isinstance(error, RethesisError) else EXIT_OTHER
    trace = redact_text(traceback.format_exc())
    print(trace, file=sys.stderr, flush=True)
    try:
        for folder in folders:
            mark_failed(folder, code, redact_text(f"{type(error).__name__}: {error}"), trace)
    except OSError as problem:
        print(f"FAILED could not be written: {problem}", file=sys.stderr, flush=True)
    if code in DETERMINISTIC and all(given_up(folder) for folder in folders):
        print("failed twice in the same way: it is not tried again until its code or configuration changes.")
    return code


if __name__ == "__main__":
    several = programs_of(sys.argv[1:])
    sys.exit(main(several[0]) if len(several) == 1 else series(several))
