"""The job script: the site's directives, then one body for all sites.

Who pays is no part of it: the account is an option of the submit command, so that a script can be shown to anybody.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.cluster import rules
from common.cluster.ask import Ask, choose
from common.cluster.profile import Profile, clock
from common.cluster.sites import NodeClass
from common.container import inside

SIGNAL_EARLY = 60  # seconds that Slurm may send a signal before the time that it was asked for
JOB_ID = {"slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID", "sge": "JOB_ID", "pjm": "PJM_JOBID"}
# What mpirun is told to pass on to the other nodes; the second where an image is to see the data.
PASSED = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "RETHESIS_DEADLINE",
    "RETHESIS_MARGIN",
    "OMP_NUM_THREADS",
    "RETHESIS_DATA",
    "PATH",
)
# And what modules set, where they did: mpirun warns of a variable that is not there.
FOUND = "${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH}"
BINDS = "${APPTAINER_BIND:+-x APPTAINER_BIND -x SINGULARITY_BIND}"


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

    Raises:
        BadInputError: the job fits in no node class, or not in the one that was named.
    """
    header = {"slurm": _slurm, "pbs": _pbs, "sge": _sge, "pjm": _pjm}[profile.site.scheduler]
    prefix = rules.PREFIX[profile.site.scheduler]
    one = choose(profile, ask)
    directives = [*header(profile, ask, one, logs[0]), *profile.site.directives, *profile.directives]
    if profile.site.volume and (volume := re.match(profile.site.volume[0], str(root))):
        directives.append(f"{profile.site.volume[1]}{volume[0]}")  # without it nodes do not see the volume
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
        f"{_launched(profile, ask, command, root)} >>{shlex.quote(str(log))} 2>&1"
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
    cleared = profile.stage_data and profile.site.scheduler == "slurm"
    if profile.stage_data:
        lines += _staging(profile, ask, cleared)
    if profile.image:  # the data may lie outside the work tree, on the node's own disk
        kept = (
            f'{name}="${{{name}:+${name},}}$RETHESIS_DATA"' for name in ("APPTAINER_BIND", "SINGULARITY_BIND")
        )
        lines.append(f'[ ! -d "$RETHESIS_DATA" ] || export {" ".join(kept)}')
    if profile.site.scheduler == "pjm":
        # Its signal at the limit goes to every process of the job, and those that do not know it die.
        commands = [f"(trap '' XCPU; exec {command})" for command in commands]
        lines.append("trap 'kill -TERM $(jobs -p) 2>/dev/null' XCPU")
    elif len(commands) == 1 and not cleared:
        return [*lines, f"exec {commands[0]}"]
    return [
        *lines,
        *(f"trap 'kill -{name} $(jobs -p) 2>/dev/null' {name}" for name in ("USR1", "TERM")),
        *(f"{command} &" for command in commands),
        'while [ -n "$(jobs -rp)" ]; do wait; done',
    ]


def _launched(profile: Profile, ask: Ask, command: Sequence[str], root: Path) -> str:
    """The words that start a program, on all its nodes."""
    if profile.image:
        gpu = {"cuda": "--nv", "rocm": "--rocm"}.get(profile.devices, "")
        image = root / profile.image
        command = inside(image, command, ask.gpus > 0, runtime=profile.runtime, gpu=gpu, root=root)
    if ask.world == 1:
        return shlex.join(command)
    found = [FOUND, *([BINDS] if profile.image else [])] if profile.site.launcher == "mpirun" else []
    starter = _starter(profile, ask, ask.processes, (*PASSED, *profile.passed))
    return " ".join([starter, *found, shlex.join(command)])


def _starter(profile: Profile, ask: Ask, each: int, passed: Sequence[str]) -> str:
    """The words that start `each` processes a node; of the environment mpirun passes on what it is told alone."""
    number, site = ask.nodes * each, profile.site
    if site.launcher == "srun":  # since 22.05 it does not know the job's cores a task by itself
        shape = f"--ntasks-per-node={each} --cpus-per-task={ask.threads}"
        return f"srun --kill-on-bad-exit=1 -n {number} {shape}"
    if site.launcher == "mpiexec":
        per_node = "" if site.scheduler == "pjm" else f" -ppn {each}"  # a directive there
        return f"mpiexec -n {number}{per_node}"
    hosts = ' -hostfile "$PBS_NODEFILE"' if site.scheduler == "pbs" else ""
    exported = "".join(f" -x {name}" for name in passed)
    # By default two ranks are bound to a core each, and all threads of a rank share it.
    return f"mpirun -n {number} --map-by ppr:{each}:node --bind-to none{hosts}{exported}"


def _staging(profile: Profile, ask: Ask, cleared: bool) -> list[str]:
    """Copy the data to every node's own disk, once a node, whole or not at all.

    The folder has the job's id, since jobs may share a node, and its path is made here, once for all nodes. With
    `cleared` it is removed at the end: Slurm, unlike the others, need not empty a job's scratch folder itself.
    """
    local, there = '"$RETHESIS_LOCAL"', '"$RETHESIS_LOCAL.whole"'
    path = f"${{{profile.site.scratch}:-/tmp}}/rethesis-data-${{{JOB_ID[profile.site.scheduler]}:?}}"
    copy = f'rm -rf "${{RETHESIS_LOCAL:?}}" && mkdir -p {local} && cp -r "${{RETHESIS_DATA:?}}/." {local}'
    remove = f"rm -rf {local}"
    if ask.nodes > 1 and profile.site.scheduler == "pjm":
        # Its mpiexec places processes by the directives alone: all of a node come, the first one copies.
        copy = f'exec 9>"$RETHESIS_LOCAL.lock" && flock 9 && {{ [ -e {there} ] || {{ {copy} && touch {there}; }}; }}'
        copy = f"{_starter(profile, ask, ask.processes, ())} bash -c {shlex.quote(copy)}"
    elif ask.nodes > 1:
        starter = _starter(profile, ask, 1, ("RETHESIS_DATA", "RETHESIS_LOCAL"))
        copy, remove = f"{starter} bash -c {shlex.quote(copy)}", f"{starter} {remove}"
    return [
        f'export RETHESIS_LOCAL="{path}"',
        *([f"trap {shlex.quote(remove)} EXIT"] if cleared else []),
        f"{copy} || exit 1",
        f"export RETHESIS_DATA={local}",
    ]


def _queue(profile: Profile, one: NodeClass) -> str:
    """The queue that a script names: none where the directives do (a reservation is no class)."""
    return "" if rules.requests(profile.site, profile.directives).queue else one.name


def _slurm(profile: Profile, ask: Ask, one: NodeClass, log: Path) -> list[str]:
    early = max(1, profile.margin - SIGNAL_EARLY)  # the deadline comes first; the signal is for preemption
    to_shell, queue = "B:" if ask.world == 1 else "", _queue(profile, one)
    return [
        f"--job-name={ask.name}",
        *([f"--partition={queue}"] if queue else []),
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
    chunk, queue = f"select={ask.nodes}", _queue(profile, one)
    if not profile.site.fixed_cores:
        chunk += f":ncpus={ask.cores}:mem={round(ask.memory_gb * 1000)}mb"
        chunk += f":ngpus={ask.gpus}" if ask.gpus else ""
    # Left out, mpiprocs is 1, and the node file then has one slot a node.
    chunk += f":mpiprocs={ask.processes}:ompthreads={ask.threads}"
    return [
        f"-N {ask.name[:15]}",
        *([f"-q {queue}"] if queue else []),
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
    queue, slots = _queue(profile, one), ask.nodes * ask.cores
    shape = [f"-l {queue}={ask.nodes}"] if queue else []
    if profile.site.any_queue:
        shape = [f"-q {queue}"] if queue else []
        shape += [f"-pe {profile.parallel_environment} {slots}"] if slots > 1 else []
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
    queue = _queue(profile, one)
    return [
        f"-N {ask.name}",
        *([f"-L rscgrp={queue}"] if queue else []),
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
