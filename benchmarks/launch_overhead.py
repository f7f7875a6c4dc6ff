"""What a sweep of 10,000 jobs costs on the login node: the real engine, with a scheduler whose jobs end at once.

`sbatch` and `squeue` are shell scripts here: a submitted job writes its DONE files and is forgotten. So what is
measured is ours: planning, Snakemake's graph, the submit and status commands, questions to the scheduler, files.
Usage: python benchmarks/launch_overhead.py [JOBS [PACK]], 10000 and 16 by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
SBATCH = """#!/bin/sh
for script; do :; done
echo >>{folder}/submitted
for job in $(grep -o 'results/.runs/toy/count/[0-9a-f]*' "$script"); do echo '{{}}' >$job/DONE; done
wc -l <{folder}/submitted
"""
SQUEUE = "#!/bin/sh\necho >>{folder}/asked\n"
DRIVER = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from common.study import engine
from common.study.reproduce import Request, prepare
from common.study.tasks import plan_tasks
seeds, pack = sys.argv[1:]
changes = (f"seeds.count={seeds}", f"launch.pack={pack}", "launch.poll=5", "launch.jobs=200")
request = Request("toy", "smoke", "slurm", changes, only=("count",))
_, cfg, jobs = prepare(request)
tasks = plan_tasks(jobs, request.root)
planned = time.perf_counter()
folder = request.runs / ".engine" / "bench"
engine.run(tasks, scale="smoke", engine=folder, launch=cfg["launch"], root=request.root, watch=lambda: None)
ended = time.perf_counter()
done = len(list(request.runs.glob("count/*/DONE")))
files = sum(1 for path in folder.rglob("*") if path.is_file())
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(one.ru_utime + one.ru_stime for one in used)
seen = {"cpu": cpu, "jobs": len(jobs), "done": done, "plan": planned - began, "run": ended - planned}
print(json.dumps(seen | {"files": files}))
"""


def main(jobs: int, pack: int) -> None:
    from house import make_house

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        house = make_house(folder / "house")
        (folder / "bin").mkdir()
        for command, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            path = folder / "bin" / command
            path.write_text(text.format(folder=folder))
            path.chmod(0o755)
        environment = house.environment(PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(jobs // 2), str(pack)],
            cwd=house.root, env=environment, check=True, text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        seen = json.loads(done.stdout)
        submissions, questions = (
            len((folder / name).read_text().splitlines()) if (folder / name).is_file() else 0
            for name in ("submitted", "asked")
        )
    assert seen["done"] == seen["jobs"], seen
    print(f"{seen['jobs']} jobs in {submissions} submissions of up to {pack}: all done")
    print(
        f"planning: {seen['plan']:.1f} s; engine: {seen['run']:.1f} s, {submissions / seen['run']:.1f} submissions/s"
    )
    print(
        f"CPU time of all of it: {seen['cpu']:.1f} s, {1000 * seen['cpu'] / submissions:.0f} ms a submission"
    )
    print(f"questions to the scheduler: {questions}; files of the engine: {seen['files']}")
    print(f"ratio of the engine's seconds to submissions: {seen['run'] / submissions:.3f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:] or ("10000", "16")))
