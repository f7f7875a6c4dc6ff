"""A stand-in for PBS Professional with ABCI's rules: ``install`` writes qsub, qstat and qdel into a folder.

It parses directives as PBS does (the command line wins over the script), refuses what the site refuses, runs the
script on this host from $HOME with PBS's variables and node file, ends it at its walltime (SIGTERM, then SIGKILL),
and writes the output file when the job has ended. The same tests run on a real OpenPBS where one was built.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import stub_jobs

LONGEST = 168 * 3600
QUEUES = {"rt_HF": 128, "rt_HG": 1, "rt_HC": 1, "workq": 2}
KILL_DELAY = 2.0


def install(folder: Path) -> dict[str, str]:
    """Write the commands; return the environment that finds them."""
    return stub_jobs.install(folder, __file__, ("qsub", "qstat", "qdel"))


def refuse(message: str, code: int = 32) -> None:
    print(f"qsub: {message}", file=sys.stderr)
    sys.exit(code)


def directives(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options by letter, with each -l item under its own name, and what is left."""
    found: dict[str, str] = {}
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-l":
            for item in words.pop(0).split(","):
                key, _, value = item.partition("=")
                found[key] = value
        elif word.startswith("-"):
            found[word[1:]] = words.pop(0)
        else:
            rest.append(word)
    return found, rest


def check(asked: dict[str, str]) -> tuple[int, int]:
    """Nodes and seconds; ends the command where ABCI's or PBS's rules are broken."""
    queue = asked.get("q", "workq")
    if queue not in QUEUES:
        refuse("Unknown queue", 170)
    unknown = set(asked) - set("NqPAojmrS") - {"select", "place", "walltime"}
    if unknown:
        refuse(f"Unknown resource or option {sorted(unknown)}", 187)
    select = asked.get("select", "")
    chunks = [chunk.split(":") for chunk in select.split("+")]
    nodes = sum(int(chunk[0]) if chunk[0].isdigit() else 1 for chunk in chunks)
    hours, minutes, seconds = (int(part) for part in asked.get("walltime", "1:00:00").split(":"))
    wall = (hours * 60 + minutes) * 60 + seconds
    if queue != "workq":
        if "P" not in asked:
            refuse("ABCI rule: -P GROUP is mandatory")
        if not select:
            refuse("ABCI rule: -l select=N is mandatory")
        if "ncpus" in select or "ngpus" in select:
            refuse("ABCI rule: ncpus/ngpus are fixed by the resource type")
        if nodes > 1 and queue != "rt_HF":
            refuse("ABCI rule: multi-node only in rt_HF")
        if wall > LONGEST:
            refuse("ABCI rule: walltime above the limit")
    return nodes, wall


def qsub(root: Path, words: list[str]) -> None:
    given, rest = directives(words)
    script = Path(rest[0]).read_text()
    lines = [line.removeprefix("#PBS ") for line in script.splitlines() if line.startswith("#PBS ")]
    asked = directives([word for line in lines for word in shlex.split(line)])[0] | given
    nodes, wall = check(asked)
    folder = stub_jobs.new_job(root, script)
    per_node = [
        item.partition("=")[2] for item in asked.get("select", "").split(":") if item.startswith("mpiprocs=")
    ]
    slots = int(per_node[0]) if per_node else 1
    (folder / "nodes").write_text("".join(f"pbs{n + 1}\n" * slots for n in range(nodes)))
    (folder / "asked.json").write_text(json.dumps(asked))
    stub_jobs.detach(__file__, root, "run", folder.name, str(wall), asked.get("o", ""), str(Path.cwd()))
    stub_jobs.started(folder)
    print(f"{folder.name}.pbs1")


def run(root: Path, number: str, wall: str, output: str, workdir: str) -> None:
    """The server's and the node's part of one job."""
    folder = root / "jobs" / number
    variables = {
        "HOME": str(root), "PBS_JOBID": f"{number}.pbs1", "PBS_NODEFILE": str(folder / "nodes"),
        "PBS_O_WORKDIR": workdir, "PBS_ENVIRONMENT": "PBS_BATCH",
    }  # fmt: skip
    stub_jobs.execute(folder, root, variables, float(wall), signal.SIGTERM, KILL_DELAY)
    stub_jobs.over(folder, output)


def qstat(root: Path) -> None:
    live = stub_jobs.alive(root)
    if live:
        print("Job id            Name             User              Time Use S Queue")
        print("----------------  ---------------- ----------------  -------- - -----")
    for folder in live:
        asked = json.loads((folder / "asked.json").read_text())
        name, queue = asked.get("N", "job"), asked.get("q", "workq")
        print(f"{folder.name + '.pbs1':<17} {name:<16} {'user':<17} 00:00:00 R {queue:<16}")


def qdel(root: Path, words: list[str]) -> None:
    for word in words:
        folder = root / "jobs" / word.partition(".")[0]
        if folder.is_dir() and not (folder / "ended").exists():
            stub_jobs.end(int((folder / "pid").read_text()), signal.SIGTERM, KILL_DELAY)


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    {"qsub": lambda: qsub(Path(place), rest), "qstat": lambda: qstat(Path(place)),
     "qdel": lambda: qdel(Path(place), rest), "run": lambda: run(Path(place), *rest)}[command]()  # fmt: skip
