"""A stand-in for PJM as Fugaku has it: ``install`` writes pjsub, pjstat and pjdel into a folder.

It reads directives as PJM does (up to the first line that is no comment; the command line wins), refuses what Fugaku
refuses, runs the script on this host from the directory of pjsub with PJM's variables and no others, ends it at its
elapse limit (SIGXCPU, ten seconds later SIGKILL), and writes the output file when the job has ended.

Sources: RIKEN's user guide "Use and job execution" 1.52 (chapters 5.1, 5.2, 5.9, 5.12, 5.13: limits, messages, states)
and Fujitsu's "Job Operation Software End-user's Guide" J2UL-2534 (2.1.2 variables, 2.3.2.5 the limit, A.1 columns).
Not in them, and therefore ours: the words for an unknown resource group or option and for too many processes, the
exit codes, that pjdel kills at once, and that every job starts at once.
"""

from __future__ import annotations

import getpass
import json
import math
import shlex
import signal
import sys
import time
from pathlib import Path

import stub_jobs

GROUPS = {
    "small": ((1, 384), 72 * 3600),
    "large": ((385, 12288), 24 * 3600),
}  # nodes; longest elapse, seconds
SHORTEST = 60  # seconds of elapse
CORES = 48
GRACE = 10.0  # seconds from SIGXCPU to SIGKILL
FLAGS = ("-j", "-X", "-s", "-S", "--restart", "--norestart", "--no-check-directory")
LISTS = ("-L", "-x", "--mpi", "--llio")  # key=value, ...
VALUES = ("-g", "-N", "-o", "-e")
LONG = {"--rsc-list": "-L", "--gname": "-g", "--gid": "-g", "--name": "-N", "--out": "-o", "--err": "-e"}
COLUMNS = {"jid": ("JOB_ID", 10), "jnam": ("JOB_NAME", 10), "jmdl": ("MD", 2), "st": ("ST", 3), "usr": ("USER", 8),
           "sdt": ("START_DATE", 15), "elpl": ("ELAPSE_LIM", 21), "nnumr": ("NODE_REQUIRE", 16),
           "vnnumr": ("VNODE", 6), "cnumr": ("CORE", 4), "vmem": ("V_MEM", 10)}  # fmt: skip


def install(folder: Path, shortest: int = SHORTEST) -> dict[str, str]:
    """Write the commands; return the environment that finds them. A test may want jobs of less than a minute."""
    found = stub_jobs.install(folder, __file__, ("pjsub", "pjstat", "pjdel"))
    (folder / "shortest").write_text(str(shortest))
    return found


def refuse(number: int, message: str) -> None:
    print(f"[ERR.] PJM {number:04d} pjsub {message}", file=sys.stderr)
    sys.exit(1)


def options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options by their short name, each item of a list under its own (``-L node``), and what is left."""
    found: dict[str, str] = {}
    rest: list[str] = []
    while words:
        word = words.pop(0)
        word = LONG.get(word, word)
        if not word.startswith("-"):
            rest.append(word)
        elif word in FLAGS:
            found[word] = ""
        elif word in LISTS:
            for item in words.pop(0).split(","):
                key, _, value = item.partition("=")
                found[f"{word} {key}"] = value
        elif word in VALUES:
            found[word] = words.pop(0)
        else:
            refuse(49, f"Option argument is invalid. {word}")
    return found, rest


def directives(script: str) -> list[str]:
    """The words of the #PJM lines; those after the first line that is no comment are comments to PJM."""
    words: list[str] = []
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#PJM "):
            words += shlex.split(line.removeprefix("#PJM "))
    return words


def seconds(text: str) -> int:
    """Of ``[[hours:]minutes:]seconds``."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


def within(what: str, value: int, least: int, most: int) -> None:
    if value < least:
        refuse(54, f"{what}={value} is less than the lower limit ({least}).")
    if value > most:
        refuse(57, f"{what}={value} is greater than the upper limit ({most}).")


def check(asked: dict[str, str], shortest: int) -> tuple[int, int]:
    """Nodes and seconds; ends the command where one of Fugaku's rules is broken."""
    if "-g" not in asked:
        refuse(71, "Group not authorized to submit a job: group(59999)")
    group = asked.get("-L rscgrp", "")
    if group not in GROUPS:
        refuse(49, f"Option argument is invalid. RSCGRP NOT EXIST: rscgrp={group}")
    (least, most), longest = GROUPS[group]
    nodes = math.prod(int(axis) for axis in asked.get("-L node", str(least)).partition(":")[0].split("x"))
    elapse = seconds(asked.get("-L elapse", str(SHORTEST)))
    within("node", nodes, least, most)
    within("elapse", elapse, shortest, longest)
    each = int(asked.get("--mpi max-proc-per-node", CORES))
    if each > CORES or int(asked.get("--mpi proc", 0)) > nodes * each:
        refuse(
            49, f"Option argument is invalid. --mpi: more processes than {nodes} nodes x {CORES} cores take"
        )
    return nodes, elapse


def pjsub(root: Path, words: list[str]) -> None:
    given, rest = options(words)
    script = Path(rest[0]).read_text()
    asked = {"-N": Path(rest[0]).name} | options(directives(script))[0] | given
    nodes, elapse = check(asked, int((root / "shortest").read_text()))
    folder = stub_jobs.new_job(root, script)
    job = {"asked": asked, "nodes": nodes, "elapse": elapse, "workdir": str(Path.cwd())}
    (folder / "job.json").write_text(json.dumps(job))
    stub_jobs.detach(__file__, root, "run", folder.name)
    stub_jobs.started(folder)
    print(f"[INFO] PJM 0000 pjsub Job {folder.name} submitted.")


def run(root: Path, number: str) -> None:
    """The job manager's and the node's part of one job."""
    folder = root / "jobs" / number
    job = json.loads((folder / "job.json").read_text())
    asked, workdir = job["asked"], job["workdir"]
    variables = {
        "HOME": str(root), "PJM_JOBID": number, "PJM_SUBJOBID": number, "PJM_JOBNAME": asked["-N"],
        "PJM_ENVIRONMENT": "BATCH", "PJM_JOBDIR": workdir, "PJM_O_WORKDIR": workdir,
        "PJM_RSCGRP": asked["-L rscgrp"], "PJM_NODE": str(job["nodes"]),
    }  # fmt: skip
    names = {"--mpi proc": "PJM_MPI_PROC", "--mpi max-proc-per-node": "PJM_PROC_BY_NODE"}
    variables |= {name: asked[option] for option, name in names.items() if option in asked}
    variables |= {key.partition(" ")[2]: value for key, value in asked.items() if key.startswith("-x ")}
    stub_jobs.note(folder / "state", "RUN")
    stub_jobs.execute(folder, Path(workdir), variables, job["elapse"], signal.SIGXCPU, GRACE)
    stub_jobs.note(folder / "state", "RNO")
    stub_jobs.over(folder, asked.get("-o", ""))


def pjstat(root: Path, words: list[str]) -> None:
    """The columns of the manual, or those that --choose names; the header also when there is no job."""
    chosen = words[1].split(",") if words[:1] == ["--choose"] else list(COLUMNS)
    print(" ".join(f"{title:<{width}}" for title, width in (COLUMNS[item] for item in chosen)))
    for folder in stub_jobs.alive(root):
        job = json.loads((folder / "job.json").read_text())
        minutes, rest = divmod(job["elapse"], 60)
        values = {
            "jid": folder.name, "jnam": job["asked"]["-N"][:10], "jmdl": "NM", "st": (folder / "state").read_text(),
            "usr": getpass.getuser()[:8],
            "sdt": time.strftime("%m/%d %H:%M:%S", time.localtime((folder / "job.json").stat().st_mtime)),
            "elpl": f"{minutes // 60:04d}:{minutes % 60:02d}:{rest:02d}", "nnumr": str(job["nodes"]),
        }  # fmt: skip
        print(" ".join(f"{values.get(item, '-'):<{COLUMNS[item][1]}}" for item in chosen))


def pjdel(root: Path, words: list[str]) -> None:
    missing = [word for word in words if word not in {folder.name for folder in stub_jobs.alive(root)}]
    for word in words:
        if word in missing:
            print(f"[ERR.] PJM 0112 pjdel Job {word} does not exist.", file=sys.stderr)
            continue
        stub_jobs.end(int((root / "jobs" / word / "pid").read_text()), signal.SIGKILL, 0.0)
        print(f"[INFO] PJM 0100 pjdel Accepted job {word}.")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    {"pjsub": lambda: pjsub(Path(place), rest), "pjstat": lambda: pjstat(Path(place), rest),
     "pjdel": lambda: pjdel(Path(place), rest), "run": lambda: run(Path(place), *rest)}[command]()  # fmt: skip
