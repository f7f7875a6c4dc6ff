"""A real Slurm of two virtual nodes on this host, in a private folder: Debian's daemons, no systemd, no cgroups."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing() -> str:
    """Why no Slurm can be started here, or nothing."""
    absent = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"
    return "" if os.geteuid() == 0 else "slurmd for several users starts as root only"


@dataclass
class Slurm:
    """Started by ``start``; every command gets ``environment``.

    The limits are short: a job over its time gets SIGTERM, and SIGKILL two seconds later.
    """

    root: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": PATH}

    def start(self) -> None:
        for name in ("state", "log", "spool/n1", "spool/n2"):
            (self.root / name).mkdir(parents=True)
        key = self.root / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        for path, mode in ((key, 0o400), (self.root, 0o755)):
            path.chmod(mode)
        (self.root / "slurm.conf").write_text(self.configuration())
        files = {name: self.root / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        self.daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}",
            f"--pid-file={files['pid']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}",
        )  # fmt: skip
        self.wait(files["socket"].exists)
        self.controller()
        for node in ("n1", "n2"):
            self.daemon(f"slurmd-{node}", "-D", "-f", str(self.root / "slurm.conf"), "-N", node)
        self.wait(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2")

    def controller(self) -> None:
        """Start slurmctld; it finds its jobs again in `state`."""
        self.daemon("slurmctld", "-D", "-f", str(self.root / "slurm.conf"))

    def daemon(self, name: str, *arguments: str) -> None:
        command = shutil.which(name.partition("-")[0], path=PATH)
        assert command is not None
        with (self.root / "log" / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [command, *arguments], stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def end(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        self.run("scancel", "--user=root", "--quiet", check=False)
        for name in reversed(list(self.processes)):
            self.end(name)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, check=False, text=True, capture_output=True, env={**os.environ, **self.environment}, timeout=60
        )  # fmt: skip
        assert not check or done.returncode == 0 or "sinfo" in command, done.stderr
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """id -> state of what waits or runs."""
        rows = self.run("squeue", "-h", "-o", "%A %T").split("\n")
        return {words[0]: words[1] for row in rows if len(words := row.split()) == 2}

    @staticmethod
    def wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "Slurm did not come up"
            time.sleep(0.1)

    def configuration(self) -> str:
        host, base = socket.gethostname(), 21000 + os.getpid() % 20000
        d = self.root
        return "\n".join(
            [
                "ClusterName=toy", f"SlurmctldHost={host}(127.0.0.1)", "SlurmUser=root", "SlurmdUser=root",
                f"SlurmctldPort={base}", "AuthType=auth/munge", f"AuthInfo=socket={d}/munge.socket",
                "CredType=cred/munge", f"StateSaveLocation={d}/state", f"SlurmdSpoolDir={d}/spool/%n",
                f"SlurmctldPidFile={d}/slurmctld.pid", f"SlurmdPidFile={d}/slurmd.%n.pid",
                "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none",
                "JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none",
                "MpiDefault=none", "SchedulerType=sched/backfill", "SchedulerParameters=bf_interval=1,sched_interval=1",
                "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core", "ReturnToService=2", "KillWait=2",
                "InactiveLimit=0", "MinJobAge=60", "SlurmdTimeout=300",
                *(
                    f"NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={base + n} CPUs=2 State=UNKNOWN "
                    "RealMemory=8000"
                    for n in (1, 2)
                ),
                "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP", "",
            ]
        )  # fmt: skip
