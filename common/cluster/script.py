"""The job script: the site's directives, then one body for all sites.

Who pays is no part of it: the account is an option of the submit command, so that a script can be shown to anybody.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cluster.profile import Profile, clock
from common.cluster.sites import NodeClass, node_class
from common.container import inside
from common.errors import BadInputError

SIGNAL_EARLY = 60  # seconds that Slurm may send a signal before the time that it was asked for


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


def choose(profile: Profile, ask: Ask) -> NodeClass:
    """The profile's node class, or the first of the site's that the job fits in.

    Raises:
        BadInputError: the job fits in none.
    """
    if profile.node_class:
        return node_class(profile.site, profile.node_class)
    for one in profile.site.classes:
        if not misfits(one, ask):
            return one
    reasons = "; ".join(
        f"{one.name or 'default'}: {', '.join(misfits(one, ask))}" for one in profile.site.classes
    )
    raise BadInputError(f"{ask.name} fits in no node class of {profile.site.title}: {reasons}.")


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


def render(
    profile: Profile, ask: Ask, programs: Sequence[Sequence[str]], root: Path, logs: Sequence[Path]
) -> str:
    """The job script.

    Args:
        profile: the launch profile.
        ask: what the job asks for.
        programs: one command a program; several run side by side on one node.
        root: the repository's root, the working directory.
        logs: one file a program; output is appended.
    """
    header = {"slurm": _slurm, "pbs": _pbs, "sge": _sge, "pjm": _pjm}[profile.site.scheduler]
    prefix = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "pjm": "#PJM"}[profile.site.scheduler]
    one = choose(profile, ask)
    directives = [*header(profile, ask, one, logs[0]), *profile.site.directives, *profile.directives]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"{prefix} {line}" for line in directives),
            "",
            *_body(profile, ask, programs, root, logs),
            "",
        ]
    )


def _body(
    profile: Profile, ask: Ask, programs: Sequence[Sequence[str]], root: Path, logs: Sequence[Path]
) -> list[str]:
    commands = [
        f"{shlex.join(_launched(profile, ask, command, root))} >>{shlex.quote(str(log))} 2>&1"
        for command, log in zip(programs, logs, strict=True)
    ]
    lines = [
        f"cd {shlex.quote(str(root))} || exit 1",
        f"export RETHESIS_DEADLINE=$(($(date +%s) + {ask.seconds})) RETHESIS_MARGIN={profile.margin}",
        f"export OMP_NUM_THREADS={ask.threads} PYTHONUNBUFFERED=1",
        f"export RETHESIS_DATA={shlex.quote(str(root / profile.data))}",
        *profile.setup,
    ]
    if ask.world > 1:
        lines.append("export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + $$ % 20000))")
    if profile.stage_data:
        lines += _staging(profile, ask)
    if profile.image:  # the data may lie outside the work tree, on the node's own disk
        lines.append('[ ! -d "$RETHESIS_DATA" ] || export {APPTAINER,SINGULARITY}_BIND="$RETHESIS_DATA"')
    if profile.site.scheduler == "pjm":
        # Its signal at the limit goes to every process of the job, and those that do not know it die.
        commands = [f"(trap '' XCPU; exec {command})" for command in commands]
        lines.append("trap 'kill -TERM $(jobs -p) 2>/dev/null' XCPU")
    elif len(commands) == 1:
        return [*lines, f"exec {commands[0]}"]
    return [
        *lines,
        *(f"trap 'kill -{name} $(jobs -p) 2>/dev/null' {name}" for name in ("USR1", "TERM")),
        *(f"{command} &" for command in commands),
        'while [ -n "$(jobs -rp)" ]; do wait; done',
    ]


def _launched(profile: Profile, ask: Ask, command: Sequence[str], root: Path) -> list[str]:
    if profile.image:
        gpu = {"cuda": "--nv", "rocm": "--rocm"}.get(profile.devices, "")
        image = root / profile.image
        command = inside(image, command, ask.gpus > 0, runtime=profile.runtime, gpu=gpu, root=root)
    if ask.world == 1:
        return [*command]
    passed = [
        "MASTER_ADDR",
        "MASTER_PORT",
        "RETHESIS_DEADLINE",
        "RETHESIS_MARGIN",
        "OMP_NUM_THREADS",
        "RETHESIS_DATA",
    ]
    number, each = str(ask.world), str(ask.processes)
    exported = [word for name in passed for word in ("-x", name)]
    starters = {
        "srun": ["srun", "--kill-on-bad-exit=1", "-n", number, f"--ntasks-per-node={each}"],
        "mpirun": ["mpirun", "-n", number, "--map-by", f"ppr:{each}:node", *exported],
        "mpiexec": ["mpiexec", "-n", number, "-ppn", each],
    }  # fmt: skip
    if profile.site.scheduler == "pjm":  # processes per node are a directive there
        starters["mpiexec"] = ["mpiexec", "-n", number]
    return [*starters[profile.site.launcher], *command]


def _staging(profile: Profile, ask: Ask) -> list[str]:
    """Copy the data to every node's own disk, once a node, whole or not at all."""
    local = f"${{{profile.site.scratch}:-/tmp}}/rethesis-data"
    copy = f'rm -rf "{local}" && mkdir -p "{local}" && cp -r "$RETHESIS_DATA/." "{local}"'
    if ask.nodes > 1 and profile.site.scheduler == "pjm":
        # Its mpiexec places processes by the directives alone: all of a node come, the first one copies.
        there = f'"{local}.$PJM_JOBID"'
        copy = f'exec 9>"{local}.lock" && flock 9 && {{ [ -e {there} ] || {{ {copy} && touch {there}; }}; }}'
        copy = f"mpiexec -n {ask.world} bash -c {shlex.quote(copy)}"
    elif ask.nodes > 1:
        number = str(ask.nodes)
        starter = {
            "srun": f"srun -n {number} --ntasks-per-node=1",
            "mpirun": f"mpirun -n {number} --map-by ppr:1:node",
            "mpiexec": f"mpiexec -n {number} -ppn 1",
        }[profile.site.launcher]
        copy = f"{starter} bash -c {shlex.quote(copy)}"
    return [f"{copy} || exit 1", f'export RETHESIS_DATA="{local}"']


def _slurm(profile: Profile, ask: Ask, one: NodeClass, log: Path) -> list[str]:
    early = max(1, profile.margin - SIGNAL_EARLY)  # the deadline comes first; the signal is for preemption
    to_shell = "B:" if ask.world == 1 else ""
    return [
        f"--job-name={ask.name}",
        *([f"--partition={one.name}"] if one.name else []),
        f"--nodes={ask.nodes}",
        f"--ntasks-per-node={ask.processes}",
        f"--cpus-per-task={ask.threads * ask.pack}",
        *([f"--gpus-per-node={ask.gpus}"] if ask.gpus else []),
        *(["--exclusive"] if one.whole else [f"--mem={round(ask.memory_gb * 1000)}M"]),
        f"--time={clock(ask.seconds)}",
        f"--signal={to_shell}USR1@{early}",
        f"--output={log}",
        "--open-mode=append",
        "--requeue",
    ]


def _pbs(profile: Profile, ask: Ask, one: NodeClass, log: Path) -> list[str]:
    chunk = f"select={ask.nodes}"
    if not profile.site.fixed_cores:
        chunk += f":ncpus={ask.cores}:mem={round(ask.memory_gb * 1000)}mb"
        chunk += f":ngpus={ask.gpus}" if ask.gpus else ""
    # Left out, mpiprocs is 1, and the node file then has one slot a node.
    chunk += f":mpiprocs={ask.processes}:ompthreads={ask.threads}"
    return [
        f"-N {ask.name[:15]}",
        *([f"-q {one.name}"] if one.name else []),
        f"-l {chunk}",
        *(["-l place=scatter"] if ask.nodes > 1 and not profile.site.directives else []),
        f"-l walltime={clock(ask.seconds)}",
        *([f"-l filesystems={profile.site.filesystems}"] if profile.site.filesystems else []),
        "-j oe",
        f"-o {_scheduler_log(log)}",
        "-m n",
        "-r y",
        "-S /bin/bash",
    ]


def _sge(profile: Profile, ask: Ask, one: NodeClass, log: Path) -> list[str]:
    shape = [f"-l {one.name}={ask.nodes}"] if one.name else []
    if not one.name and ask.nodes * ask.cores > 1:
        shape = [f"-pe {profile.parallel_environment} {ask.nodes * ask.cores}"]
    soft = [] if profile.site.fixed_cores else [f"-l s_rt={clock(max(1, ask.seconds - profile.margin))}"]
    return [
        f"-N {ask.name}",
        *shape,
        f"-l h_rt={clock(ask.seconds)}",
        *soft,
        "-j y",
        f"-o {log}",
        "-r y",
        "-S /bin/bash",
    ]


def _pjm(profile: Profile, ask: Ask, one: NodeClass, log: Path) -> list[str]:
    return [
        f"-N {ask.name}",
        f"-L rscgrp={one.name}",
        f"-L node={ask.nodes}",
        f"-L elapse={clock(ask.seconds)}",
        # Without a total PJM_MPI_PROC, from which the ranks know how many they are, is not defined.
        f"--mpi proc={ask.world},max-proc-per-node={ask.processes}",
        "-j",
        f"-o {_scheduler_log(log)}",
    ]


def _scheduler_log(log: Path) -> Path:
    """For a scheduler that writes what it says itself when the job ends, over what was there."""
    return log.with_suffix(".scheduler")
