"""Composition: layers in order, and every mistake ends with the nearest valid name before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadInputError
from common.study.config import ROOT, check_names, compose, flatten, lookup, projects, scales

BASE = """# @package _global_
model: {width: 4, rate: 0.5, name: tanh, deep: {er: {x: 1}}, flag: true, sizes: [1, 2], nothing: null, steps: 5}
grid: {train: [{arm: [a, b]}]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one project of two scales."""
    (tmp_path / "projects" / "demo").mkdir(parents=True)
    (tmp_path / "projects" / "demo" / "study.py").touch()
    (tmp_path / "projects" / "no_study_here").mkdir()
    shutil.copytree(ROOT / "configs" / "launch", tmp_path / "configs" / "launch")
    shutil.copy(ROOT / "configs" / "config.yaml", tmp_path / "configs")
    folder = tmp_path / "configs" / "project" / "demo"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "laptop.yaml").write_text("# @package _global_\ndefaults: [base, _self_]\nmodel: {width: 8}\n")
    (folder / "smoke.yaml").write_text(
        "# @package _global_\ndefaults: [base, _self_]\nseeds: {first: 0, count: 2}\n"
    )
    return tmp_path


def test_a_scale_lies_over_the_base_and_the_base_over_the_root(root: Path) -> None:
    laptop, smoke = compose("demo", "laptop", root=root), compose("demo", "smoke", root=root)
    assert (laptop["model"]["width"], smoke["model"]["width"]) == (8, 4)
    assert (laptop["seeds"]["count"], smoke["seeds"]["count"]) == (8, 2)
    assert laptop["model"]["rate"] == 0.5
    assert laptop["launch"] == {"executor": "local", "cores": None}
    assert laptop["device"] == "cpu"
    assert "hydra" not in laptop


def test_an_override_changes_its_key_and_nothing_else(root: Path) -> None:
    base = dict(flatten(compose("demo", "laptop", root=root)))
    changed = dict(flatten(compose("demo", "laptop", ["model.rate=3e-5", "model.deep.er.x=7"], root=root)))
    assert {key: value for key, value in changed.items() if base[key] != value} == {
        "model.rate": 3e-5,
        "model.deep.er.x": 7,
    }
    assert base.keys() == changed.keys()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.rate=2", "model.rate", 2),  # a whole number where a number stood
        ("model.width=8.0", "model.width", 8.0),
        ("model.name=relu", "model.name", "relu"),
        ("model.flag=false", "model.flag", False),
        ("model.sizes=[4,5,6]", "model.sizes", [4, 5, 6]),
        ("model.nothing=3", "model.nothing", 3),  # a null says nothing about its type
        ("model.width=null", "model.width", None),
        ("seeds.count=3", "seeds.count", 3),
    ],
)
def test_values_of_the_right_type_are_taken(root: Path, override: str, key: str, value: Any) -> None:
    assert dict(flatten(compose("demo", "laptop", [override], root=root)))[key] == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.widht=3", "unknown config key 'model.widht'. Did you mean 'model.width'?"),
        ("modl.width=3", "Did you mean 'model.width'?"),
        ("model.width.x=3", "unknown config key"),
        ("model.width=three", "model.width takes a value of type int, not 'three'"),
        ("model.width=1.5", "model.width takes a whole number, not 1.5"),
        ("model.flag=1", "model.flag takes a value of type bool, not 1"),
        ("model.width=true", "model.width takes a value of type int, not True"),
        ("model.rate=[1]", "model.rate takes a value of type float"),
        ("model.sizes=3", "model.sizes takes a value of type list"),
        ("model.rate=inf", "model.rate takes a finite number, not inf"),
        ("model.width=nan", "model.width takes a finite number, not nan"),
        ("model.nothing=off", "model.nothing takes true or false, not 'off'"),  # it would count as true
        ("model.nothing=-inf", "model.nothing takes a finite number"),
        ("model.steps=0", "model.steps takes a number above 0, not 0"),
        ("model.width", "not of the form key=value"),
        ("+model.new=1", "new keys cannot be added"),
        ("~model.width", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("model.name='", "configuration of demo at scale laptop"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(root: Path, override: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        compose("demo", "laptop", [override], root=root)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_names_are_those_of_files(root: Path) -> None:
    assert projects(root) == ["demo"]
    assert scales("demo", root) == ["smoke", "laptop"]  # by size; base.yaml is no scale
    check_names("demo", "laptop", "local", root)
    for names, message in [
        (("dmeo", "laptop", "local"), "unknown PROJECT 'dmeo'. Did you mean 'demo'?"),
        (("demo", "paper", "local"), "unknown SCALE 'paper'"),
        (("demo", "laptop", "locl"), "unknown LAUNCH 'locl'. Did you mean 'local'?"),
        (("", "laptop", "local"), "For example PROJECT=demo"),
        (("../demo", "laptop", "local"), "unknown PROJECT"),
    ]:
        with pytest.raises(BadInputError) as caught:
            check_names(*names, root)
        assert message in str(caught.value)


@pytest.mark.parametrize("text", ["model:\n  extra: ???", "model:\n  width: ${no.such.key}", "model: ["])
def test_a_file_that_does_not_compose_is_bad_input(root: Path, text: str) -> None:
    path = root / "configs" / "project" / "demo" / "laptop.yaml"
    path.write_text(f"# @package _global_\ndefaults: [base, _self_]\n{text}\n")
    with pytest.raises(BadInputError, match="configuration of demo at scale laptop"):
        compose("demo", "laptop", root=root)


def test_lookup_and_flatten_are_inverse() -> None:
    tree = {"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}
    assert dict(flatten(tree)) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}
    assert all(lookup(tree, key) == value for key, value in flatten(tree))
    with pytest.raises(BadInputError, match=r"Did you mean 'a\.b'"):
        lookup(tree, "a.bb")
