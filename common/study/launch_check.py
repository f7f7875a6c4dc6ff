"""`make launch-check`: every job script rendered and checked against the site's rules, and what the jobs will cost."""

from __future__ import annotations

import math
import platform
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cluster import rules
from common.cluster.ask import Ask, choose, impossible
from common.cluster.profile import Profile, account, clock, profile
from common.cluster.schedulers import FAMILIES
from common.errors import BadInputError
from common.study.launch import Pack, packed, script_of
from common.study.tasks import Task, plan_tasks

if TYPE_CHECKING:
    from common.study.reproduce import Request

COLUMNS = "{:<14}{:<12}{:>6}{:>7}{:>7}{:>12}{:>7}{:>12}{:>10}"


@dataclass(frozen=True)
class Row:
    """Jobs that are alike, as one line of the table.

    Attributes:
        stage: the stage's name.
        one: name of the node class.
        nodes: units of it.
        processes: of one job.
        seconds: walltime.
        links: jobs that follow each other until the estimated time is served.
        hours: units × hours of one job with all its links, if each runs to its limit.
    """

    stage: str
    one: str
    nodes: int
    processes: int
    seconds: int
    links: int
    hours: float


def launch_check(request: Request) -> int:
    """Print the table and what is wrong; 2 when something is."""
    from common.study.reproduce import prepare

    _, cfg, jobs = prepare(request)
    if cfg["launch"]["executor"] == "local":
        print("LAUNCH=local runs on this machine; nothing is submitted and there is nothing to check.")
        return 0
    chosen = profile(cfg["launch"])
    rows, wrong = examine(packed(plan_tasks(jobs, request.root), cfg["launch"]), chosen, request.root)
    _print(rows, chosen)
    for fault in wrong:
        print(f"wrong: {fault}")
    return 2 if wrong else 0


def require(tasks: Sequence[Task], launch: Mapping[str, Any], root: Path) -> None:
    """Refuse a launch that its site would refuse.

    Raises:
        BadInputError: with everything that is wrong; or the site's commands are not on this machine.
    """
    if launch["executor"] == "local":
        return
    chosen = profile(launch)
    _, wrong = examine(packed(tasks, launch), chosen, root, here=True)
    if wrong:
        raise BadInputError("nothing was submitted.\n" + "\n".join(wrong))
    command = FAMILIES[chosen.site.scheduler].submit[0]
    if shutil.which(command) is None:
        raise BadInputError(
            f"{command} is not on this machine: LAUNCH={chosen.site.name} starts on a login node of its site. "
            "`make launch-check` works anywhere."
        )


def examine(
    packs: Sequence[Pack], chosen: Profile, root: Path, *, here: bool = False
) -> tuple[list[Row], list[str]]:
    """One row for each job, and what is wrong, each once; `here`: where an image has to be readable."""
    pays = account(chosen.site, root)
    rows: list[Row] = []
    faulty: dict[str, dict[str, None]] = {}
    for pack in packs:
        assert pack.ask is not None
        programs = [[str(job.folder(root).relative_to(root)) for job in task.jobs] for task in pack.tasks]
        faults = impossible(chosen, pack.ask)
        try:
            text = script_of(chosen, pack.ask, programs, [root / "log"] * len(programs), root)
            faults += [*rules.violations(chosen.site, text, pays), *_otherwise(chosen, pack.ask, text)]
            rows.append(_row(pack, chosen, text))
        except BadInputError as error:  # without a script there is still an account to be named
            faults += [str(error), *rules.who_pays(chosen.site, pack.ask.seconds, pays)]
        for fault in faults:
            faulty.setdefault(fault, {})[pack.stage] = None
    wrong = [f"{', '.join(stages)}: {fault}" for fault, stages in faulty.items()]
    most = chosen.site.unfinished
    if most is not None and chosen.jobs > most:
        wrong.append(f"launch.jobs={chosen.jobs}; {chosen.site.title} takes {most} unfinished jobs of a user")
    return rows, [*wrong, *_surroundings(chosen, root, here)]


def _otherwise(chosen: Profile, ask: Ask, text: str) -> list[str]:
    """Directives of the user's that ask for another time or size than the job's deadline and processes are made for."""
    asked = rules.read(chosen.site, text)
    found: list[str] = []
    if asked.seconds not in (None, ask.seconds):
        found.append(
            f"a directive asks for {asked.seconds} s and the job stops itself by {ask.seconds} s: set launch.walltime, "
            "launch.longest or launch.slack instead"
        )
    told = chosen.site.scheduler != "sge" or not chosen.site.any_queue  # slots do not say on how many nodes
    if told and asked.nodes != ask.nodes:
        found.append(f"a directive asks for {asked.nodes} nodes and the job is made for {ask.nodes}")
    return found


def _surroundings(chosen: Profile, root: Path, here: bool) -> list[str]:
    """What is wrong with the place where the jobs start: its path, its data, its image, its interpreter."""
    found: list[str] = []
    if odd := sorted(set(re.findall(r"[\s%:,]", str(root)))):
        found.append(
            f"the path of this work tree, {root}, holds {' '.join(map(repr, odd))}, which schedulers read otherwise: "
            "move it to a path without"
        )
    if chosen.stage_data and not (root / chosen.data).is_dir():
        found.append(
            f"launch.stage_data=true, and there is no folder {chosen.data} to copy: point RETHESIS_DATA to the data, "
            "or leave the switch out where a study needs none"
        )
    if chosen.image:
        found += _image(chosen, root, here)
    elif chosen.site.machine not in ("", platform.machine()) and not chosen.python:
        found.append(
            f"the nodes of {chosen.site.title} are {chosen.site.machine} and this is {platform.machine()}: name an "
            "interpreter that was set up on a node, launch.python=<clone>/.venv/bin/python, or an image, launch.image"
        )
    return found


def _image(chosen: Profile, root: Path, here: bool) -> list[str]:
    """What is wrong with the image; where its program is not installed, an offline check cannot compare packages."""
    from common.container.build import require_same_lock
    from common.container.table import images

    path = root / chosen.image
    if not path.is_file():
        return [f"launch.image={chosen.image} is not there; make container SITE=<site> builds it"]
    name, known = path.stem.rpartition("-")[0], images(root)
    if name not in known:
        return [
            f"launch.image={chosen.image} is not named like an image of `make container`, such as "
            f"{next(iter(known))}-<commit>.sif: its packages cannot be compared with the lock"
        ]
    if not here and shutil.which(chosen.runtime) is None:
        print(
            f"note: without {chosen.runtime} here the packages of {chosen.image} are not compared with the lock."
        )
        return []
    try:
        require_same_lock(path, known[name], chosen.runtime, root)
    except BadInputError as error:
        return [f"launch.image={chosen.image}: {error}"]
    return []


def _row(pack: Pack, chosen: Profile, text: str) -> Row:
    ask = pack.ask
    assert ask is not None
    minutes = max(task.minutes for task in pack.tasks)
    links = max(1, math.ceil(minutes * 60 / max(1, ask.seconds - chosen.margin)))
    return Row(
        stage=pack.stage,
        one=choose(chosen, ask).name,
        nodes=ask.nodes,
        processes=ask.world * ask.pack,
        seconds=ask.seconds,
        links=links,
        hours=links * rules.node_hours(chosen.site, text),
    )


def _print(rows: Sequence[Row], chosen: Profile) -> None:
    site = chosen.site
    print(f"{site.title} ({site.scheduler}): {site.proof}.")
    when = f" (checked: {site.checked})" if site.checked else ""
    print(f"limits: {site.source or 'none are known here; the site decides'}{when}.")
    head = ("stage", "class", "jobs", "nodes", "procs", "walltime", "links", "unit-hours", "points")
    print(COLUMNS.format(*head))
    prices = {row.one: chosen.points.get(row.one) for row in rows}
    for row, number in Counter(rows).items():
        hours, price = number * row.hours, prices[row.one]
        cost = "?" if price is None else f"{price * hours:.1f}"
        sizes = (row.nodes, row.processes, clock(row.seconds), row.links, f"{hours:.1f}", cost)
        print(COLUMNS.format(row.stage, row.one or "-", number, *sizes))
    links = max((row.links for row in rows), default=1)
    if links - 1 > chosen.retries:
        print(
            f"note: up to {links} jobs follow each other, and launch.retries={chosen.retries} allows "
            f"{chosen.retries + 1}; the same command continues what is left."
        )
    total = sum(row.hours for row in rows)
    unknown = sorted(one for one, price in prices.items() if price is None)
    cost = f"{sum(row.hours * (prices[row.one] or 0) for row in rows):.1f} points"
    if unknown:
        cost = f"points: give the site's price per unit and hour ({_price_keys(unknown, chosen)})"
    print(f"{len(rows)} jobs, at most {total:.1f} unit-hours if each runs to its limit; {cost}")


def _price_keys(names: Sequence[str], chosen: Profile) -> str:
    """The overrides that set prices; only a key that exists can be set alone."""
    keys = [f"launch.points.{one}=<price>" for one in names if one in chosen.points]
    new = ",".join(f"{one}:<price>" for one in names if one and one not in chosen.points)
    return " ".join([*keys, *([f"launch.points={{{new}}}"] if new else [])]) or "launch.points"
