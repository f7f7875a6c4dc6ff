"""Machines as one table: node classes, limits, who pays, how one job on many nodes is started.

Limits are quoted from the source that stands beside them, as of `checked`; a site's own page decides. `proof` says
how far a row was tried by us, and nothing more than that may be said of it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from common.errors import BadInputError, unknown

Scheduler = Literal["slurm", "pbs", "sge", "pjm"]
NEVER = "never run by us: the scripts are rendered and checked offline only"


@dataclass(frozen=True)
class NodeClass:
    """What a site hands out as one unit: a queue, partition or resource type. None: not known, not checked.

    Attributes:
        name: as the scheduler calls it; empty for the scheduler's default.
        cores: CPU cores of one unit.
        gpus: devices of one unit.
        memory_gb: of one unit.
        nodes: units that one job may take at most, and at least.
        hours: longest walltime.
        whole: a unit is a whole node, which nobody else uses.
    """

    name: str
    cores: int | None = None
    gpus: int | None = None
    memory_gb: float | None = None
    nodes: tuple[int, int | None] = (1, None)
    hours: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Site:
    """One machine.

    Attributes:
        name: LAUNCH=<name>.
        title: what it is.
        scheduler: the family of commands.
        classes: smallest first; a job goes to the first that it fits. One without a name: the scheduler's default,
            at a site whose queues are not known here.
        account: the option that names who pays, such as ``-P``; empty when the site has none.
        account_needed: submission without one is refused.
        trial_minutes: without an account a job may run so long (0: not at all).
        launcher: what starts one job's processes on all nodes.
        source: where the limits are from.
        checked: when they were read there.
        proof: how far we tried it.
        retired: when and why it is gone; such a site refuses everything.
        unfinished: a user's jobs in the queue, running included, at most.
        node_hours: of one job at most.
        shortest: seconds of walltime at least.
        fixed_cores: the class decides the cores of a job, and asking for them is refused.
        filesystems: the file systems that a job must name, joined by colons (Aurora).
        scratch: variable with the node-local folder.
        directives: lines that every job of the site carries.
        volume: how the path of a volume begins, and the option that a job has to name it by (Fugaku).
        machine: architecture of the nodes, where login nodes have another.
    """

    name: str
    title: str
    scheduler: Scheduler
    classes: tuple[NodeClass, ...]
    account: str = ""
    account_needed: bool = False
    trial_minutes: float = 0.0
    launcher: Literal["srun", "mpirun", "mpiexec"] = "mpirun"
    source: str = ""
    checked: str = ""
    proof: str = NEVER
    retired: str = ""
    unfinished: int | None = None
    node_hours: float | None = None
    shortest: int = 0
    fixed_cores: bool = False
    filesystems: str = ""
    scratch: str = "TMPDIR"
    directives: tuple[str, ...] = ()
    volume: tuple[str, str] | None = None
    machine: str = ""

    @property
    def any_queue(self) -> bool:
        """Whether its queues are not known here: every name is taken, and nothing of it is checked."""
        return [one.name for one in self.classes] == [""]


def find_class(site: Site, name: str) -> NodeClass | None:
    """The class of that name, if the site may have one."""
    if site.any_queue:
        return replace(site.classes[0], name=name)
    return next((one for one in site.classes if one.name == name), None)


def node_class(site: Site, name: str) -> NodeClass:
    """The class of that name.

    Raises:
        BadInputError: the site has none.
    """
    one = find_class(site, name)
    if one is None:
        raise unknown(f"node class of {site.name}", name, (one.name for one in site.classes))
    return one


def site(name: str) -> Site:
    """The row of that name.

    Raises:
        BadInputError: there is none, or the machine is retired.
    """
    if name not in SITES:
        raise unknown("site", name, (row.name for row in SITES.values() if not row.retired))
    row = SITES[name]
    if row.retired:
        raise BadInputError(f"{row.title} is retired ({row.retired}): nothing can be submitted there.")
    return row


_ROWS = (
    Site(
        "abci3", "ABCI 3.0", "pbs",
        classes=(
            NodeClass("rt_HC", 32, 0, 320, (1, 1), 168),
            NodeClass("rt_HG", 16, 1, 160, (1, 1), 168),
            NodeClass("rt_HF", 192, 8, 1920, (1, 128), 168, whole=True),
        ),
        account="-P", account_needed=True, unfinished=1000, node_hours=21504, fixed_cores=True,
        scratch="PBS_LOCALDIR",
        source="ABCI 3.0 user guide, Job Execution (Spot service)", checked="2026-11-28",
        proof="emulated: on a stub and on a real OpenPBS of two nodes, both with ABCI's rules; never run by us on ABCI",
    ),
    Site(
        "tsubame4", "TSUBAME4.0", "sge",
        classes=(
            NodeClass("cpu_4", 4, 0, 9.2, hours=24, nodes=(1, 1)),
            NodeClass("cpu_8", 8, 0, 18.4, hours=24, nodes=(1, 1)),
            NodeClass("cpu_16", 16, 0, 36.8, hours=24, nodes=(1, 1)),
            NodeClass("gpu_1", 8, 1, 96, hours=24, nodes=(1, 1)),
            NodeClass("cpu_40", 40, 0, 92, hours=24, nodes=(1, 1)),
            NodeClass("node_q", 48, 1, 192, hours=24),
            NodeClass("cpu_80", 80, 0, 184, hours=24, nodes=(1, 1)),
            NodeClass("node_h", 96, 2, 384, hours=24),
            NodeClass("cpu_160", 160, 0, 368, hours=24, nodes=(1, 1)),
            NodeClass("node_f", 192, 4, 768, hours=24, whole=True),
        ),
        account="-g", account_needed=True, trial_minutes=10, fixed_cores=True,
        source="TSUBAME4.0 user guide and FAQ (trial: ten minutes; h_rt is mandatory); cores and memory as first "
        "published, not read again; node_o and gpu_h, half a device each, are left out", checked="2026-11-28",
        proof="emulated: on a real Grid Engine with consumable node types; never run by us on TSUBAME",
    ),
    Site(
        "slurm", "any Slurm cluster", "slurm", classes=(NodeClass(""),), account="--account", launcher="srun",
        proof="run on a real Slurm of two virtual nodes",
    ),
    Site(
        "pbs", "any PBS Professional or OpenPBS cluster", "pbs", classes=(NodeClass(""),), account="-A",
        proof="run, with ABCI's profile, on a stub that parses directives and on a real OpenPBS of two nodes",
    ),
    Site(
        "sge", "any Grid Engine cluster", "sge", classes=(NodeClass(""),), account="-P",
        proof="run on a real Grid Engine of one node",
    ),
    Site(
        "fugaku", "Fugaku", "pjm",
        classes=(
            NodeClass("small", 48, 0, 28, (1, 384), 72, whole=True),
            NodeClass("large", 48, 0, 28, (385, 12288), 24, whole=True),
        ),
        account="-g", account_needed=True, launcher="mpiexec", scratch="PJM_LOCALTMP", shortest=60,
        volume=(r"/vol\d{4}", "-x PJM_LLIO_GFSCACHE="), machine="aarch64",
        source="Fugaku user guide, Use and job execution 1.52, 5.1.3; `pjacl --rg small` decides for your group; of a "
        "node's 32 GB some 4 are counted for the system",
        checked="2026-11-28",
        proof="emulated: on a stub of PJM with these limits, written after its manuals; never run by us on Fugaku",
    ),
    Site(
        "lumi", "LUMI", "slurm",
        classes=(
            NodeClass("small", 128, 0, 256, (1, 4), 72),
            NodeClass("small-g", 56, 8, 480, (1, 4), 72),
            NodeClass("standard", 128, 0, 256, (1, 512), 48, whole=True),
            NodeClass("standard-g", 56, 8, 480, (1, 1024), 48, whole=True),
        ),
        account="--account", account_needed=True, launcher="srun", unfinished=210,
        source="LUMI user guide, Slurm partitions", checked="2026-11-28",
    ),
    Site(
        "frontier", "Frontier", "slurm",
        classes=(NodeClass("batch", 56, 8, 512, (1, 9402), 24, whole=True),),
        account="-A", account_needed=True, launcher="srun",
        source="Frontier user guide; the walltime limit falls with the number of nodes (under 92 nodes: 2 h), which is "
        "not checked here", checked="not read again",
    ),
    Site(
        "aurora", "Aurora", "pbs",
        classes=(
            NodeClass("debug", 102, 12, 1024, (1, 2), 1, whole=True),
            NodeClass("prod", 102, 12, 1024, (1, 7300), 24, whole=True),
        ),
        account="-A", account_needed=True, launcher="mpiexec", filesystems="home:flare", fixed_cores=True,
        unfinished=100,
        source="ALCF user guide, Running Jobs on Aurora (up to 512 nodes: 6 h, 1024: 12 h, 1919: 18 h)",
        checked="2026-11-28", directives=("-l place=scatter",),
    ),
    Site("abci2", "ABCI 2.0", "sge", (), retired="job service ended on 2024-10-31; ABCI 3.0 is abci3"),
    Site("summit", "Summit", "slurm", (), retired="decommissioned in November 2024"),
)  # fmt: skip
SITES = {row.name: row for row in _ROWS}
