"""All results at a glance: the dashboard, the README's table, and the commands that write them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from house import House

from common.errors import BadInputError
from common.files import write_json
from common.study.report import build, readme, render
from common.study.report.data import load
from common.study.report.overview import find, verdict_table
from common.study.report.site import run_data, script_json
from tests.common.study.report_example import HOSTILE, example_study, hostile_study, write_example

STUDY = example_study()
SMALL = replace(STUDY, claims=STUDY.claims[:2])
STALE = "the code moved on"


def result(root: Path, scale: str = "laptop", points: int = 5) -> Path:
    """results/opirl/<scale> of the small study."""
    return write_example(root / "results" / "opirl" / scale, SMALL, curve_points=points)


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    """What the script of a runs page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_site_lists_every_claim_at_every_scale(tmp_path: Path) -> None:
    for scale in ("paper", "laptop", "smoke", "laptop+12345678"):
        result(tmp_path, scale)
    render(SMALL, tmp_path / "results" / "opirl" / "laptop")
    empty = replace(SMALL, name="none", title="Not run")
    index = build(tmp_path / "results", tmp_path / "site", [SMALL, empty])
    text = index.read_text()
    heads = re.findall(r'<th scope="col">([^< ]+)', text)
    assert heads == ["Claim", "Statement", "smoke", "laptop", "laptop+12345678", "paper", *heads[6:]]
    assert text.count("OPIRL reaches 80 % of the expert’s return") == 2  # once a thesis
    assert 'href="opirl/laptop/report.html#claim-fewer-interactions"' in text
    assert 'href="opirl/paper/report.html' not in text  # no report was written there
    assert "No result yet: <code>make reproduce PROJECT=none</code>" in text
    assert "2 theses, 4 results. At the largest scale that ran: 1 supported, 1 contradicted." in text
    links = re.findall(r'href="([^"#]+)', text)
    assert all(link == "data:," or (index.parent / link.replace("%2B", "+")).is_file() for link in links), (
        links
    )
    assert (index.parent / "opirl/laptop/report.html").read_bytes() == (
        tmp_path / "results/opirl/laptop/report.html"
    ).read_bytes()


def test_the_site_says_what_is_stale_and_what_is_superseded(tmp_path: Path) -> None:
    result(tmp_path)
    fresh = build(tmp_path / "results", tmp_path / "site", [SMALL]).read_text()
    assert "stale" not in fresh
    assert "superseded" not in fresh
    edited = replace(SMALL, claims=(SMALL.claims[0], replace(SMALL.claims[1], margin=1.0)))
    index = build(tmp_path / "results", tmp_path / "site", [edited], stale={("opirl", "laptop"): STALE})
    text = index.read_text()
    assert f"laptop is stale: {STALE}." in text
    assert "laptop is superseded: final-return: it was changed in study.py after this run." in text
    assert text.count("<small>superseded</small>") == 1


def test_building_again_is_the_same_and_removes_old_pages(tmp_path: Path) -> None:
    result(tmp_path)
    result(tmp_path, "smoke")
    site = tmp_path / "site"
    build(tmp_path / "results", site, [SMALL])
    pages = {path: path.read_bytes() for path in site.rglob("*.html")}
    assert build(tmp_path / "results", site, [SMALL]) == site / "index.html"
    assert {path: path.read_bytes() for path in site.rglob("*.html")} == pages
    (tmp_path / "results/opirl/smoke/claims.json").unlink()
    build(tmp_path / "results", site, [SMALL])
    assert {path for path in pages if not path.is_file()} == {site / "opirl/smoke/runs.html"}


def test_run_curves_are_those_of_the_table(tmp_path: Path) -> None:
    folder = result(tmp_path, points=7)
    found = run_data(SMALL, load(folder))["stages"]
    assert [stage["name"] for stage in found] == ["imitate"]
    stage = found[0]
    assert [axis["name"] for axis in stage["axes"]] == ["env", "method", "seed"]
    assert stage["axes"][2]["values"] == [*"01234567", "900"]
    assert stage["axes"][2]["off"] == ["900"]  # a validation seed starts switched off
    assert stage["keys"] == ["loss", "return"]
    assert len(stage["curves"]) == 2 * 3 * 3 * 9
    rows = load(folder).curves
    for key, (env, method, seed), x, ys in stage["curves"][::17]:
        axes = stage["axes"]
        where = {
            "env": axes[0]["values"][env],
            "method": axes[1]["values"][method],
            "key": stage["keys"][key],
        }
        where |= {"seed": int(axes[2]["values"][seed])}
        mine = [row for row in rows if where.items() <= row.items()]
        assert stage["xs"][x] == tuple(row["step"] for row in mine)
        assert ys == pytest.approx([row["value"] for row in mine], rel=1e-4)


def test_text_cannot_leave_the_data_of_a_page(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "results" / "opirl" / "laptop", SMALL, curve_points=2)
    (folder / "curves.csv").write_text(
        f'stage,method,seed,step,key,value\nimitate,"</script>{HOSTILE}",0,0,return,1\n'
    )
    build(tmp_path / "results", tmp_path / "site", [hostile_study()])
    text = (tmp_path / "site" / "opirl" / "laptop" / "runs.html").read_text()
    assert text.count("<script") == 2
    assert data_of(text)["stages"][0]["axes"][0]["values"] == [f"</script>{HOSTILE}"]  # type: ignore[index]
    assert "<script>document" not in (tmp_path / "site" / "index.html").read_text()
    with pytest.raises(ValueError, match="Out of range"):
        script_json(float("nan"))


def test_results_are_found_by_scale_then_change(tmp_path: Path) -> None:
    for scale in ("paper", "odd", "laptop+b", "smoke", "laptop"):
        result(tmp_path, scale)
    (tmp_path / "results" / "opirl" / "workstation").mkdir()
    found = [each.scale for each in find(tmp_path / "results", "opirl")]
    assert found == ["smoke", "laptop", "laptop+b", "paper", "odd"]


def test_the_readme_table(tmp_path: Path) -> None:
    for scale in ("smoke", "laptop", "laptop+12345678"):
        result(tmp_path, scale)
    empty = replace(SMALL, name="none", title="A | B")
    table = verdict_table(tmp_path / "results", [SMALL, empty], {("opirl", "laptop"): STALE})
    assert table.splitlines()[2:] == [
        "| [Off-policy inverse reinforcement learning via distribution matching](projects/opirl/README.md) "
        f"| laptop (stale: {STALE}) | fewer-interactions: ✓ supported; final-return: ✗ contradicted "
        "| [report](results/opirl/laptop/report.md) |",
        r"| [A \| B](projects/none/README.md) | – | no result yet | – |",
    ]
    path = tmp_path / "results/opirl/laptop/claims.json"
    written = path.read_text()
    held = json.loads(written)
    held["claims"][1]["primary"] = False
    path.write_text(json.dumps(held))
    row = verdict_table(tmp_path / "results", [SMALL]).splitlines()[2]
    assert "| fewer-interactions: ✓ supported; 1 secondary: 1 contradicted |" in row
    path.write_text(written)
    edited = replace(SMALL, claims=(SMALL.claims[0], replace(SMALL.claims[1], id="new")))
    row = verdict_table(tmp_path / "results", [edited]).splitlines()[2]
    assert (
        "fewer-interactions: ✓ supported; final-return: ✗ contradicted (superseded); new: not run (superseded)"
        in row
    )


def test_a_scale_that_assesses_nothing_is_one_line_of_the_table(tmp_path: Path) -> None:
    path = result(tmp_path, "hopper") / "claims.json"
    held = json.loads(path.read_text())
    held["claims"] = [claim | {"verdict": "not assessed"} for claim in held["claims"]]
    path.write_text(json.dumps(held))
    row = verdict_table(tmp_path / "results", [SMALL]).splitlines()[2]
    assert "| hopper | curves only: none of 2 claims assessed |" in row


def test_only_the_text_between_the_markers_changes(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Title\n\n<!-- verdicts -->\nold\n<!-- /verdicts -->\n\nrest\n")
    text = readme(path, tmp_path / "results", [SMALL])
    table = verdict_table(tmp_path / "results", [SMALL])
    assert text == f"# Title\n\n<!-- verdicts -->\n{table}<!-- /verdicts -->\n\nrest\n"
    path.write_text(text)
    assert readme(path, tmp_path / "results", [SMALL]) == text
    path.write_text("# Title\n<!-- verdicts -->\n")
    with pytest.raises(BadInputError, match="put them back"):
        readme(path, tmp_path / "results", [SMALL])


def test_render_and_dashboard_from_the_command_line(house: House) -> None:
    head = {
        "project": "toy",
        "scale": "laptop",
        "fingerprint": "0" * 64,
        "commit": "c",
        "cpu": "x",
        "claims": [],
    }
    results = house.root / "results" / "toy"
    for scale in ("laptop", "smoke", "laptop+12345678"):
        (results / scale).mkdir(parents=True)
        write_json(results / scale / "claims.json", head)
    overview = house.root / "README.md"
    overview.write_text("# Toy\n<!-- verdicts -->\n<!-- /verdicts -->\n")
    before = house.run("render", "--check", code=1)
    assert "README.md" in before
    assert "results/toy/laptop/report.html" in before
    assert [path.name for path in results.rglob("*") if path.is_file()] == [
        "claims.json"
    ] * 3  # nothing was written
    house.run("render")
    assert sorted(path.name for path in (results / "laptop").iterdir()) == [
        "claims.json", "figures", "report.html", "report.md",
    ]  # fmt: skip
    assert not (results / "smoke" / "report.md").exists()
    assert "superseded" in (results / "laptop" / "report.md").read_text()
    assert "| fast-wins: not run (superseded) |" in overview.read_text()
    assert house.run("render", "--check") == ""
    (results / "laptop" / "report.md").write_text("typed by hand")
    assert "differs from what the tables give: results/toy/laptop/report.md\n" in house.run(
        "render", "--check", code=1
    )
    assert house.run("dashboard") == "dashboard: results/.site/index.html\n"
    assert "laptop is stale" in (house.root / "results" / ".site" / "index.html").read_text()


def test_nothing_to_do_imports_no_matplotlib(house: House) -> None:
    house.run("reproduce", "--project", "toy", "--scale", "smoke")
    code = (
        "import sys; from common.study.__main__ import main; "
        "code = main(['reproduce', '--project', 'toy', '--scale', 'smoke']); "
        "print([name for name in ('matplotlib', 'torch', 'jinja2') if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=house.root, env=house.environment(), capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert "nothing to do" in done.stdout
    assert done.stdout.endswith("[] 0\n"), done.stdout
