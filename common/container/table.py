"""containers/images.toml as data: which images there are, and which one a site runs."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cluster import sites
from common.errors import unknown

TABLE = Path("containers") / "images.toml"
DEBOOTSTRAP = "debootstrap "


@dataclass(frozen=True)
class Image:
    """One image; the fields are those of images.toml."""

    name: str
    about: str
    base: str
    python: str
    packages: Sequence[str]
    provided: Sequence[str]
    tested: str
    digest: str = ""

    @property
    def suite(self) -> str:
        """Debian's suite where debootstrap makes the base, else empty."""
        return self.base.removeprefix(DEBOOTSTRAP) if self.base.startswith(DEBOOTSTRAP) else ""

    @property
    def repository(self) -> str:
        """The Docker image without its tag: Apptainer takes a tag or a digest, not both."""
        return self.base.partition(":")[0]

    @property
    def lock_name(self) -> str:
        """File in requirements/ that is installed."""
        return f"py{self.python.replace('.', '')}.txt"


@dataclass(frozen=True)
class Site:
    """Where images are built and run; the fields are those of images.toml."""

    name: str
    image: str
    runtime: str
    scratch: str
    fakeroot: bool
    source: str


def images(root: Path) -> dict[str, Image]:
    """Every image by name."""
    return {name: Image(name=name, **row) for name, row in _table(root)["images"].items()}


def image_named(name: str, root: Path) -> Image:
    """The image of that name.

    Raises:
        BadInputError: there is none.
    """
    found = images(root)
    if name not in found:
        raise unknown("image", name, found)
    return found[name]


def site_named(name: str, root: Path) -> Site:
    """The site of that name.

    Raises:
        BadInputError: there is none, or the machine is retired.
    """
    rows = _table(root)["sites"]
    if name not in rows:
        if name in sites.SITES:
            sites.site(name)
        raise unknown("SITE", name, rows)
    return Site(name=name, **rows[name])


def _table(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / TABLE).read_text(encoding="utf-8"))
