"""What one job asks for, the node class that it goes to, and why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.cluster import rules
from common.cluster.profile import Profile, clock
from common.cluster.sites import NodeClass, node_class
from common.errors import BadInputError


@dataclass(frozen=True)
class Ask:
    """What one job asks for.

    Attributes:
        name: for the queue's listing.
        nodes: units of the node class.
        processes: per node, of one program that spans all of them; 1 on one node is a program of its own.
        gpus: devices per node.
        threads: per process.
        memory_gb: per node.
        seconds: walltime.
        pack: independent programs side by side on one node.
    """

    name: str
    seconds: int
    nodes: int = 1
    processes: int = 1
    gpus: int = 0
    threads: int = 1
    memory_gb: float = 2.0
    pack: int = 1

    @property
    def world(self) -> int:
        """Processes of the one program."""
        return self.nodes * self.processes

    @property
    def cores(self) -> int:
        """CPU cores per node."""
        return self.processes * self.threads * self.pack


def classes(profile: Profile) -> Sequence[NodeClass]:
    """The node classes that the profile's jobs may go to: the one that it names, else all of the site's.

    Directives come before `node_class`: on ABCI they name class and reservation together.

    Raises:
        BadInputError: the site has no class of that name.
    """
    name = rules.requests(profile.site, profile.directives).node_class or profile.node_class
    return [node_class(profile.site, name)] if name else profile.site.classes


def choose(profile: Profile, ask: Ask) -> NodeClass:
    """The first of the profile's node classes that the job fits in.

    Raises:
        BadInputError: the job fits in none.
    """
    found = classes(profile)
    for one in found:
        if not misfits(one, ask):
            return one
    title, reasons = profile.site.title, {one.name: ", ".join(misfits(one, ask)) for one in found}
    if len(found) == 1:
        raise BadInputError(f"the job does not fit in {found[0].name} of {title}: {reasons[found[0].name]}.")
    listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise BadInputError(f"the job fits in no node class of {title}: {listed}.")


def impossible(profile: Profile, ask: Ask) -> list[str]:
    """What a job needs and its script cannot say, and times that leave it nothing to run in."""
    found: list[str] = []
    words = " ".join((profile.node_class, *profile.directives))
    nameless = profile.site.scheduler == "sge" and profile.site.any_queue
    if ask.gpus and nameless and not re.search("gpu|cuda", words, re.IGNORECASE):
        found.append(
            f"{ask.gpus} devices a node, for which each Grid Engine has its own word: add your site's, such as "
            f'launch.directives=["-l gpu={ask.gpus}"]'
        )
    if ask.seconds <= profile.margin:
        found.append(
            f"walltime {clock(ask.seconds)} is not longer than launch.margin={profile.margin} s: each job would stop "
            "as soon as it starts"
        )
    return found


def misfits(one: NodeClass, ask: Ask) -> list[str]:
    """Why a job does not fit in a node class."""
    least, most = one.nodes
    found: list[str] = []
    if one.cores is not None and ask.cores > one.cores:
        found.append(f"{ask.cores} cores of {one.cores}")
    if one.gpus is not None and ask.gpus > one.gpus:
        found.append(f"{ask.gpus} devices of {one.gpus}")
    if one.memory_gb is not None and ask.memory_gb > one.memory_gb:
        found.append(f"{ask.memory_gb:g} GB of {one.memory_gb:g}")
    if ask.nodes < least or (most is not None and ask.nodes > most):
        found.append(f"{ask.nodes} nodes, where {least} to {most or 'any number'} are allowed")
    if one.hours is not None and ask.seconds > one.hours * 3600:
        found.append(f"{clock(ask.seconds)} of {one.hours:g} h")
    return found
