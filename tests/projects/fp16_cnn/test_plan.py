"""The planner on networks: errors, borders, the command line, a saved plan, and the stage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.errors import BadInputError
from common.study.model import JobRef, Member
from projects.fp16_cnn import execute, plan, planning, plans, reference, sensitivity, subjects, timetable
from projects.fp16_cnn.graph import import_model
from projects.fp16_cnn.learn import FILE, Trained, save
from projects.fp16_cnn.nets import build
from projects.fp16_cnn.network import compile_network

IMAGES = {"classes": 5, "size": 24, "train": 40, "validation": 20, "draws": 40}
EFFORT = timetable.Effort(1, 0.001, False)


class Fork(nn.Module):
    """Two layers read one value, one of them behind a pool; a residual sum needs no storage of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.max_pool2d(x, 2)
        z = F.max_pool2d(F.relu(self.left(x)), 2) + self.right(y)
        return self.head(z.mean((2, 3)))


@pytest.fixture(scope="module")
def fork() -> subjects.Subject:
    torch.manual_seed(0)
    net, x = Fork().eval(), torch.randn(8, 3, 10, 10)
    return subjects.Subject(net, import_model(net, x[:1]), x[:4], x[4:], None, "a fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `learn` job whose network has random weights and calibrated batch norms."""
    torch.manual_seed(3)
    net = build("small_resnet", 5)
    subjects.calibrate(net, torch.randn(32, 1, 24, 24))
    found = tmp_path_factory.mktemp("learn")
    save(Trained(net, "small_resnet", 3, IMAGES), found / FILE)
    return found


def test_a_layers_error_is_that_of_the_whole_network_with_this_layer_lowered(fork: subjects.Subject) -> None:
    names = ("f32", "f16s", "bf16")
    found = sensitivity.sensitivities(fork.program, fork.known, names, batch=3)
    exact = reference.run(fork.program, fork.known, torch.float32)
    for layer, by_name in found.items():
        assert by_name["f32"] == 0.0
        for name in names[1:]:
            changed = reference.run(fork.program, fork.known, torch.float32, {layer: name})
            # The last layer's own outputs are rounded here and stay fp32 there.
            close = 0.1 if layer == "head" else 1e-3
            assert by_name[name] == pytest.approx(float((changed - exact).norm() / exact.norm()), rel=close)


def test_a_layer_that_overflows_in_half_precision_is_planned_in_another(fork: subjects.Subject) -> None:
    loud = replace(fork, known=fork.known * 1e6, held=fork.held * 1e6)
    problem = planning.problem_of(loud, 1, EFFORT)
    assert "f16s" not in problem.table["stem"] and "f32" in problem.table["stem"]
    (line, *_) = [line for line in plan.left_out(problem) if "in f16s" in line]
    assert "stem" in line
    planned = planning.make(loud, problem, "error", 0.05)
    assert planning.measure(loud, planned.plans, 1, EFFORT)["planned"].error < 0.1


def test_a_layers_time_is_that_within_its_network(fork: subjects.Subject) -> None:
    found = timetable.timetable(fork.program, 2, timetable.Effort(3, 0.002, False))
    names = [layer.name for layer in fork.program.layers]
    assert list(found.layers) == names and found.rest > 0
    whole = sum(found.layers[name]["f32"] for name in names) + found.rest
    network = compile_network(fork.program, "f32", 2)
    images = torch.zeros(2, 3, 10, 10).numpy()
    turns = network.stamped(images)()
    assert len(turns) == len(network.turns) and (turns > 0).all()
    assert 0.2 < whole / network.time(200) < 1.5  # a run also checks and copies the images in Python


@pytest.mark.parametrize("operator", [nn.GELU(), nn.ReLU()])
def test_a_stamped_run_leaves_the_same_logits(operator: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), operator, nn.Flatten(), nn.Linear(8 * 6 * 6, 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    network = compile_network(import_model(net, x, fallback=True), "f32", 2)
    expected = network.run(x)
    network.run(x * 0)
    network.stamped(x)()
    assert (network.buffers[network.program.output].read().reshape(2, 4) == expected).all()


def test_the_share_of_turned_answers_is_that_of_noise() -> None:
    torch.manual_seed(1)
    logits, error = torch.randn(50, 10), 0.2
    turned = 0.0
    for _ in range(400):
        noise = torch.randn_like(logits) * error * logits.norm(dim=1, keepdim=True) / math.sqrt(10)
        second = logits.topk(2).indices
        difference = (logits + noise).gather(1, second)
        turned += float((difference[:, 1] > difference[:, 0]).float().mean()) / 400
    assert sensitivity.disagreement_at(error, logits) == pytest.approx(turned, rel=0.1)
    assert sensitivity.disagreement_at(sensitivity.error_for(0.05, logits), logits) == pytest.approx(
        0.05, rel=1e-6
    )
    with pytest.raises(BadInputError, match=r"between 0 and 0\.5"):
        sensitivity.error_for(0.7, logits)


@pytest.mark.parametrize(
    "chosen",
    [("f16s", "f16s", "f16s"), ("f16s", "bf16", "f32"), ("f32", "f16s", "bf16"), ("bf16", "f32", "bf16")],
)
def test_a_border_costs_where_the_network_makes_a_copy(fork: subjects.Subject, chosen: Sequence[str]) -> None:
    stem, left, right, head = (layer.name for layer in fork.program.layers)
    given = dict(zip((stem, left, right), chosen, strict=True)) | {head: "f32"}
    problem = planning.Problem(
        {name: {p: planning.Choice(0.0, 0.0) for p in ("f32", "f16s", "bf16")} for name in given},
        timetable.borders(fork.program, 1, EFFORT),
    )
    turns = compile_network(fork.program, given, 1).turns
    copies = [turn.step.name for turn in turns if " as " in turn.step.name]
    assert (problem.seconds(given) > 0) == bool(copies)


def test_a_plan_keeps_its_budget_on_images_that_it_was_not_made_from(fork: subjects.Subject) -> None:
    problem = planning.problem_of(fork, 1, EFFORT)
    planned = planning.make(fork, problem, "error", 2e-3)
    measured = planning.measure(fork, planned.plans, 1, EFFORT)
    assert problem.error(planned.plans["planned"]) <= 2e-3
    assert measured["planned"].error < 2 * 2e-3
    assert measured["f32"].error < 1e-5 < measured["half"].error and measured["f32"].agreement == 1.0
    assert all(each.seconds > 0 for each in measured.values())
    answers = planning.make(fork, problem, "agreement", 0.01)
    assert answers.turned["planned"] <= 0.01 + 1e-9
    with pytest.raises(BadInputError, match="metric 'logits'"):
        planning.make(fork, problem, "logits", 0.01)


def test_the_stage(folder: Path, tmp_path: Path) -> None:
    options = {"batch": 1, "rounds": 1, "sample": 0.001, "tuned": False}
    cfg = {"plan": options, "axes": {"net": "small_resnet", "seed": 3}}
    members = [
        Member(
            cfg,
            {"learn": [JobRef({}, folder, {})]},
            tmp_path / str(budget),
            {**cfg["axes"], "budget": budget},
        )
        for budget in (1e-3, 1e-2)
    ]
    for member in members:
        member.out.mkdir()
    strict, loose = plans.run(members)
    assert strict["predicted_error"] <= 1e-3 and loose["predicted_error"] <= 1e-2
    assert strict["predicted_gain"] <= loose["predicted_gain"]
    for member, found in zip(members, (strict, loose), strict=True):
        assert found["layers"] == len(json.loads((member.out / plans.FILE).read_text()))
        assert found["ahead_of_greedy"] >= 0.999 and found["predicted_gain"] >= 1.0
        assert found["gain"] == pytest.approx(found["f32_ms"] / found["planned_ms"])


OWN = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 4)), torch.randn(6, 3, 8, 8)

def integers():
    return nn.Flatten(), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)

def nothing():
    return 3

def fails():
    raise RuntimeError("no weights")

def single():
    net, images = build()
    net[-1] = nn.Linear(net[-1].in_features, 1)
    return net, images

def broken():
    net, images = build()
    return net, images * float("nan")

attribute = 5
"""


def test_the_command_plans_saves_and_runs_a_users_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, kept = tmp_path / "own.py", tmp_path / "plan.json"
    file.write_text(OWN)
    model, quick = f"{file}:build", ["--untuned", "--rounds", "1"]
    assert plan.main([model, "--budget", "0.3", "--metric", "agreement", "--save", str(kept), *quick]) == 0
    shown = capsys.readouterr().out
    assert "Sequential of own.py on its 6 images" in shown and "on 3 images that no choice" in shown
    assert all(
        word in shown for word in ("plan", "from the tail", "all f32", "corresponds to a relative error")
    )
    saved = json.loads(kept.read_text())
    assert set(saved["plan"]) == {"0", "3"} and saved["metric"] == "agreement"
    assert plan.main([model, "--run", str(kept), *quick]) == 0
    assert "predicted: ms, error" in capsys.readouterr().out
    subject = plan.find(model, 4, 224)
    assert execute.logits(subject.program, saved["plan"], subject.held).shape == (3, 4)
    kept.write_text(json.dumps({"plan": {"conv9": "f16s"}}))
    assert plan.main([model, "--run", str(kept), *quick]) == 2
    assert "unknown layer 'conv9'" in capsys.readouterr().err


def test_weights_of_a_known_architecture_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    held = torchvision.models.resnet18(num_classes=1000)
    torch.save(held.state_dict(), tmp_path / "mine.pth")
    subject = plan.find("resnet18", 2, 64, tmp_path / "mine.pth")
    assert "the weights of mine.pth" in subject.words
    exact = held.eval()(subject.held)
    torch.testing.assert_close(
        reference.run(subject.program, subject.held).float(), exact, rtol=1e-4, atol=1e-4
    )


def test_operators_that_torch_runs_are_named(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("nn.ReLU()", "nn.GELU()"))
    (line,) = plan.by_torch(plan.find(f"{file}:build", 4, 224))
    assert "run by torch" in line and "gelu" in line


def test_a_budget_that_held_out_images_exceed_is_told() -> None:
    own = planning.Measured(error=0.02, agreement=0.75, seconds=1.0)
    assert plan.overrun(own, "error", 0.02) == [] and plan.overrun(own, "agreement", 0.25) == []
    (line,) = plan.overrun(own, "error", 0.01)
    assert "uses 2.00 of its budget" in line and "A budget of 0.005 leaves room" in line
    (line,) = plan.overrun(own, "agreement", 0.1)
    assert "uses 2.50 of its budget" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet81"], "unknown network 'resnet81'. Did you mean"),
        (["{file}"], "say which function builds the network"),
        (["{file}:missing"], "has no function 'missing'"),
        (["{file}:attribute"], "has no function 'attribute'"),
        (["{file}:nothing"], "must return a torch module"),
        (["{file}:integers"], "tensor [n, channels, height, width]"),
        (["absent.py:build"], "no file absent.py"),
        (["{file}:build", "--budget", "0"], "must be a positive number"),
        (["{file}:build", "--budget", "nan"], "must be a positive number"),
        (["{file}:build", "--budget", "0.6", "--metric", "agreement"], "a share between 0 and 0.5"),
        (["{file}:build", "--batch", "0"], "--batch must be at least 1"),
        (["{file}:build", "--save", "/nowhere/plan.json"], "name a file in a folder that exists"),
        (["{file}:build", "--save", "/"], "name a file in a folder that exists"),
        (["{file}:build", "--rounds", "0"], "--rounds must be at least 1"),
        (["{file}:fails"], "fails() failed: RuntimeError: no weights"),
        (["{file}:single"], "logits [n, classes] of two classes or more, not [3, 1]"),
        (["{file}:broken"], "the logits are not finite in fp32 either"),
        (["{file}:build", "--run", "absent.json"], "absent.json holds no plan"),
        (["{file}:build", "--weights", "w.pth"], "--weights belongs to a torchvision name"),
        (["resnet18", "--weights", "absent.pth"], "no weights at absent.pth"),
        (["absent.ckpt"], "checkpoint absent.ckpt cannot be used"),
        (["resnet18", "--images", "0"], "--images and --size must be at least 1"),
    ],
)
def test_bad_input_ends_with_one_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    given = [argument.replace("{file}", str(file)) for argument in arguments]
    assert plan.main(["--untuned", "--rounds", "1", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
