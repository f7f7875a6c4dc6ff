"""A real OpenPBS of two nodes on this host with ABCI's rules as a hook, where `make pbs` has built one.

Each node is a network, host-name and mount namespace with its own address, so that both use the standard ports and
nothing of the host is touched. The folder must not lie below a world-writable one: PBS refuses that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PREFIX = Path(os.environ.get("RETHESIS_PBS", "/opt/pbs"))
FILES = Path(__file__).resolve().parents[1] / "cluster" / "pbs"
VERSION = "23.06.06"
NODES = {1: "10.99.0.1", 2: "10.99.0.2"}


def missing() -> str:
    """Why no OpenPBS can be started here, or nothing."""
    if not (PREFIX / "sbin" / "pbs_mom").is_file():
        return f"no OpenPBS in {PREFIX}: make pbs SOURCE=/path/to/openpbs (RETHESIS_PBS names another place)"
    return "" if os.geteuid() == 0 else "namespaces of the nodes are made as root only"


mark = pytest.mark.skipif(bool(missing()), reason=missing())


def link(number: int) -> str:
    """A node's network device; of this process alone, so that test processes and a killed one's rest do not meet."""
    return f"rpv{os.getpid()}-{number}"


@dataclass
class OpenPBS:
    """``start`` returns the environment in which qsub, qstat and qdel speak to the cluster."""

    folder: Path
    holders: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    root: Path = Path()

    def start(self) -> dict[str, str]:
        self.root = Path(tempfile.mkdtemp(prefix="rethesis-pbs-", dir="/var/lib"))
        self.root.chmod(0o755)
        (self.root / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} pbs{n}\n" for n, address in NODES.items())
        )
        for number in NODES:
            hosts = f"mount --bind {self.root}/hosts /etc/hosts"
            script = f"hostname pbs{number}; {hosts}; ip link set lo up; exec sleep infinity"
            apart = ["unshare", "-n", "-u", "-m", "--propagation", "private"]
            self.holders[number] = subprocess.Popen([*apart, "sh", "-c", script], stdin=subprocess.DEVNULL)
        time.sleep(0.5)
        self.call("ip", "link", "add", link(1), "type", "veth", "peer", "name", link(2))
        for number in NODES:
            self.node(number)
        self.within(1, "qmgr", "-c", "create node pbs2")
        setup = (FILES / "setup.qmgr").read_text().replace("$FILES", str(FILES))
        self.within(1, "qmgr", text=setup)
        deadline = time.monotonic() + 60
        while self.within(1, "pbsnodes", "-a").count("state = free") < 2:
            assert time.monotonic() < deadline, self.within(1, "pbsnodes", "-a")
            time.sleep(0.5)
        return self.commands()

    def node(self, number: int) -> None:
        """Address, configuration and daemons of a node."""
        first, home = int(number == 1), self.root / f"home{number}"
        self.call("ip", "link", "set", link(number), "netns", str(self.holders[number].pid))
        self.within(number, "ip", "addr", "add", f"{NODES[number]}/24", "dev", link(number))
        self.within(number, "ip", "link", "set", link(number), "up")
        (self.root / f"pbs{number}.conf").write_text(
            f"PBS_EXEC={PREFIX}\nPBS_HOME={home}\nPBS_SERVER=pbs1\nPBS_START_SERVER={first}\nPBS_START_SCHED={first}\n"
            f"PBS_START_COMM={first}\nPBS_START_MOM=1\nPBS_CORE_LIMIT=0\nPBS_LEAF_ROUTERS=pbs1:17001\n"
        )
        role = (
            ["server", VERSION, PREFIX, home, "postgres"] if first else ["execution", VERSION, PREFIX, home]
        )
        self.within(number, f"{PREFIX}/libexec/pbs_postinstall", *(str(word) for word in role), "sameconf")
        (home / "mom_priv" / "config").write_text(
            "$clienthost pbs1\n$usecp *:/ /\n$min_check_poll 1\n$max_check_poll 2\n"
        )
        (home / "pbs_environment").write_text(
            f"PATH={PREFIX}/bin:/usr/bin:/bin\nPBS_CONF_FILE={self.root}/pbs{number}.conf\n"
        )
        self.within(number, f"{PREFIX}/libexec/pbs_init.d", "start")

    def commands(self) -> dict[str, str]:
        """Wrappers of the commands that enter the first node."""
        tools = self.folder / "bin"
        tools.mkdir()
        for name in ("qsub", "qstat", "qdel"):
            (tools / name).write_text(
                f'#!/bin/bash\nexec nsenter -t {self.holders[1].pid} -n -u -m --wdns="$PWD" '
                f'env PBS_CONF_FILE={self.root}/pbs1.conf {PREFIX}/bin/{name} "$@"\n'
            )
            (tools / name).chmod(0o755)
        return {"PATH": f"{tools}:{os.environ['PATH']}"}

    def stop(self) -> None:
        for number in reversed(NODES):
            self.within(number, f"{PREFIX}/libexec/pbs_init.d", "stop", check=False)
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def within(self, number: int, *command: str, text: str | None = None, check: bool = True) -> str:
        binaries = subprocess.run(
            ["pg_config", "--bindir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        path = f"{binaries}:{PREFIX}/bin:{PREFIX}/sbin:{os.environ['PATH']}:/usr/sbin:/sbin"
        place = ["nsenter", "-t", str(self.holders[number].pid), "-n", "-u", "-m", f"--wdns={self.root}"]
        settings = ["env", f"PBS_CONF_FILE={self.root}/pbs{number}.conf", f"PATH={path}"]
        return self.call(*place, *settings, *command, text=text, check=check)

    def call(self, *command: str, text: str | None = None, check: bool = True) -> str:
        log = self.root / "commands.log"  # a file: daemons keep what they inherit open
        with log.open("a+") as output:
            start = output.tell()
            done = subprocess.run(
                command, input=text, text=True, check=False, stdout=output, stderr=output,
                **({} if text is not None else {"stdin": subprocess.DEVNULL}),
            )  # fmt: skip
            output.seek(start)
            said = output.read()
        assert not check or done.returncode == 0, (command, said)
        return said
