"""The pages in a real browser: nothing complains, nothing is fetched, filters filter, a phone can read them.

Chromium is driven over its DevTools pipe (file descriptors 3 and 4), which needs the standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.study.report import build, render
from tests.common.study.report_example import example_study, hostile_study, write_example

CHROMIUM = shutil.which("chromium")
SECONDS = 60.0  # for any one answer of the browser
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
WIDE, PHONE = (1280, 900), (390, 844)
DOMAINS = ("Page", "Runtime", "Log", "Network")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no `chromium` on PATH (Debian: apt install chromium)"
)


class Browser:
    """One page of a headless Chromium, and everything in it that a reader should never meet."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer, self._count = send, receive, b"", 0
        self._loaded, self._session = False, ""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in DOMAINS:
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its answer; events on the way are noted."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, url: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        """Load a page and wait until it is complete; what earlier pages did is forgotten."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE,
        )  # fmt: skip
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._go("about:blank")  # else a change of the fragment alone loads nothing
        self.complaints, self.requests = [], []
        self._go(url)

    def _go(self, url: str) -> None:
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {SECONDS:g} s"
            piece = os.read(self._receive, 1 << 20)
            assert piece, "Chromium ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"{event['type']}: {event['args']}")
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{event['entry']['level']}: {event['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])


@contextmanager
def running(profile: Path) -> Iterator[Browser]:
    """A fresh browser with an empty profile; it is gone afterwards, whatever happened."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write)]  # clear of 3 and 4
    process = subprocess.Popen(
        ["bash", "-c", 'exec "$0" "${@:3}" 3<&"$1" 4>&"$2"', str(CHROMIUM), *map(str, theirs), *FLAGS,
         f"--user-data-dir={profile}"],
        pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for end in (*theirs, to_read, from_write):
        os.close(end)
    try:
        yield Browser(to_write, from_read)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
        os.close(to_write)
        os.close(from_read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dashboard over one rendered example, stale and beside a thesis without results."""
    root, study = tmp_path_factory.mktemp("site"), example_study()
    render(study, write_example(root / "results" / "opirl" / "laptop"))
    studies = [study, replace(study, name="next", title="A thesis without results")]
    stale = {("opirl", "laptop"): "the code moved on since this evidence was made"}
    return build(root / "results", root / "site", studies, stale).parent


PAGES = ("index.html", "opirl/laptop/report.html", "opirl/laptop/runs.html")
LUMINANCE = """(colour => colour.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
  .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
  .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0))"""


def assert_quiet(browser: Browser) -> None:
    """Nothing complained and nothing but the page itself was asked for."""
    assert browser.js("document.readyState") == "complete"  # whatever the page said before is in by now
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:,"))] == []


def click(browser: Browser, row: str, text: str) -> None:
    """Press a button of the filter row of an axis."""
    browser.js(
        f"[...document.querySelectorAll('[aria-label={row}] button')].find(b => b.textContent === {text!r}).click()"
    )


def shown(browser: Browser) -> int:
    """Runs that are drawn, as the page counts them and as lines that are there."""
    runs, drawn = browser.js(
        "[Number(document.body.dataset.curves), document.querySelectorAll('path.run').length]"
    )
    assert runs == drawn
    return runs


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_quietly_and_fits(
    page: str, size: tuple[int, int], scheme: str, browser: Browser, site: Path
) -> None:
    browser.open((site / page).as_uri(), size, scheme)
    assert_quiet(browser)
    assert browser.js("innerWidth") == size[0]
    assert browser.js("document.documentElement.scrollWidth") <= size[0], "scrolls sideways"
    paper = browser.js(f"{LUMINANCE}(getComputedStyle(document.body).backgroundColor)")
    assert (paper > 0.9) if scheme == "light" else (paper < 0.05)
    texts = "[...document.querySelectorAll('h1, p, td, .badge, figure svg text, #charts text')]"
    inks = browser.js(
        f"{texts}.map(e => {LUMINANCE}(getComputedStyle(e)[e.closest('svg') ? 'fill' : 'color']))"
    )
    assert len(inks) > 20
    contrast = min((max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) for ink in inks)
    assert contrast >= 4.4, f"text of contrast {contrast:.2f}"


def test_what_a_reader_sees_first(browser: Browser, site: Path) -> None:
    browser.open((site / PAGES[0]).as_uri())
    words = browser.js("document.body.innerText")
    assert "laptop is stale: the code moved on" in words
    assert "make reproduce PROJECT=next" in words
    browser.open(browser.js("document.querySelector('a.verdict').href"))
    browser.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
    top = browser.js("document.getElementById('claim-fewer-interactions').getBoundingClientRect().top")
    assert abs(top) < 50, "the link leads to the claim"
    assert (
        browser.js("document.querySelectorAll('figure svg').length") == 6
    )  # five claims with runs, one curve
    assert_quiet(browser)


def test_filters_change_the_curves(browser: Browser, site: Path) -> None:
    url = (site / PAGES[2]).as_uri()
    browser.open(url)
    assert shown(browser) == 3 * 3 * 8  # tasks × arms × seeds; the validation seed is off
    before = browser.js("[...document.querySelectorAll('path.mean')].map(p => p.getAttribute('d'))")
    click(browser, "method", "airl")
    assert shown(browser) == 3 * 2 * 8
    click(browser, "seed", "0")
    assert shown(browser) == 3 * 2 * 7
    click(browser, "seed", "900 (validation)")
    assert shown(browser) == 3 * 2 * 8
    after = browser.js("[...document.querySelectorAll('path.mean')].map(p => p.getAttribute('d'))")
    assert (len(before), len(after)) == (9, 6)
    assert not set(before) & set(after), "the means are over the seeds that are shown"
    assert browser.js("document.getElementById('status').textContent") == "48 of 81 runs shown"
    browser.open(browser.js("location.href"))
    assert shown(browser) == 3 * 2 * 8, "the address keeps the selection"
    click(browser, "seed", "all / none")
    assert shown(browser) == 3 * 2 * 9
    click(browser, "seed", "all / none")
    assert shown(browser) == 0
    assert "Nothing is selected" in browser.js("document.getElementById('charts').textContent")
    browser.open(f"{url}#seed=%25E0,1&stage=none&colour=?")
    assert shown(browser) == 3 * 3, "what an address says wrongly is left out"
    assert_quiet(browser)


def test_the_curve_and_the_panels_can_be_chosen(browser: Browser, site: Path) -> None:
    browser.open((site / PAGES[2]).as_uri())
    choose = "((i, value) => { const s = document.querySelectorAll('select')[i]; s.value = value; "
    choose += "s.dispatchEvent(new Event('change')); })"
    first = browser.js("document.querySelector('path.run').getAttribute('d')")
    browser.js(f"{choose}(0, 'loss')")
    assert browser.js("document.querySelector('path.run').getAttribute('d')") != first
    assert browser.js("document.querySelectorAll('#charts h2').length") == 3
    browser.js(f"{choose}(2, 'method')")
    assert browser.js("[...document.querySelectorAll('#charts h2')].map(h => h.textContent)") == [
        "airl",
        "dac",
        "opirl",
    ]
    assert shown(browser) == 72
    browser.js(f"{choose}(2, '')")
    assert browser.js("document.querySelectorAll('#charts svg').length") == 1
    assert_quiet(browser)


def test_values_can_be_read_by_pointer_and_by_key(browser: Browser, site: Path) -> None:
    browser.open((site / PAGES[2]).as_uri())
    x, y = browser.js("(r => [r.left, r.bottom])(document.querySelector('path.run').getBoundingClientRect())")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 2, y=y - 4)
    reading = browser.js("document.getElementById('reading').textContent")
    assert "return" in reading and "at step" in reading
    assert browser.js("document.getElementById('tip').hidden") is False
    browser.js("document.querySelector('#charts svg').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
    assert browser.js("document.getElementById('reading').textContent") != reading
    assert_quiet(browser)


def test_a_table_of_results_can_be_sorted(browser: Browser, site: Path) -> None:
    browser.open((site / PAGES[1]).as_uri())
    table = "document.querySelector('#results ~ details table')"
    browser.js(f"{table}.closest('details').open = true")
    column = f"[...{table}.tBodies[0].rows].map(row => row.cells[row.cells.length - 1].textContent)"
    before, head = browser.js(column), f"{table}.tHead.rows[0].cells[{table}.tHead.rows[0].cells.length - 1]"
    browser.js(f"{head}.click()")
    up = browser.js(column)
    numbers = [float(re.match(r"[\d.]+", text)[0]) for text in up]  # type: ignore[index]
    assert sorted(before) == sorted(up) and numbers == sorted(numbers)
    browser.js(f"{head}.click()")
    assert [float(re.match(r"[\d.]+", text)[0]) for text in browser.js(column)] == numbers[::-1]  # type: ignore[index]
    assert browser.js(f"{head}.getAttribute('aria-sort')") == "descending"
    assert_quiet(browser)


def test_markup_in_a_study_does_nothing(browser: Browser, tmp_path: Path) -> None:
    study = hostile_study()
    render(study, write_example(tmp_path / "results" / "opirl" / "laptop", study, curve_points=5))
    build(tmp_path / "results", tmp_path / "site", [study])
    for page in PAGES:
        browser.open((tmp_path / "site" / page).as_uri(), PHONE)
        assert browser.js("document.title") != "hacked"
        assert_quiet(browser)


def test_the_browser_would_notice(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><script>console.warn('w'); console.error('e'); missing()</script>"
        "<img alt='' src='http://127.0.0.1:9/x.png'><div style='width:2000px'>wide</div>"
    )
    browser.open(page.as_uri(), PHONE)
    assert browser.js("document.documentElement.scrollWidth") > PHONE[0]
    told = " ".join(browser.complaints)
    assert "warning" in told and "missing is not defined" in told
    assert "ERR_CONNECTION_REFUSED" in told or "ERR_UNSAFE_PORT" in told
    assert "http://127.0.0.1:9/x.png" in browser.requests
