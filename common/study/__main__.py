"""The front door: ``python -m common.study COMMAND``. The Makefile passes its variables here."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.errors import (
    DISK_FULL,
    EXIT_BAD_INPUT,
    EXIT_OTHER,
    FORBIDDEN,
    BadInputError,
    RethesisError,
    unknown,
)

if TYPE_CHECKING:
    from common.study.reproduce import Request

COMMANDS = {
    "plan": "jobs, minutes, disk, replicates and power; starts nothing",
    "launch-check": "render and check a site's job scripts, print node-hours and points; submits nothing",
    "reproduce": "run what is missing, judge the claims, write the report",
    "repeat": "run some seeds again and compare their numbers with the committed evidence",
    "status": "done, failed and missing jobs",
    "why": "why jobs would run again",
    "logs": "the last failed job's traceback and the command that runs it alone",
    "clean": "list job folders that no current study names (--yes removes them)",
    "new": "write the folder, config and test file of a new thesis",
    "list": "projects and their scales",
    "dashboard": "a static site over all results",
    "sync": "upload the offline W&B runs",
    "render": "write committed reports and the README's tables again (--check only compares)",
}
TRACKS = ("offline", "live", "off")
WITHOUT_STUDY = ("new", "list", "dashboard", "sync", "render")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = "\n".join(f"  {name:<13}{text}" for name, text in COMMANDS.items())
    parse = argparse.ArgumentParser(
        prog="python -m common.study",
        description=f"commands:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("command", metavar="COMMAND")
    parse.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. agent.actor_lr=3e-5")
    parse.add_argument("--project", default="", help="a folder of projects/")
    parse.add_argument(
        "--scale", default="laptop", help="smoke, laptop, workstation, paper or a project's own"
    )
    parse.add_argument("--launch", default="local", help="a file of configs/launch/")
    parse.add_argument("--only", default="", help="stages and arms, separated by commas")
    parse.add_argument(
        "--seeds", default="", help="number of replicates; repeat: how many of them, default 1"
    )
    parse.add_argument(
        "--track", default="offline", help="offline: W&B runs at the end; live: beside the run; off"
    )
    parse.add_argument("--yes", action="store_true", help="clean: remove, do not only list")
    parse.add_argument("--check", action="store_true", help="render: fail on any difference, write nothing")
    return parse


def main(arguments: Sequence[str]) -> int:
    """Run one command; an error that we know gets one message and its exit code."""
    try:
        options, extra = parser().parse_known_intermixed_args(arguments)
        if extra:
            flags = ["--project", "--scale", "--launch", "--only", "--seeds", "--track", "--yes", "--check"]
            near = difflib.get_close_matches(extra[0], flags, 1, 0.0)
            raise BadInputError(f"unknown option {extra[0]!r}. Did you mean {near[0]!r}?")
        if options.command not in COMMANDS:
            raise unknown("command", options.command, COMMANDS)
        run = _general if options.command in WITHOUT_STUDY else _of_study
        return run(options)
    except RethesisError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `make plan | head`
        return 0
    except KeyboardInterrupt:  # while nothing runs yet or any more; engine.run takes the signal itself
        print("stopped; the same command continues")
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in (*DISK_FULL, *FORBIDDEN):
            raise
        full = error.errno in DISK_FULL
        what = "Free some space" if full else "Mend its rights"
        print(
            f"error: {error.filename or 'results/'}: {error.strerror}. {what}: what is done is kept, and the same "
            "command continues.",
            file=sys.stderr,
        )
        return EXIT_OTHER if full else EXIT_BAD_INPUT


def _request(options: argparse.Namespace) -> Request:
    from common.study.config import check_names

    check_names(options.project, options.scale, options.launch)
    if options.seeds and not options.seeds.isdigit():
        raise BadInputError(f"SEEDS={options.seeds!r} is not a whole number.")
    if options.track not in TRACKS:
        raise unknown("TRACK", options.track, TRACKS)
    from common.study.reproduce import Request

    return Request(
        project=options.project,
        scale=options.scale,
        launch=options.launch,
        overrides=tuple(options.overrides),
        only=tuple(word for word in options.only.split(",") if word),
        seeds=int(options.seeds) if options.seeds else None,
        track=options.track,
    )


def _of_study(options: argparse.Namespace) -> int:
    request = _request(options)
    from common.study import queries
    from common.study.reproduce import reproduce

    if options.command == "reproduce":
        return reproduce(request)
    if options.command == "repeat":
        from common.study.repeat import repeat

        return repeat(request)
    if options.command == "launch-check":
        from common.study.launch_check import launch_check

        return launch_check(request)
    if options.command == "clean":
        queries.clean(request, options.yes)
    else:
        {"plan": queries.plan, "status": queries.status, "why": queries.why, "logs": queries.logs}[
            options.command
        ](request)
    return 0


def _general(options: argparse.Namespace) -> int:
    from common.study.config import ROOT, projects, scales

    if options.command == "list":
        for project in projects():
            print(f"{project}: {', '.join(scales(project))}")
        return 0
    if options.command == "new":
        from common.study.scaffold import create

        for path in create(options.project, ROOT):
            print(f"wrote {path.relative_to(ROOT)}")
        print(
            f"it runs as it is: make reproduce PROJECT={options.project} SCALE=smoke; next: CONTRIBUTING.md"
        )
        return 0
    from common.study import views

    if options.command == "render":
        return views.render_committed(check=options.check)
    if options.command == "sync":
        views.sync()
    else:
        print(f"dashboard: {views.dashboard()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--help"]))
