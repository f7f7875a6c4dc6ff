"""A site's rules, checked offline on the text of a job script, as the site's own submit command would."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from common.cluster.profile import no_account, seconds
from common.cluster.sites import NodeClass, Site, find_class
from common.errors import BadInputError

PREFIX = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "pjm": "#PJM"}
ATTACHED = ("slurm", "pbs")  # a short option's value may follow without a space: -pgpu
SLURM = {
    "--nodes": "nodes", "-N": "nodes", "--ntasks-per-node": "processes", "--cpus-per-task": "threads", "-c": "threads",
    "--gpus-per-node": "gpus",
}  # fmt: skip


@dataclass
class Directives:
    """What a script asks for, whatever its dialect. None: not said."""

    queue: str = ""
    resource: str = ""
    nodes: int = 1
    processes: int | None = None
    threads: int | None = None
    cores: int | None = None
    gpus: int | None = None
    seconds: int | None = None
    filesystems: str = ""
    unread: list[str] = field(default_factory=list[str])

    @property
    def node_class(self) -> str:
        """Name of the node class; the queue of an ABCI reservation is another thing."""
        return self.resource or self.queue


def violations(site: Site, script: str, account: str) -> list[str]:
    """What the site would refuse, or run otherwise than meant; empty when nothing is known to be wrong.

    Args:
        site: the machine.
        script: the job script's text.
        account: who pays; empty when none is given.

    Raises:
        BadInputError: a walltime cannot be read.
    """
    asked = read(site, script)
    found = [f"directive {line!r} is not one of {site.scheduler}" for line in asked.unread]
    found += who_pays(site, asked.seconds, account)
    one = find_class(site, asked.node_class)
    if one is None:
        valid = ", ".join(row.name for row in site.classes)
        return [
            *found,
            f"{asked.node_class or 'no class'} is not a node class of {site.title}; valid: {valid}",
        ]
    return [*found, *_time(site, one, asked), *_shape(site, one, asked, script)]


def node_hours(site: Site, script: str) -> float:
    """Units of the node class × hours of walltime that a script asks for."""
    asked = read(site, script)
    return asked.nodes * (asked.seconds or 0) / 3600


def read(site: Site, script: str) -> Directives:
    """The directives of a script."""
    prefix = PREFIX[site.scheduler]
    lines = (line for line in script.splitlines() if line.startswith(f"{prefix} "))
    return requests(site, (line.removeprefix(prefix).strip() for line in lines))


def requests(site: Site, lines: Iterable[str]) -> Directives:
    """What directives, each without its prefix, ask for.

    Raises:
        BadInputError: a number or a walltime cannot be read.
    """
    asked = Directives()
    reader = {"slurm": _slurm, "pbs": _pbs, "sge": _sge, "pjm": _pjm}[site.scheduler]
    for line in lines:
        options = _options(line, site.scheduler in ATTACHED)
        if not options or not options[0][0].startswith("-"):
            asked.unread.append(line)
            continue
        for option, value in options:
            reader(asked, option, value, site)
    return asked


def who_pays(site: Site, walltime: int | None, account: str) -> list[str]:
    """That an account is missing, where the site refuses a job of so long a walltime without one."""
    if account or not site.account_needed:
        return []
    if site.trial_minutes and walltime is not None and walltime <= site.trial_minutes * 60:
        return []
    return [no_account(site)]


def _time(site: Site, one: NodeClass, asked: Directives) -> list[str]:
    if asked.seconds is None:
        return ["no walltime is asked for: the site's default would end the job early"]
    found: list[str] = []
    if one.hours is not None and asked.seconds > one.hours * 3600:
        found.append(f"walltime {asked.seconds / 3600:g} h is over the limit of {one.name}, {one.hours:g} h")
    if asked.seconds < site.shortest:
        found.append(f"walltime {asked.seconds} s is under what {site.title} takes, {site.shortest} s")
    total = asked.nodes * asked.seconds / 3600
    if site.node_hours is not None and asked.nodes > 1 and total > site.node_hours:
        found.append(f"{total:g} node-hours are over the limit of {site.node_hours:g} for one job")
    return found


def _shape(site: Site, one: NodeClass, asked: Directives, script: str) -> list[str]:
    found: list[str] = []
    least, most = one.nodes
    if asked.nodes > 1 and most == 1:
        found.append(f"{asked.nodes} nodes of {one.name}, which is for one node")
    elif asked.nodes < least or (most is not None and asked.nodes > most):
        found.append(f"{asked.nodes} nodes of {one.name}, which takes {least} to {most or 'any number'}")
    if site.scheduler == "pbs":
        if site.fixed_cores and (asked.cores is not None or asked.gpus is not None):
            found.append(f"ncpus and ngpus are fixed by {one.name}; leave them out of select")
        if asked.processes is None:
            found.append("mpiprocs is left at its default, 1: the node file would have one slot a node")
    if site.filesystems and not asked.filesystems:
        found.append(f"filesystems is missing: add -l filesystems={site.filesystems}")
    if one.cores is not None and (asked.processes or 1) * (asked.threads or 1) > one.cores:
        found.append(
            f"{asked.processes or 1} processes of {asked.threads or 1} threads, "
            f"and {one.name} has {one.cores} cores"
        )
    return [*found, *_processes(one, asked, script)]


def _processes(one: NodeClass, asked: Directives, script: str) -> list[str]:
    """Processes that the script starts against those that it asked for, and against the devices."""
    # A program's line ends in its log; that is not so of the line that copies the data.
    starter = r"^(?:.*; )?(?:exec )?(?:srun|mpirun|mpiexec) .*?-n (\d+) .*>>"
    started = re.search(starter, script, re.MULTILINE)
    if started is None:
        return []
    world, found = int(started.group(1)), list[str]()
    if asked.processes is not None and world != asked.nodes * asked.processes:
        found.append(f"{world} processes are started, and {asked.nodes} x {asked.processes} were asked for")
    devices = one.gpus if asked.gpus is None else asked.gpus
    if devices and world != asked.nodes * devices:
        found.append(f"{world} processes do not match {asked.nodes} x {devices} devices")
    return found


def _options(line: str, attached: bool) -> list[tuple[str, str]]:
    """The options of a line with their values, empty where there is none; nothing if the line cannot be read."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quotation mark
        return []
    found: list[tuple[str, str]] = []
    while words:
        option, sign, value = words.pop(0), "", ""
        if option.startswith("--"):
            option, sign, value = option.partition("=")
        elif attached and option.startswith("-") and len(option) > 2:
            option, sign, value = option[:2], "=", option[2:]
        if not sign and words and not words[0].startswith("-"):
            value = words.pop(0)
        found.append((option, value))
    return found


def _slurm(asked: Directives, option: str, value: str, site: Site) -> None:
    if option in ("--partition", "-p"):
        asked.queue = value
    elif option in SLURM:
        number = value.rpartition(":")[2] if option == "--gpus-per-node" else value  # TYPE:NUMBER
        setattr(asked, SLURM[option], _number(number, f"{option}={value}"))
    elif option in ("--time", "-t"):
        asked.seconds = seconds(value)


def _pbs(asked: Directives, option: str, value: str, site: Site) -> None:
    if option == "-q":
        asked.queue = value
    elif option == "-v":  # ABCI: in a reservation, whose name is the queue's, it names the class
        variables = (item.partition("=") for item in value.split(","))
        asked.resource = next((given for name, _, given in variables if name == "RTYPE"), asked.resource)
    elif option == "-l":
        for item in value.split(","):
            key, _, given = item.partition("=")
            if key == "select":
                _select(asked, given)
            elif key == "walltime":
                asked.seconds = seconds(given)
            elif key == "filesystems":
                asked.filesystems = given


def _select(asked: Directives, text: str) -> None:
    asked.nodes = 0
    keys = {"mpiprocs": "processes", "ompthreads": "threads", "ncpus": "cores", "ngpus": "gpus"}
    for chunk in text.split("+"):
        first, *rest = chunk.split(":")
        asked.nodes += int(first) if first.isdigit() else 1
        for item in rest if first.isdigit() else [first, *rest]:
            key, _, value = item.partition("=")
            if key in keys:
                setattr(asked, keys[key], _number(value, item))


def _sge(asked: Directives, option: str, value: str, site: Site) -> None:
    if option == "-q" and site.any_queue:
        asked.queue = value
    elif option == "-l":
        for item in value.split(","):
            key, _, given = item.partition("=")
            if key == "h_rt":
                asked.seconds = seconds(given)
            elif key and key in {row.name for row in site.classes}:
                asked.queue, asked.nodes = key, _number(given, item)


def _pjm(asked: Directives, option: str, value: str, site: Site) -> None:
    if option not in ("-L", "--rsc-list", "--mpi"):
        return
    for item in value.split(","):
        key, _, given = item.partition("=")
        if key in ("rscgrp", "rg"):
            asked.queue = given
        elif key == "node":
            asked.nodes = _product(given)
        elif key == "elapse":
            asked.seconds = seconds(given)
        elif key == "max-proc-per-node":
            asked.processes = _number(given, item)


def _product(shape: str) -> int:
    return math.prod(_number(axis, f"node={shape}") for axis in shape.partition(":")[0].split("x"))


def _number(text: str, where: str) -> int:
    if not text.isdigit():
        raise BadInputError(f"{where}: {text!r} is no number.")
    return int(text)
