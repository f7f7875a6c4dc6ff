"""The front door: ``python -m common.study COMMAND``. The Makefile passes its variables here."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence

from common.errors import EXIT_BAD_INPUT, RethesisError, unknown

COMMANDS = ("plan", "reproduce", "status", "why", "logs", "dashboard", "sync", "clean", "new", "list", "render")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(prog="python -m common.study", description=__doc__)
    parse.add_argument("command", help=", ".join(COMMANDS))
    parse.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. agent.actor_lr=3e-5")
    parse.add_argument("--project", default="", help="a folder of projects/")
    parse.add_argument("--scale", default="laptop", help="smoke, laptop, workstation or paper")
    parse.add_argument("--launch", default="local", help="a file of configs/launch/")
    parse.add_argument("--only", default="", help="stages and arms, separated by commas")
    parse.add_argument("--seeds", default="", help="number of replicates")
    parse.add_argument("--track", default="offline", choices=("offline", "live"), help="W&B beside the run")
    parse.add_argument("--yes", action="store_true", help="clean: remove, do not only list")
    parse.add_argument("--check", action="store_true", help="render: fail on any difference, write nothing")
    return parse


def main(arguments: Sequence[str]) -> int:
    """Run one command; bad input gets one message and exit code 2."""
    parse = parser()
    options, extra = parse.parse_known_intermixed_args(arguments)
    try:
        if extra:
            near = difflib.get_close_matches(extra[0], ["--project", "--scale", "--only", "--seeds"], 1, 0.0)
            raise _bad(f"unknown option {extra[0]!r}. Did you mean {near[0]!r}?")
        return _command(options.command)(options)
    except RethesisError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0


def _bad(message: str) -> RethesisError:
    from common.errors import BadInputError

    return BadInputError(message)


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return globals()[f"_{name}"]


def _request(options: argparse.Namespace) -> object:
    from common.study.config import check_names
    from common.study.reproduce import Request

    check_names(options.project, options.scale, options.launch)
    if options.seeds and not options.seeds.isdigit():
        raise _bad(f"SEEDS={options.seeds!r} is not a whole number.")
    return Request(
        project=options.project,
        scale=options.scale,
        launch=options.launch,
        overrides=tuple(options.overrides),
        only=tuple(word for word in options.only.split(",") if word),
        seeds=int(options.seeds) if options.seeds else None,
        track=options.track,
    )


def _query(name: str) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        from common.study import queries

        getattr(queries, name)(_request(options))
        return 0

    return command


_plan, _status, _why, _logs = (_query(name) for name in ("plan", "show_status", "why", "logs"))


def _reproduce(options: argparse.Namespace) -> int:
    from common.study.reproduce import reproduce

    return reproduce(_request(options))  # pyright: ignore[reportArgumentType]


def _clean(options: argparse.Namespace) -> int:
    from common.study.queries import clean

    clean(_request(options), options.yes)  # pyright: ignore[reportArgumentType]
    return 0


def _dashboard(_options: argparse.Namespace) -> int:
    from common.study.dashboards import dashboard

    print(f"dashboard: {dashboard()}")
    return 0


def _sync(_options: argparse.Namespace) -> int:
    from common.study.dashboards import sync

    return sync()


def _render(options: argparse.Namespace) -> int:
    from common.study.dashboards import render_committed

    return render_committed(check=options.check)


def _new(options: argparse.Namespace) -> int:
    from common.study.config import ROOT
    from common.study.scaffold import create

    for path in create(options.project, ROOT):
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def _list(_options: argparse.Namespace) -> int:
    from common.study.config import projects, scales

    for project in projects():
        print(f"{project}: {', '.join(scales(project))}")
    return 0


if __name__ == "__main__":
    sys.exit(EXIT_BAD_INPUT if len(sys.argv) < 2 and parser().print_usage() is None else main(sys.argv[1:]))
