"""`make container SITE=abci3`: writes the definition, checks it, builds the image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.container import build
from common.container.table import image_named, site_named
from common.errors import BadInputError, RethesisError
from common.tracking.provenance import ROOT, git_state
from common.tracking.redact import redact_text


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Build, or with --print only show; returns the exit code of common.errors."""
    parser = argparse.ArgumentParser(prog="make container", description=__doc__, allow_abbrev=False)
    parser.add_argument("--site", default="local", help="a site of containers/images.toml")
    parser.add_argument("--image", help="another image than the site's")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", action="append", default=[], metavar="SOURCE:DESTINATION")
    parser.add_argument("--runtime", help="the program that builds, by default the site's")
    parser.add_argument("--print", action="store_true", help="write and check the definition, build nothing")
    given = parser.parse_args(arguments)
    try:
        return _run(given, root)
    except RethesisError as error:
        print(f"container: {redact_text(str(error))}", file=sys.stderr)
        return error.exit_code


def _run(given: argparse.Namespace, root: Path) -> int:
    site = site_named(given.site, root)
    image = image_named(given.image or site.image, root)
    pairs = [argument.partition("=") for argument in given.build_arg]
    if wrong := [name for name, sign, _ in pairs if not sign]:
        raise BadInputError(f"--build-arg {wrong[0]} is not NAME=VALUE.")
    values = {name: value for name, _, value in pairs}
    runtime = given.runtime or build.found_runtime(site.runtime)
    plan = build.prepare(image, site, root, values, given.bind, runtime)
    if git_state(root)["dirty"]:
        print("note: the image holds the last commit; changes that are not committed are not in it.")
    print(f"{image.name}: {image.about}. Definition: {image.tested}.")
    print(f"{site.name}: {site.source or 'assumed to be an ordinary site, not checked'}.")
    print(
        redact_text(plan.shown()), flush=True
    )  # an index may be reached with a login, and terminals are logged
    if not given.print:
        print(f"built: {build.run(plan)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
