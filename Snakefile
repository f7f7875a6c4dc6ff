# The pipeline engine's entry: it starts processes in order. What to run was decided by common.study (tasks.json);
# whether a job succeeded is decided by its DONE file alone, so .snakemake/ may be deleted at any time.
import json

with open(config["tasks"]) as file:
    PLAN = json.load(file)
ENGINE = PLAN["engine"]


rule all:
    input:
        [f"{ENGINE}/{task['stage']}/{name}.done" for name, task in PLAN["tasks"].items()],


def markers(wildcards):
    needs = PLAN["tasks"][wildcards.task]["needs"]
    return [ancient(f"{ENGINE}/{PLAN['tasks'][need]['stage']}/{need}.done") for need in needs]


for stage, resources in PLAN["stages"].items():

    rule:
        name:
            stage
        input:
            markers,
        output:
            f"{ENGINE}/{stage}/{{task}}.done",
        params:
            # one program on this machine; for a scheduler several may share a job
            programs=lambda wildcards: " -- ".join(" ".join(one) for one in PLAN["tasks"][wildcards.task]["programs"]),
            log=lambda wildcards: f"{ENGINE}/logs/{wildcards.task}.log",
            start=resources["start"],
        threads: resources["threads"]
        resources:
            mem_mb=resources["memory_mb"],
            gpus=resources["gpus"],
            nodes=resources["nodes"],
        shell:
            "{params.start} -m common.study.job {params.programs} > {params.log} 2>&1 && touch {output}"
