"""Stages without torch: a counter that resumes, a stacked one, a fan-in."""

import importlib
import json
import os
import time
from pathlib import Path

from common.errors import NonFiniteError, StoppedError
from common.files import write_json
from common.training import stop


def note(text):
    with Path("calls.txt").open("a") as file:
        file.write(text + "\n")


def factor(cfg):
    return importlib.import_module(f"projects.toy.{cfg['axes']['arm']}").FACTOR


def held(step):
    """At its second step a counter waits for the file that TOY_GATE names, or to be stopped."""
    gate = os.environ.get("TOY_GATE")
    return step == 2 and gate and not Path(gate).exists() and not stop.requested()


def count(cfg, inputs, out):
    """A sum of `steps` terms with a checkpoint at every step; killed anywhere, it goes on."""
    note(f"count {cfg['axes']['arm']} {cfg['axes']['seed']}")
    checkpoint = out / "checkpoint.json"
    state = (
        json.loads(checkpoint.read_text()) if checkpoint.is_file() else {"step": 0, "sum": 0.0, "rows": []}
    )
    while state["step"] < cfg["toy"]["steps"]:
        if stop.requested():
            raise StoppedError(f"stopped at step {state['step']}: {stop.requested()}")
        state["step"] += 1
        state["sum"] += factor(cfg) / (state["step"] + cfg["axes"]["seed"])
        state["rows"].append({"step": state["step"], "sum": state["sum"]})
        if state["step"] == cfg["toy"]["nan_at"]:
            raise NonFiniteError(f"non-finite loss at step {state['step']}")
        if state["step"] == cfg["toy"]["crash_at"] and not os.environ.get("TOY_MENDED"):
            raise RuntimeError("planted crash with api_key=sk-planted-secret-0123456789abcdef")
        write_json(checkpoint, state)
        while held(state["step"]):
            time.sleep(0.05)
        time.sleep(float(os.environ.get("TOY_SLEEP", cfg["toy"]["sleep"])))
    (out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in state["rows"]))
    return {"score": state["sum"]}


def stacked(members):
    note(f"stacked {members[0].axes['arm']} " + ",".join(str(member.axes["seed"]) for member in members))
    for member in members:
        if member.axes["seed"] == member.cfg["toy"]["nan_seed"]:
            raise NonFiniteError(f"non-finite loss of seed {member.axes['seed']}")
    return [{"score": sum(ref.metrics["score"] for ref in member.inputs["count"])} for member in members]


def total(cfg, inputs, out):
    note("total " + cfg["axes"]["arm"])
    return {"score": sum(ref.metrics["score"] for ref in inputs["stacked"])}
