"""Building a site's image without privileges, in node-local storage; and what a built image says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.container import definition, render
from common.container.table import Image, Site
from common.errors import BadInputError, RethesisError

FOLDER = Path("containers") / "build"
NEEDED_GB = 20.0  # while it is built; the image itself takes about a fifth
RUNTIMES = ("apptainer", "singularity")


@dataclass(frozen=True)
class Build:
    """A build that is ready to start.

    Attributes:
        image: of the table.
        folder: where `command` starts.
        command: makes `part`.
        environment: besides the user's own.
        part: what becomes `target` when it is whole, so that a build that fails takes no image away.
        target: the image.
        scratch: the variable that names the folder of temporary files.
    """

    image: Image
    folder: Path
    command: list[str]
    environment: dict[str, str]
    part: Path
    target: Path
    scratch: str

    def shown(self) -> str:
        """The build as a user would type it; it may hold secrets of the build arguments."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        renamed = shlex.join(["mv", str(self.part), str(self.target)])
        return (
            f"cd {self.folder} &&\n  {' '.join(variables)} \\\n  {shlex.join(self.command)} &&\n  {renamed}"
        )


def prepare(
    image: Image, site: Site, root: Path, arguments: Mapping[str, str], binds: Sequence[str], runtime: str
) -> Build:
    """Write the definition with its files below containers/build, and check it.

    Args:
        image, site: of the table.
        root: the repository.
        arguments: build arguments.
        binds: ``source:destination`` of folders that %post needs, e.g. with certificates.
        runtime: the program that builds.

    Raises:
        BadInputError: no commit, no lock, or a definition that cannot be built so.
    """
    folder = root / FOLDER / image.name
    commit = render.context(image, folder, root)
    definition.check(folder / render.DEFINITION, arguments, folder)
    target = root / FOLDER / f"{image.name}-{commit[:12]}.sif"
    part = target.with_suffix(".part")
    command = [runtime, "build", *(["--fakeroot"] if site.fakeroot else [])]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for bind in binds:
        command += ["--bind", bind]
    # With --fakeroot the temporary files must lie on the node's own disk; the group and home areas are refused.
    variable = next((name for name in (site.scratch, "TMPDIR") if os.environ.get(name)), "TMPDIR")
    scratch = os.environ.get(variable) or "/tmp"
    environment = {
        f"{name.upper()}_{kind}": str(Path(scratch) / f"rethesis-{kind.lower()}")
        if kind == "CACHEDIR"
        else scratch
        for name in RUNTIMES
        for kind in ("TMPDIR", "CACHEDIR")
    }
    command += [str(part), render.DEFINITION]
    return Build(image, folder, command, environment, part, target, variable)


def run(build: Build) -> Path:
    """Build the image; its %test has run when it is there.

    Raises:
        BadInputError: no program to build with, no folder for temporary files, or too little room there.
        RethesisError: the build failed; its own words stand above.
    """
    runtime, scratch = build.command[0], build.environment["APPTAINER_TMPDIR"]
    if shutil.which(runtime) is None:
        raise BadInputError(
            f"{runtime} is not installed here, so nothing was built. Load the site's module, or build where "
            f"it is: the definition and all its files are in {build.folder}. ARGS=--print shows the command."
        )
    if not Path(scratch).is_dir():
        raise BadInputError(
            f"{build.scratch}={scratch} is no folder; make it, or point {build.scratch} to one."
        )
    if (free := shutil.disk_usage(scratch).free / 1e9) < NEEDED_GB:
        raise BadInputError(
            f"{free:.0f} GB free in {scratch}, {NEEDED_GB:.0f} GB needed while an image is built. Build in a job on a "
            f"node with a local disk, or point {build.scratch} to one."
        )
    build.part.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            build.command, cwd=build.folder, env={**os.environ, **build.environment}, check=False
        )
        if done.returncode != 0 or not build.part.is_file():
            raise RethesisError(f"{runtime} ended with code {done.returncode} and made no image; see above.")
        build.part.replace(build.target)
    finally:
        build.part.unlink(missing_ok=True)
    return build.target


def found_runtime(preferred: str) -> str:
    """The site's program, or the other one where only that is installed (each reads the other's images)."""
    return next((name for name in (preferred, *RUNTIMES) if shutil.which(name)), preferred)


def labels(image: Path, runtime: str) -> dict[str, str]:
    """The labels of a built image.

    Raises:
        BadInputError: it is missing, or no image; or the program that reads it is not here.
    """
    command = [runtime, "inspect", "--json", "--labels", str(image)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadInputError(
            f"{runtime} cannot be started here ({error.strerror}), so {image} cannot be read; load the site's module."
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"{runtime} ended with code {done.returncode}"])[-1]
        raise BadInputError(f"{image} cannot be read as an image: {said}")
    try:
        found: dict[str, Any] = json.loads(done.stdout)["data"]["attributes"]["labels"]
        return {name: str(value) for name, value in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{image} has no labels that {runtime} shows: it is no image of `make container`."
        ) from error


def require_same_lock(image: Path, kind: Image, runtime: str, root: Path) -> None:
    """Refuse an image whose packages are not the work tree's: fingerprints name those of the tree.

    Raises:
        BadInputError: the image was made from another lock, or cannot be read.
    """
    wanted = hashlib.sha256(render.lock(kind, root).encode()).hexdigest()
    if (found := labels(image, runtime).get(definition.LOCK_LABEL)) != wanted:
        raise BadInputError(
            f"{image} was made from another lock (hash {str(found)[:16]}…, here {wanted[:16]}…). `make container` "
            "makes an image from this tree."
        )
