"""Training the small networks: resumed to the bit, saved and read back; test images with one image a source."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data.glyphs.faces import FACES
from common.errors import BadInputError, StoppedError
from common.training import checkpoint, stop
from projects.fp16_cnn import learn, letters, module
from projects.fp16_cnn.nets import NETS, build

IMAGES = {"classes": 4, "size": 24, "train": 128, "validation": 16, "draws": 120}
TRAIN = {"steps": 6, "batch": 16, "lr": 0.05, "warmup": 0.2, "weight_decay": 5e-4, "looks": 2}


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """What a training leaves behind."""
    handlers = {number: signal.getsignal(number) for number in stop.SIGNALS}
    yield
    stop.clear()
    torch.use_deterministic_algorithms(False)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def config(net: str, **train: Any) -> dict[str, Any]:
    return {"images": IMAGES, "train": TRAIN | train, "device": "cpu", "axes": {"net": net, "seed": 7}}


def test_a_stopped_training_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    cfg = config("small_resnet")
    expected = learn.run(cfg, {}, whole)
    step = module.Classifier.training_step

    def stopped(self: module.Classifier, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 3 and not (cut / "seen").exists():
            (cut / "seen").touch()
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(module.Classifier, "training_step", stopped)
    with pytest.raises(StoppedError):
        learn.run(cfg, {}, cut)
    stop.clear()
    assert learn.run(cfg, {}, cut) == expected
    assert (cut / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    ours, theirs = (learn.load(folder / learn.FILE).net.state_dict() for folder in (whole, cut))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_network_learns_and_is_read_back_as_it_was_tested(tmp_path: Path) -> None:
    metrics = learn.run(config("small_mobilenet", steps=40, batch=32), {}, tmp_path)
    assert metrics["accuracy"] > 0.5  # 4 letters: chance is 0.25
    found = learn.load(tmp_path / learn.FILE)
    assert (found.name, found.seed, found.images) == ("small_mobilenet", 7, IMAGES)
    assert module.accuracy(found.net, letters.held_out(found.seed, found.images)) == metrics["accuracy"]


def test_what_is_no_network_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / learn.FILE
    with pytest.raises(BadInputError, match="cannot be used"):
        learn.load(path)
    checkpoint.write(path, {"step": 3})
    with pytest.raises(BadInputError, match="no network of the stage learn"):
        learn.load(path)
    state = build("small_mobilenet", 4).state_dict()
    checkpoint.write(path, {"net": "small_resnet", "seed": 0, "images": IMAGES, "state_dict": state})
    with pytest.raises(BadInputError, match="another architecture than SmallResNet"):
        learn.load(path)
    with pytest.raises(BadInputError, match=r"net 'resnet'.*small_resnet"):
        build("resnet", 4)


@pytest.mark.parametrize("name", NETS)
def test_networks_give_logits(name: str) -> None:
    assert module.logits(build(name, 9), torch.zeros(3, 1, 24, 24)).shape == (3, 9)


def test_the_rate_rises_then_falls_to_zero() -> None:
    schedule = module.Schedule(steps=100, lr=1.0, warmup=0.1, weight_decay=0.0, looks=1)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[9] == rates[10] == max(rates) == 1.0 and rates[100] == pytest.approx(0.0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_every_source_stands_once_in_the_test_images() -> None:
    held = letters.held_out(7, IMAGES)
    assert held.x.shape == (4 * len(FACES), 1, 24, 24)
    assert torch.bincount(held.y).tolist() == [len(FACES)] * 4
    assert torch.equal(letters.raw(held.x).round(), letters.raw(held.x)) and letters.raw(held.x).max() <= 255
