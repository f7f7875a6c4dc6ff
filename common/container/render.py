"""From the table to everything that a build reads: the definition, the lock it installs, the source."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from common.container.table import Image
from common.errors import BadInputError
from common.files import write_text

TEMPLATE = Path("containers") / "image.def.jinja"
DEFINITION, LOCK, SOURCE = "image.def", "lock.txt", "source.tar"
PACKAGES = ("ca-certificates", "git", "make")
TEST = "PROJECT=opirl SCALE=smoke TRACK=off"
_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*==")


def context(image: Image, folder: Path, root: Path, *, test: str = TEST) -> str:
    """Write the definition, its lock and the committed source into `folder`; return the commit.

    Args:
        image: of the table.
        folder: created where it is missing; the build starts in it.
        root: the repository.
        test: arguments of the ``make reproduce`` that the image's %test runs.

    Raises:
        BadInputError: `root` has no commit, or no lock for the image's Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    text = lock(image, root)
    write_text(folder / LOCK, text)
    # The evidence of earlier runs is left out: an image makes its own.
    source = _git(root, "archive", "--format=tar", "HEAD", "--", ".", ":(exclude)results")
    (folder / SOURCE).write_bytes(source)
    write_text(folder / DEFINITION, definition(image, commit, text, root, test))
    return commit


def lock(image: Image, root: Path) -> str:
    """The hashed requirements that the image installs: the repository's, less what its base brings.

    Raises:
        BadInputError: the file is missing.
    """
    path = root / "requirements" / image.lock_name
    if not path.is_file():
        raise BadInputError(f"{path} is missing: `make lock` writes it.")
    return without(path.read_text(encoding="utf-8"), image.provided)


def without(text: str, names: Sequence[str]) -> str:
    """A lock less the entries whose package name matches one of `names` (``nvidia-*``), with their hashes."""
    kept: list[str] = []
    dropping = False
    for line in text.splitlines(keepends=True):
        if entry := _ENTRY.match(line):
            dropping = any(fnmatch(entry["name"].lower(), name) for name in names)
        if not dropping:
            kept.append(line)
    return "".join(kept)


def definition(image: Image, commit: str, lock_text: str, root: Path, test: str = TEST) -> str:
    """The text of the Apptainer definition."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
        block_start_string="<%", block_end_string="%>", trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False,
    )  # fmt: skip
    template = environment.from_string((root / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        image=image,
        commit=commit,
        packages=" ".join((*PACKAGES, *image.packages)),
        lock_name=image.lock_name,
        lock_sha256=hashlib.sha256(lock_text.encode()).hexdigest(),
        test=test,
    )


def _git(root: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise BadInputError("git is not installed; an image is made from a commit.") from error
    except subprocess.CalledProcessError as error:
        raise BadInputError(
            f"an image is made from a commit, and git gave none for {root}: {error.stderr.decode().strip()}"
        ) from error
