"""`make new PROJECT=x`: a thesis that runs and passes the contract tests, from the templates beside this file."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from pathlib import Path
from string import Template

from common.errors import BadInputError

TEMPLATES = Path(__file__).parent / "templates" / "new"
PLACE = "NAME"
SUFFIX = ".in"  # keeps linters and test runners away from the templates


def create(name: str, root: Path) -> list[Path]:
    """Write projects/<name>/, configs/project/<name>/ and tests/projects/<name>/; change no existing file.

    The files are written to a temporary folder and renamed into place; an error removes what was placed.

    Args:
        name: a lower-case Python identifier.
        root: the repository's root.

    Returns:
        The files, sorted.

    Raises:
        BadInputError: the name is not usable or taken.
    """
    _check(name)
    targets = [root / folder / name for folder in ("projects", "configs/project", "tests/projects")]
    for target in targets:
        if target.exists():
            raise BadInputError(
                f"{target.relative_to(root)} exists: choose another name, or continue it by hand."
            )
    placed: list[Path] = []
    with tempfile.TemporaryDirectory(prefix=".new-", dir=root) as scratch:
        _fill(Path(scratch), name)
        try:
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
                (Path(scratch) / target.relative_to(root)).rename(target)
                placed.append(target)
        except OSError:
            for target in placed:
                shutil.rmtree(target)
            raise
    return sorted(path for target in targets for path in target.rglob("*") if path.is_file())


def _check(name: str) -> None:
    if not name:
        raise BadInputError("which name? For example: make new PROJECT=my_thesis")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BadInputError(
            f"PROJECT={name!r} cannot name a Python package: use lower-case letters, digits and underscores, "
            "a letter first, and no keyword of the language."
        )


def _fill(folder: Path, name: str) -> None:
    for source in sorted(path for path in TEMPLATES.rglob(f"*{SUFFIX}")):
        relative = source.relative_to(TEMPLATES).as_posix().removesuffix(SUFFIX).replace(PLACE, name)
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(source.read_text(encoding="utf-8")).substitute(name=name), encoding="utf-8")
