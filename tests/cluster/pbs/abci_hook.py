"""ABCI's rules as a PBS hook (event queuejob): what the site's own server would refuse."""

import pbs

LONGEST = 168 * 3600
MULTI = {"rt_HF": True, "rt_HG": False, "rt_HC": False}

event = pbs.event()
job = event.job
queue = job.queue.name if job.queue and job.queue.name else "workq"
if queue in MULTI:
    select = str(job.Resource_List["select"] or "")
    wall = job.Resource_List["walltime"]
    nodes = sum(int(c.split(":")[0]) if c.split(":")[0].isdigit() else 1 for c in select.split("+"))
    if not job.project or str(job.project) == "_pbs_project_default":
        event.reject("ABCI rule: -P GROUP is mandatory")
    if not select:
        event.reject("ABCI rule: -l select=N is mandatory")
    if "ncpus" in select or "ngpus" in select:
        event.reject("ABCI rule: ncpus/ngpus are fixed by the resource type")
    if nodes > 1 and not MULTI[queue]:
        event.reject("ABCI rule: multi-node only in rt_HF")
    if wall is not None and int(wall) > LONGEST:
        event.reject("ABCI rule: walltime above the limit")
event.accept()
