"""A stand-in for PBS Professional with ABCI's rules: ``install`` writes qsub, qstat and qdel into a folder.

It parses directives as PBS does (the command line wins over the script), refuses what the site refuses, runs the
script on this host from $HOME with PBS's variables and node file, ends it at its walltime (SIGTERM, then SIGKILL),
and writes the output file when the job has ended. The same tests run on a real OpenPBS where one was built.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

LONGEST = 168 * 3600
QUEUES = {"rt_HF": 128, "rt_HG": 1, "rt_HC": 1, "workq": 2}
KILL_DELAY = 2.0


def install(folder: Path) -> dict[str, str]:
    """Write the commands; return the environment that finds them."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    for name in ("qsub", "qstat", "qdel"):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {folder} {name} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


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
    number = sum(1 for _ in (root / "jobs").iterdir()) + 1
    folder = root / "jobs" / str(number)
    folder.mkdir()
    (folder / "script").write_text(script)
    per_node = [
        item.partition("=")[2] for item in asked.get("select", "").split(":") if item.startswith("mpiprocs=")
    ]
    slots = int(per_node[0]) if per_node else 1
    (folder / "nodes").write_text("".join(f"pbs{n + 1}\n" * slots for n in range(nodes)))
    (folder / "asked.json").write_text(json.dumps(asked))
    subprocess.Popen(
        [sys.executable, __file__, str(root), "run", str(number), str(wall), asked.get("o", ""), str(Path.cwd())],
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (folder / "pid").exists():
        time.sleep(0.01)
    print(f"{number}.pbs1")


def run(root: Path, number: str, wall: str, output: str, workdir: str) -> None:
    """The server's and the node's part of one job."""
    folder = root / "jobs" / number
    keep = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
    environment = keep | {
        "HOME": str(root), "PBS_JOBID": f"{number}.pbs1", "PBS_NODEFILE": str(folder / "nodes"),
        "PBS_O_WORKDIR": workdir, "PBS_ENVIRONMENT": "PBS_BATCH",
    }  # fmt: skip
    with (folder / "out").open("w") as out:
        job = subprocess.Popen(
            ["/bin/bash", str(folder / "script")], cwd=root, env=environment, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        (folder / "pid").write_text(str(job.pid))
        try:
            job.wait(float(wall))
        except subprocess.TimeoutExpired:
            end(job.pid)
            job.wait()
    if output:
        Path(output).write_text((folder / "out").read_text())
    (folder / "ended").touch()


def end(session: int) -> None:
    """SIGTERM to all processes of the job, and SIGKILL to what is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(session, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + KILL_DELAY
        while time.monotonic() < deadline:
            time.sleep(0.05)


def qstat(root: Path) -> None:
    live = [folder for folder in (root / "jobs").iterdir() if not (folder / "ended").exists()]
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
            end(int((folder / "pid").read_text()))


if __name__ == "__main__":
    place, command, *rest = sys.argv[1:]
    {"qsub": lambda: qsub(Path(place), rest), "qstat": lambda: qstat(Path(place)),
     "qdel": lambda: qdel(Path(place), rest), "run": lambda: run(Path(place), *rest)}[command]()  # fmt: skip
