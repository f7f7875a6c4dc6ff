"""The paper scale's path on each of its four data sets: its own jobs, from the search to the report's gallery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from common.data import source
from common.files import read_json
from common.study.config import compose
from common.study.jobs import expand, load_study
from common.study.model import JobRef, Member
from projects.proxy_isa import learn, photographs, shown, tune
from projects.proxy_isa.selection import gain
from tests.projects.proxy_isa.published import SETS
from tests.projects.proxy_isa.test_isa_study import put_back

assert put_back  # a fixture that is used by its name
CLASSES = 8  # of four folds, two each
SMALL = {  # what makes an hour of it seconds; all else is the paper scale's
    "net": {"kind": "resnet10t", "dim": 8, "weights": "weights/resnet10t.pth"},
    "train": {"batch": 6, "epochs": 1, "looks": 1},
    "tune": {"trials": 1},
    "data": {"workers": 2},
    "rule": {"must_weigh": False},
}


def job_of(stage: str, data: str) -> dict[str, Any]:
    """The configuration of Proxy-ISA's first job of a stage, made small."""
    jobs = expand(load_study("proxy_isa"), compose("proxy_isa", "paper"))
    job = next(
        job
        for job in jobs
        if job.stage.name == stage and job.axes["data"] == data and job.axes.get("loss") == "proxy_isa"
    )
    cfg = {key: dict(value) if isinstance(value, Mapping) else value for key, value in job.config.items()}
    for name, section in SMALL.items():
        if name in cfg:
            cfg[name] |= section
    return cfg | {"axes": dict(job.axes)}


@pytest.fixture(params=sorted(SETS))
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set's name; its files and a backbone's weights stand below RETHESIS_DATA."""
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    monkeypatch.setattr(source.require, "__defaults__", (tmp_path / "cache.json",))
    monkeypatch.setattr(photographs, "SIDE", 64)
    for crop in ("eval_crop", "train_crop"):
        shrunk(monkeypatch, crop)
    write, loader = SETS[request.param]
    monkeypatch.setattr(loader.load, "__defaults__", (None, "error", write(tmp_path, CLASSES)))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "weights/resnet10t.pth")
    return request.param


def shrunk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    crop = getattr(photographs, name)
    monkeypatch.setattr(photographs, name, lambda *args: crop(*args)[:, :64, :64])


def test_the_paper_scale_from_the_search_to_the_gallery(data: str, tmp_path: Path) -> None:
    searched, learned = tmp_path / "tune", tmp_path / "learn"
    searched.mkdir()
    learned.mkdir()
    cfg = job_of("tune", data)
    best = tune.run(cfg, {}, searched)
    space = cfg["tune"]["space"]["all"] | cfg["tune"]["space"]["proxy_isa"]
    assert set(read_json(searched / tune.BEST)["params"]) == set(space) and best["trials"] == 1

    cfg = job_of("learn", data)
    assert cfg["train"]["watch_test"] and cfg["rule"]["capacity"] == 55_000
    job = JobRef({}, searched, best)
    (found,) = learn.run([Member(cfg, {"tune": [job]}, learned, cfg["axes"])])
    assert found["inert"] == 0 and 0 <= found["recall_at_1"] <= 1
    assert 0 <= found["map_at_r"] <= found["r_precision"] <= 1
    assert found["selected_by_test"] >= found["selected_by_held"]

    done = JobRef({"seed": cfg["axes"]["seed"]}, learned, found)
    gallery = shown.part(Member({}, {"learn": [done]}, tmp_path, {"part": "best_0"}))
    searched_in = 4 if data == "inshop" else 6
    places = [
        int(value) for name, value in gallery.items() if name.startswith("place_") and name != "place_0"
    ]
    assert len(set(places)) == len(places) >= 3 and max(places) < searched_in
    chosen = gain(Member({}, {"learn": [done]}, tmp_path, {"chosen": "by_test"}))
    assert chosen == {"gain": found["selected_by_test"] - found["selected_by_held"]}
