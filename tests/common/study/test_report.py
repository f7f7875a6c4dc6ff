"""The report of one result, as its reader meets it: report.md, report.html, figures/."""

from __future__ import annotations

import html
import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.errors import BadInputError
from common.study.report import differences, pages, render
from common.study.report.page import markdown_text
from common.study.report.style import SHADE
from tests.common.study.report_example import HOSTILE, VERDICTS, example_study, hostile_study, write_example

ROOT = Path(__file__).resolve().parents[3]
STUDY = example_study()
SORT = (ROOT / "common/study/report/templates/sort.js").read_text().strip()  # the one script of a page
SMALL = replace(STUDY, claims=STUDY.claims[:3], curves=())  # quick to draw


def scripts(text: str) -> list[str]:
    return [found.strip() for found in re.findall(r"<script>(.*?)</script>", text, re.DOTALL)]


class Page(HTMLParser):
    """Tables and fact lists in the order of the page, its tags, and what is outside style sheets and drawings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._hidden, self._cell = 0, False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append((tag, known))
        self._hidden += tag in ("style", "svg", "script")
        if tag == "table" or (tag == "dl" and known.get("class") == "facts"):
            self.tables.append([] if tag == "table" else [[], []])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        self._cell = self._cell or tag in ("th", "td")
        if tag in ("dt", "dd") and self.tables and len(self.tables[-1]) == 2 and self._facts:
            self.tables[-1][tag == "dd"].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "svg", "script")
        if tag in ("th", "td", "dt", "dd"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self.words += data
        if self._cell:
            table = self.tables[-1]
            row = table[-1] if not self._facts else table[self.tags[-1][0] != "dt"]
            row[-1] += data

    @property
    def _facts(self) -> bool:
        opened = [known.get("class") for tag, known in self.tags if tag in ("table", "dl")]
        return bool(opened) and opened[-1] == "facts"


def squeezed(cell: str) -> str:
    """A cell without blanks and Markdown's marks."""
    text = re.sub(r"\[([^]]*)\]\(#[^)]*\)", r"\1", cell).replace("**", "")
    return re.sub(r"\s", "", html.unescape(re.sub(r"\\(.)", r"\1", text)))


def html_tables(text: str) -> list[list[list[str]]]:
    """Every table of report.html but the verdict table's drawn column and the verdicts' meanings."""
    tables = [[[squeezed(cell) for cell in row] for row in table] for table in Page(text).tables]
    for row in tables[0]:
        del row[6]
    return tables


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Every table of report.md."""
    tables: list[list[list[str]]] = []
    last = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not last.startswith("|"):
                tables.append([])
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            if not all(set(cell.strip()) <= {"-", ":"} and cell.strip() for cell in cells):
                tables[-1].append([squeezed(cell) for cell in cells])
        last = line
    return tables


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example's files, made once."""
    return pages(STUDY, write_example(tmp_path_factory.mktemp("report") / "opirl" / "laptop"))


def edit_claims(folder: Path, **changes: Any) -> None:
    """Change the first claim of claims.json."""
    path = folder / "claims.json"
    head = json.loads(path.read_text())
    head["claims"][0] |= changes
    path.write_text(json.dumps(head))


def test_markdown_and_html_hold_the_same_tables(example: dict[str, str]) -> None:
    ours, theirs = markdown_tables(example["report.md"]), html_tables(example["report.html"])
    assert len(ours) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert a == b


def test_the_verdict_table_repeats_claims_json(example: dict[str, str], tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop")
    entries = json.loads((folder / "claims.json").read_text())["claims"]
    rows = markdown_tables(example["report.md"])[0][1:]
    assert [row[0] for row in rows] == [
        entry["id"] + ("" if entry["primary"] else "(secondary)") for entry in entries
    ]
    assert [row[2].lstrip("✓✗?∅!–") for row in rows] == [each.replace(" ", "") for each in VERDICTS]
    # The first effect is a log ratio: exp(1.10...) by hand, and its interval's ends.
    assert rows[0][3:6] == ["×3.02", "[×2.24,×4.09]", ">×1"]
    assert rows[1][5] == ">−40", "worse by less than the margin is not worse"
    assert rows[1][3].startswith(f"−{abs(entries[1]['effect']):.1f}")


def test_each_claim_shows_what_its_reader_needs(example: dict[str, str]) -> None:
    text = example["report.md"]
    first = text[text.index('<a id="claim-fewer-interactions">') : text.index('<a id="claim-final-return">')]
    assert "(figures/claim-fewer-interactions.svg)" in first
    assert "*Negative control:* OPIRL, buffer cut to the last rollout." in first
    assert "*What this scale cannot show.* The published tasks have 17 to 111 observations" in first
    second = text[text.index('<a id="claim-final-return">') : text.index('<a id="claim-transfer">')]
    assert "| AIRL, Ant | 991 return | thesis, table 2 | on-policy, 3 M steps |" in second
    ours = next(
        line for line in second.splitlines() if line.startswith("| OPIRL | ") and "this study" in line
    )
    values = [float(row[1]) for row in markdown_tables(second)[-1][1:]]  # every replicate's own number
    mean, sd = re.findall(r"[\d.]+", ours)[:2]
    assert float(mean) == pytest.approx(statistics.fmean(values), rel=5e-3)
    assert float(sd) == pytest.approx(statistics.stdev(values), rel=5e-3)
    for fact in (
        "Commit: 4f2a9c1d",
        "Seeds: 0, 1, 2, 3, 4, 5, 6, 7 (8)",
        "CPU: AMD EPYC",
        "Wall time: 31.4 min",
    ):
        assert f"- {fact}" in text
    assert "| imitate | 48 | 55.9 min |" in text
    assert "| torch | 2.14.1 |" in text
    assert "What the laptop scale cannot show" in text
    assert "superseded" not in text.lower()


def test_the_page_is_whole_in_itself(example: dict[str, str]) -> None:
    page = Page(example["report.html"])
    for tag, known in page.tags:
        assert tag not in ("link", "img", "iframe") or known.get("href") == "data:,", tag
        for name in ("src", "href", "xlink:href", "srcset"):
            value = known.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (tag, value)
    assert scripts(example["report.html"]) == [SORT]
    assert "@import" not in example["report.html"]
    assert not re.search(r"url\((?!#)", example["report.html"])
    targets = {known["id"] for _, known in page.tags if "id" in known}
    ids = [known["id"] for _, known in page.tags if "id" in known]
    assert len(ids) == len(targets), "an id stands twice"
    assert {str(known["href"])[1:] for tag, known in page.tags if tag == "a"} <= targets


def test_markup_in_labels_stays_text(tmp_path: Path) -> None:
    made = pages(hostile_study(), write_example(tmp_path / "opirl" / "laptop", hostile_study()))
    page = Page(made["report.html"])
    assert scripts(made["report.html"]) == [SORT]
    assert HOSTILE in page.words
    for name, text in made.items():
        assert text.count("<script") == (name == "report.html"), name
    for table in markdown_tables(made["report.md"]):
        assert len({len(row) for row in table}) == 1, table[0]
    assert markdown_tables(made["report.md"]) == html_tables(made["report.html"])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a | b", r"a \| b"),
        ("final_return of _x_ *y* `z`", r"final_return of \_x\_ \*y\* \`z\`"),
        ("two\nlines", "two lines"),
        ("<b>&", "&lt;b>&amp;"),
        ("[×2.5, ×3.6]", "[×2.5, ×3.6]"),
        ("[text](javascript:x)", r"[text]\(javascript:x)"),
    ],
)
def test_markdown_text(text: str, written: str) -> None:
    assert markdown_text(text) == written


def test_bytes_do_not_depend_on_process_place_or_user(example: dict[str, str], tmp_path: Path) -> None:
    folder = write_example(tmp_path / "else where" / "opirl" / "laptop")
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.fonttype: path\nfigure.dpi: 37\n")
    code = (
        "from pathlib import Path; from common.study.report import render; "
        "from tests.common.study.report_example import example_study; "
        f"render(example_study(), Path({str(folder)!r}))"
    )
    env = {
        **os.environ,
        "PYTHONHASHSEED": "4711",
        "TZ": "Asia/Tokyo",
        "MATPLOTLIBRC": str(tmp_path),
        "LC_ALL": "C",
    }
    env["PYTHONPATH"] = str(ROOT)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=120)
    assert {name: (folder / name).read_bytes() for name in example} == {
        name: text.encode() for name, text in example.items()
    }
    for name, text in example.items():
        assert str(ROOT) not in text, name


def test_render_writes_what_differs_and_removes_what_is_gone(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", SMALL)
    written = render(SMALL, folder)
    assert sorted(written) == sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".md", ".html", ".svg")
    )
    (folder / "report.md").write_text("half")
    (folder / "figures" / "claim-gone.svg").write_text("<svg/>")
    (folder / "figures" / "notes.txt").write_text("mine")
    before = {
        path: path.stat().st_ino
        for path in (folder / "report.html", folder / "figures" / "claim-transfer.svg")
    }
    assert differences(pages(SMALL, folder), folder) == ["report.md", "figures/claim-gone.svg"]
    assert render(SMALL, folder) == ["report.md", "figures/claim-gone.svg"]
    assert {path: path.stat().st_ino for path in before} == before
    assert not (folder / "figures" / "claim-gone.svg").exists()
    assert (folder / "figures" / "notes.txt").exists()
    assert render(SMALL, folder) == []


def test_a_failure_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", SMALL)
    render(SMALL, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    edit_claims(folder, effect=0.5)
    monkeypatch.setattr("common.study.report.page.tables.packages", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        render(SMALL, folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} == {folder / "claims.json"}
    assert set(after) == set(before)


@pytest.mark.parametrize("gone", ["table.csv", "curves.csv", "environment.json"])
def test_what_is_missing_is_left_out(gone: str, tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop")
    (folder / gone).unlink()
    text = pages(replace(STUDY, claims=STUDY.claims[:1]), folder)["report.md"]
    heading = {
        "table.csv": "## Results by arm",
        "curves.csv": "## Learning curves",
        "environment.json": "### Cost",
    }
    assert {name: heading[name] in text for name in heading} == {name: name != gone for name in heading}
    assert "| fewer-interactions" in text.replace("[", "")


def test_no_claims_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop")
    (folder / "claims.json").write_text("{")
    with pytest.raises(BadInputError, match="damaged"):
        render(STUDY, folder)
    (folder / "claims.json").unlink()
    with pytest.raises(BadInputError, match="make reproduce"):
        render(STUDY, folder)


@pytest.mark.parametrize("change", ["edited", "removed", "added"])
def test_evidence_of_other_claims_is_superseded(change: str, tmp_path: Path) -> None:
    folder, claims = write_example(tmp_path / "opirl" / "laptop", SMALL), SMALL.claims
    today = {
        "edited": (replace(claims[0], margin=0.1), *claims[1:]),
        "removed": claims[1:],
        "added": (*claims, replace(claims[0], id="new")),
    }[change]
    made = pages(replace(SMALL, claims=today), folder)
    name = "new" if change == "added" else "fewer-interactions"
    why = {
        "edited": "changed in study.py after",
        "removed": "no longer states",
        "added": "added to study.py after",
    }
    shade = f"fill: {SHADE}" in made["figures/claim-fewer-interactions.svg"].partition("</style>")[2]
    assert shade == (change == "added"), "today's range is not drawn into evidence of another claim"
    line = next(line for line in made["report.md"].splitlines() if why[change] in line)
    assert line.startswith(f"- {name}: ")
    assert "**This evidence is superseded.**" in made["report.md"]
    row = next(row for row in markdown_tables(made["report.md"])[0] if row[0] == "fewer-interactions")
    assert row[2] == ("✓supported" if change == "added" else "✓supported(superseded)")
    assert markdown_tables(made["report.md"])[0][2:3] == [
        [cell.replace("superseded", "(superseded)") for cell in each]
        for each in html_tables(made["report.html"])[0][2:3]
    ]


def test_figures_and_limits_may_be_edited_without_a_new_run(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", SMALL)
    claims = (replace(SMALL.claims[0], limits="Nothing about Ant."), *SMALL.claims[1:])
    text = pages(replace(SMALL, claims=claims), folder)["report.md"]
    assert "Nothing about Ant." in text
    assert "superseded" not in text.lower()


def test_a_changed_study_is_compared_with_its_base(tmp_path: Path) -> None:
    changed = write_example(tmp_path / "opirl" / "laptop+1a2b3c4d", SMALL)
    edit_claims(changed, verdict="contradicted", effect=-1.0)
    environment = json.loads((changed / "environment.json").read_text())
    (changed / "environment.json").write_text(
        json.dumps({**environment, "overrides": ["agent.actor_lr=3e-5"]})
    )
    alone = pages(SMALL, changed)["report.md"]
    assert "There is no laptop result to compare with." in alone
    write_example(tmp_path / "opirl" / "laptop", SMALL)
    made = pages(SMALL, changed)
    for text in (made["report.md"], Page(made["report.html"]).words):
        assert "This run changed the study" in text
        assert "agent.actor_lr=3e-5" in text
    table = next(table for table in markdown_tables(made["report.md"]) if table[0][1] == "laptop")
    assert table[1] == [
        "fewer-interactions",
        "✓supported",
        "×3.02[×2.24,×4.09]",
        "✗contradicted",
        "×0.368[×2.24,×4.09]",
    ]
    assert markdown_tables(made["report.md"]) == html_tables(made["report.html"])
    base = pages(SMALL, tmp_path / "opirl" / "laptop")["report.md"]
    assert "Against the unchanged study" not in base


def test_runs_on_other_cpus_stand_beside_this_one(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "opirl" / "laptop", SMALL)
    assert "On other CPUs" not in pages(SMALL, folder)["report.md"]
    other = write_example(tmp_path / "other", SMALL)
    edit_claims(other, verdict="contradicted", effect=-1.0)
    (folder / "cpus").mkdir()
    aside = other.rename(folder / "cpus" / "another")
    environment = json.loads((aside / "environment.json").read_text())
    (aside / "environment.json").write_text(json.dumps({**environment, "cpus": ["Another CPU"]}))
    made = pages(SMALL, folder)
    for text in (made["report.md"], Page(made["report.html"]).words):
        assert "On other CPUs" in text
        assert "Another CPU, commit " in text
    table = next(table for table in markdown_tables(made["report.md"]) if table[0][1] == "there")
    assert table[1][:3] == ["fewer-interactions", "✗contradicted", "×0.368[×2.24,×4.09]"]
    assert table[1][3:] == ["✓supported", "×3.02[×2.24,×4.09]"]
    assert markdown_tables(made["report.md"]) == html_tables(made["report.html"])
