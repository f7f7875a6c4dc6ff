"""The report's section on repeated runs: what it says, and that it says nothing about another table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadInputError
from common.study.report import pages
from common.study.report.repeated import told
from tests.common.study.report_example import HOSTILE, example_study, write_example

STUDY = replace(example_study(), claims=(), curves=())  # quick to draw
ENTRY: dict[str, Any] = {
    "commit": "4f2a9c1d" * 5,
    "dirty": False,
    "cpu": "An EPYC",
    "gpus": [],
    "scale": "laptop",
    "seeds": [0],
    "jobs": 51,
    "equal": 51,
    "changed": 0,
    "differing": [],
    "more": 0,
    "packages": {},
}


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    table = hashlib.sha256((folder / "table.csv").read_bytes()).hexdigest()
    (folder / "repeated.json").write_text(json.dumps([{"table": table} | entry for entry in entries]))
    return folder


def test_equal_numbers_are_one_sentence() -> None:
    assert told(ENTRY) == (
        "At commit 4f2a9c1 on An EPYC, 51 of 51 repeated jobs (seed 0) gave the same numbers to the last digit."
    )
    assert told(ENTRY | {"dirty": True, "gpus": ["A GPU"], "seeds": [0, 1], "commit": None}).startswith(
        "At an unknown commit with uncommitted changes on An EPYC, A GPU, 51 of 51 repeated jobs (seeds 0, 1)"
    )


def test_what_differs_is_named_with_its_size() -> None:
    sizes = [None, 0.5, 1.25e-7, 1e-9, 1e-10, 1e-11]
    differing = [
        {"stage": "imitate", "metric": f"m{i}", "jobs": i + 1, "largest": size}
        for i, size in enumerate(sizes)
    ]
    text = told(
        ENTRY
        | {
            "equal": 40,
            "changed": 3,
            "differing": differing,
            "more": 2,
            "packages": {"torch": ["2.1", "2.2"]},
        }
    )
    assert "40 of 51 repeated jobs" in text
    assert (
        "The others differ in imitate m0 (1 job, no longer measured); imitate m1 (2 jobs, by at most 0.5 of"
        in text
    )
    assert "imitate m2 (3 jobs, by at most 1.25 × 10⁻⁷ of its value)" in text
    assert "m5" not in text and "; and 3 more." in text
    assert "3 of the repeated jobs ran other code" in text
    assert text.endswith("Other versions than the evidence’s: torch 2.2 (was 2.1).")


def test_the_section_stands_before_the_environment_and_speaks_of_this_table_alone(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", STUDY)
    plain = pages(STUDY, folder)
    assert not any("epeated" in text for text in plain.values())
    made = pages(STUDY, write(folder, ENTRY, ENTRY | {"cpu": HOSTILE}))
    for name, heading in (("report.md", "## How it was run"), ("report.html", '<h2 id="run">')):
        section = made[name].partition(heading)[0]
        assert section.count("51 of 51 repeated jobs (seed 0)") == 2, name
    assert "<script>document" not in made["report.html"] and "<script" not in made["report.md"]
    assert '<a href="#repeated">' in made["report.html"] and "and repeated.json" in made["report.html"]
    with (folder / "table.csv").open("a") as table:
        table.write("opirl,laptop,imitate,done,study,x,pendulum,opirl,0,1.0,1.0\n")
    assert "51 of 51" not in "".join(pages(STUDY, folder).values())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", STUDY)
    (folder / "repeated.json").write_text("[{")
    with pytest.raises(BadInputError, match=r"damaged .*restore it from git"):
        pages(STUDY, folder)
