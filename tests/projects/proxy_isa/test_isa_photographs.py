"""The published data sets' path from end to end, on copies of a few images in exactly their formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.data import source
from common.data.retrieval import cub, inshop
from common.errors import BadInputError
from projects.proxy_isa import photographs, training
from projects.proxy_isa.learner import scores
from projects.proxy_isa.task import folds, task
from tests.projects.proxy_isa import published
from tests.projects.proxy_isa.test_isa_study import TUNED, config, put_back

assert put_back  # a fixture that is used by its name
OPTIONS = {"on_damage": "error", "workers": 2}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETHESIS_DATA", str(tmp_path))
    monkeypatch.setattr(source.require, "__defaults__", (tmp_path / "cache.json",))
    return tmp_path


@pytest.fixture
def birds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four training birds and two test birds, three images each."""
    monkeypatch.setattr(cub.load, "__defaults__", (None, "error", published.birds(root, 4)))


@pytest.fixture
def clothes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four items to train on, two of one query and two gallery images each."""
    monkeypatch.setattr(inshop.load, "__defaults__", (None, "error", published.clothes(root, 4)))


@pytest.mark.usefixtures("birds")
def test_birds_are_trained_on_and_retrieved(tmp_path: Path) -> None:
    drawn = task("cub", 0, OPTIONS)
    assert (drawn.train.classes, drawn.test.classes, drawn.gallery) == (4, 2, None)
    net = {"kind": "resnet10t", "dim": 8, "pool": "avg+max"}
    cfg = config(net=net, train={"batch": 4, "epochs": 1, "looks": 1})
    embedder, seen = training.train(cfg, TUNED, folds(drawn.train, 2, 0)[0], 1, tmp_path / "fold-0")
    found = scores([embedder], drawn).means()
    assert len(seen.held) == 1 and 0 <= found["map_at_r"] <= 1


@pytest.mark.usefixtures("birds")
def test_a_class_of_one_image_is_left_out_of_the_scores_and_a_damaged_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some items of In-shop have one image; a damaged one may leave one."""
    birds = tmp_path / "CUB_200_2011" / "images"
    for bird in (2, 101):
        for image in (0, 1):
            (birds / f"{bird:03}.Bird" / f"Bird_{image}_{bird}.jpg").write_bytes(b"no picture")
    drawn = task("cub", 0, OPTIONS | {"on_damage": "skip"})
    said = capsys.readouterr().out
    assert said.count("left out, damaged: ") == 4 and "Bird_1_101.jpg" in said
    cfg = config(net={"kind": "resnet10t", "dim": 8}, train={"batch": 4, "epochs": 1, "looks": 1})
    fit, held = drawn.train.of(torch.tensor([0, 2])), drawn.train.of(torch.tensor([1, 3]))
    embedder, seen = training.train(cfg, TUNED, (fit, held), 1, tmp_path / "fold-0")
    assert len(seen.held) == 1 and 0 <= seen.held[0] <= 1
    assert scores([embedder], drawn).matches.tolist() == [2, 2, 2]


@pytest.mark.usefixtures("birds")
def test_a_look_leaves_the_network_alone(tmp_path: Path) -> None:
    """Also where Proxy-ISA is diagnosed: a rival's running statistics see the training's batches only."""
    drawn = task("cub", 0, OPTIONS)
    cfg = config(net={"kind": "resnet10t", "dim": 8}, train={"batch": 4, "epochs": 3, "looks": 3})
    embedder, seen = training.train(cfg, TUNED, folds(drawn.train, 2, 0)[0], 1, tmp_path / "fold-0")
    counts = {int(value) for name, value in embedder.state_dict().items() if "num_batches" in name}
    assert len(seen.held) == 2 and seen.held[1] > seen.held[0], "the best weights are those after a look"
    assert counts == {4}, "of four batches; the first look's diagnosis is none of them"


@pytest.mark.usefixtures("birds")
def test_crops_are_random_in_training_alone_and_a_function_of_the_step() -> None:
    train = photographs.cub(0, OPTIONS).train
    chosen = torch.tensor([0, 5])
    a, b, c = train.take(chosen, 3), train.take(chosen, 3), train.take(chosen, 4)
    assert a.shape == (2, 3, 224, 224) and torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(train.take(chosen), train.take(chosen))
    assert not torch.equal(photographs.cub(1, OPTIONS).train.take(chosen, 3), a)
    some = train.of(torch.tensor([1]))
    assert torch.equal(some.take(torch.tensor([0])), train.take(torch.tensor([3])))


@pytest.mark.usefixtures("clothes")
def test_queries_are_looked_up_in_the_gallery() -> None:
    drawn = task("inshop", 0, OPTIONS)
    assert drawn.gallery is not None
    assert (len(drawn.train.y), len(drawn.test.y), len(drawn.gallery.y)) == (12, 2, 4)

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x.mean((2, 3))

    assert scores([Pixels()], drawn).matches.tolist() == [2, 2]


@pytest.mark.usefixtures("birds")
def test_no_thread_to_decode_with_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"data\.workers = 0: .* 1 or more"):
        task("cub", 0, OPTIONS | {"workers": 0})


def test_an_absent_data_set_says_how_to_get_it(root: Path) -> None:
    for name, folder in (("cub", "CUB_200_2011"), ("sop", "Stanford_Online_Products")):
        with pytest.raises(BadInputError, match=folder):
            task(name, 0, OPTIONS)
