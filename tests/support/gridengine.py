"""A real Grid Engine of one node on this host, in a private folder, with TSUBAME's way of asking: consumable types."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("sge_qmaster", "sge_execd")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
LIBRARY = Path("/var/lib/gridengine")
DEFAULTS = Path("/usr/share/gridengine")
TYPES = {"cpu_4": 3, "cpu_8": 2, "node_f": 2}  # units that the host has
SLOTS = 4


def missing() -> str:
    """Why no Grid Engine can be started here, or nothing."""
    absent = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install gridengine-master gridengine-exec gridengine-client"
    return "" if os.geteuid() == 0 else "the execution daemon starts as root only"


@dataclass
class GridEngine:
    """Started by ``start``; every command gets ``environment``."""

    root: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        base = 25000 + os.getpid() % 20000
        return {
            "SGE_ROOT": str(self.root / "sge"), "SGE_CELL": "default", "PATH": PATH,
            "SGE_QMASTER_PORT": str(base), "SGE_EXECD_PORT": str(base + 1), "SGE_ND": "1",
        }  # fmt: skip

    def start(self) -> None:
        sge, spool = self.root / "sge", self.root / "spool"
        shutil.copytree(LIBRARY, sge, symlinks=True)
        for name in ("qmaster/job_scripts", "execd", "spooldb"):
            (spool / name).mkdir(parents=True)
        common, host = sge / "default" / "common", socket.gethostname()
        bootstrap = (DEFAULTS / "default-bootstrap").read_text().replace("/var/spool/gridengine", str(spool))
        (common / "bootstrap").write_text(bootstrap.replace("sgeadmin", "root"))
        (common / "act_qmaster").write_text(f"{host}\n")
        (common / "host_aliases").write_text(f"{host} localhost\n")
        configuration = (
            (DEFAULTS / "default-configuration").read_text().replace("/var/spool/gridengine", str(spool))
        )
        lines = [line for line in configuration.splitlines() if not line.startswith(("min_uid", "min_gid"))]
        base = self.root / "configuration"
        base.write_text("\n".join([*lines, "min_uid 0", "min_gid 0", ""]))
        for tool, *arguments in (
            ("spoolinit", "berkeleydb", "libspoolb", str(spool / "spooldb"), "init"),
            ("spooldefaults", "configuration", str(base)),
            ("spooldefaults", "complexes", str(DEFAULTS / "util/resources/centry")),
            ("spooldefaults", "usersets", str(DEFAULTS / "util/resources/usersets")),
            ("spooldefaults", "managers", "root"),
        ):
            self.run(f"/usr/lib/gridengine/{tool}", *arguments)
        self.daemon("sge_qmaster")
        self.wait(lambda: bool(self.run("qconf", "-sm", check=False).strip()))
        self.describe(host)
        self.daemon("sge_execd")
        self.wait(lambda: " -NA- " not in self.run("qhost", "-q", "-h", host, check=False).split("\n")[3])

    def describe(self, host: str) -> None:
        """One host, one queue, the consumable node types, a fast scheduler."""
        self.run("qconf", "-as", host)
        self.run("qconf", "-ah", host, check=False)
        complexes = self.run("qconf", "-sc").splitlines()
        added = [f"{name} {name} INT <= YES YES 0 0" for name in TYPES]
        self.file("-Mc", "\n".join([*complexes, *added, ""]))
        values = ",".join(f"{name}={number}" for name, number in TYPES.items())
        self.file(
            "-Ae", f"hostname {host}\nload_scaling NONE\ncomplex_values {values}\nuser_lists NONE\nxuser_lists NONE\n"
            "projects NONE\nxprojects NONE\nusage_scaling NONE\nreport_variables NONE\n", "-Me",
        )  # fmt: skip
        self.file("-Ahgrp", f"group_name @allhosts\nhostlist {host}\n")
        self.file(
            "-Ap", "pe_name mpi\nslots 99\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args NONE\n"
            "stop_proc_args NONE\nallocation_rule $pe_slots\ncontrol_slaves TRUE\njob_is_first_task TRUE\n"
            "urgency_slots min\naccounting_summary FALSE\nqsort_args NONE\n",
        )  # fmt: skip
        template = self.run("bash", "-c", "EDITOR=cat qconf -aq all.q 2>/dev/null", check=False)
        settings = {
            "qname": "all.q", "hostlist": "@allhosts", "slots": str(SLOTS), "pe_list": "mpi", "rerun": "TRUE",
            "load_thresholds": "NONE", "shell": "/bin/bash", "shell_start_mode": "unix_behavior", "notify": "00:00:05",
        }  # fmt: skip
        rows = [line.split(None, 1) for line in template.splitlines() if line[:1].isalpha() and " " in line]
        text = "".join(f"{key} {settings.get(key, value.strip())}\n" for key, value in rows)
        self.file("-Aq", text)
        rows = self.run("qconf", "-ssconf").splitlines()
        interval = ["schedule_interval 0:0:1" if row.startswith("schedule_interval") else row for row in rows]
        self.file("-Msconf", "\n".join([*interval, ""]))

    def file(self, option: str, text: str, otherwise: str = "") -> None:
        """qconf with a file; `otherwise` is tried where `option` is refused."""
        path = self.root / "qconf"
        path.write_text(text)
        output = self.run("qconf", option, str(path), check=not otherwise)
        if otherwise and "added" not in output:
            self.run("qconf", otherwise, str(path))

    def daemon(self, name: str) -> None:
        command = shutil.which(name, path=PATH)
        assert command is not None
        with (self.root / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [command], stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def stop(self) -> None:
        self.run("qdel", "-f", "-u", "root", check=False)
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, check=False, text=True, capture_output=True, env={**os.environ, **self.environment}, timeout=60
        )  # fmt: skip
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """id -> state of what waits or runs."""
        rows = [line.split() for line in self.run("qstat").splitlines()[2:]]
        return {row[0]: row[4] for row in rows}

    @staticmethod
    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "Grid Engine did not come up"
            time.sleep(0.2)
