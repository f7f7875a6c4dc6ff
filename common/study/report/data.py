"""Reading a result's committed files. Whatever is absent comes back empty: the page leaves that part out."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from common.errors import BadInputError
from common.files import read_json, sha256
from common.study.collect import CPUS, REPEATED

Json = dict[str, Any]
Row = dict[str, Any]

ROLES = ("study", "validation")
_TEXT = {"project", "scale", "stage", "status", "role", "fingerprint", "key"}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Result:
    """One folder results/<project>/<scale>.

    Attributes:
        folder: where it lies.
        head: claims.json without its claims.
        claims: the claims, in the study's order.
        environment: environment.json.
        repeated: the entries of repeated.json that were compared with this table.csv, newest last.
    """

    folder: Path
    head: Json
    claims: list[Json]
    environment: Json
    repeated: list[Json] = field(default_factory=list[Json])

    @cached_property
    def rows(self) -> list[Row]:
        """table.csv: cells that are numbers are numbers, empty cells are absent."""
        return read_rows(self.folder / "table.csv")

    @cached_property
    def curves(self) -> list[Row]:
        """curves.csv, likewise, in long form: stage, axes, step, key, value."""
        return read_rows(self.folder / "curves.csv")

    @cached_property
    def elsewhere(self) -> list[Result]:
        """Runs of the same study on other CPU models: claims and environment, no rows."""
        return [load(path.parent) for path in sorted(self.folder.glob(f"{CPUS}/*/claims.json"))]

    @property
    def cpus(self) -> list[str]:
        """The CPU models that it was run on."""
        known = self.environment
        return texts(known.get("cpus")) or [str(known.get("cpu") or self.head.get("cpu") or "")]

    @property
    def project(self) -> str:
        """The project's name."""
        return str(self.head.get("project") or self.folder.parent.name)

    @property
    def scale(self) -> str:
        """The scale's name; ``laptop+<hash>`` is a changed study, not evidence."""
        return self.folder.name

    @property
    def changed(self) -> bool:
        """True for a run with overrides, which is never evidence."""
        return "+" in self.scale


def load(folder: Path) -> Result:
    """Read a result's files.

    Raises:
        BadInputError: claims.json is missing or is not JSON.
    """
    path = folder / "claims.json"
    if not path.is_file():
        raise BadInputError(f"{path} is missing: run `make reproduce` for this project and scale first.")
    try:
        head: Json = dict(read_json(path))
        extra = folder / "environment.json"
        environment: Json = dict(read_json(extra)) if extra.is_file() else {}
        repeated = _repeated(folder)
    except ValueError as error:
        raise BadInputError(f"a JSON file in {folder} is damaged ({error}): restore it from git.") from error
    claims: list[Json] = list(head.pop("claims", []))
    return Result(folder, head, claims, environment, repeated)


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file, [] when there is none; numbers parsed, empty cells absent."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: _parse(name, cell) for name, cell in row.items() if cell not in ("", None)}
            for row in csv.DictReader(file)
        ]


def mapping(value: object) -> Json:
    """A JSON object, {} in place of anything else."""
    return cast("Json", value) if isinstance(value, dict) else {}


def objects(value: object) -> list[Json]:
    """The objects of a JSON list, [] in place of anything else."""
    return [mapping(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    """The items of a JSON list as strings, [] in place of anything else."""
    return [str(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def evidence_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows that claims are tested on: those of the study's seeds that ran to an end."""
    return [
        row
        for row in rows
        if row.get("role", "study") == "study" and row.get("status", "done") in ("done", "diverged")
    ]


def validation_seeds(result: Result) -> set[Any]:
    """The seeds on which choices were made and no claim is tested."""
    seeds = {role: {row.get("seed") for row in result.rows if row.get("role") == role} for role in ROLES}
    return seeds["validation"] - seeds["study"]


def study_curves(result: Result) -> list[Row]:
    """The curves without those of validation seeds."""
    drop = validation_seeds(result)
    return [row for row in result.curves if row.get("seed") not in drop]


def replicates(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """One arm's values as (replicate, value), numbers in numeric order; a null counts as absent."""
    pairs = [(str(name), float(value)) for name, value in values.items() if value is not None]
    return sorted(pairs, key=lambda pair: natural(pair[0]))


def natural(text: object) -> tuple[float, str]:
    """A sort key that puts ``10`` after ``9``, and numbers before words."""
    word = str(text)
    return (float(word), "") if _NUMBER.fullmatch(word) else (float("inf"), word)


def _repeated(folder: Path) -> list[Json]:
    path, table = folder / REPEATED, folder / "table.csv"
    if not path.is_file() or not table.is_file():
        return []
    compared = sha256(table)
    return [entry for entry in objects(read_json(path)) if entry.get("table") == compared]


def _parse(name: str, cell: str) -> str | int | float:
    if name in _TEXT or not _NUMBER.fullmatch(cell):
        return cell
    return int(cell) if cell.lstrip("+-").isdigit() else float(cell)
