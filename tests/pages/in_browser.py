"""Both pages in a real Chromium: `make test-pages`. Outside `make test`, which needs nothing but Python.

What a parser can see is tested by test_page_run.py and test_page_doe.py: this is about what only a browser does.
"""

from __future__ import annotations

import time

import pytest
from tests.kit import cache
from tests.kit.browser import browser
from tests.kit.doe import imagined
from tests.test_page_run import EVIL, manifest, told

from byos_run.page.chart import Series
from byos_run.page.doe import Doe, doe_page
from byos_run.page.facts import facts_of
from byos_run.page.run import run_page
from byos_run.page.samples import Drawn

RATIO = """
(() => {
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const under = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!c.endsWith(", 0)") && c !== "transparent") return c; } return "rgb(255,255,255)"; };
  const bad = [];
  for (const e of document.querySelectorAll("main *")) {
    if (e.closest("svg") || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(under(e))], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(e.tagName + " " + e.className + " " + ratio.toFixed(2));
  }
  return [...new Set(bad)];
})()
"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of both pages: full of data, with names that would be markup."""
    where = tmp_path_factory.mktemp("pages")
    outputs = [
        {"path": f"out/{n:03}.h5", "bytes": 1000 * n, "crc32": "AAAAAA==", "mtime": 1.7e9 + n, "seconds": 0.1}
        for n in range(200)
    ]
    outputs.append({"path": EVIL, "bytes": 7, "crc32": "AAAAAA==", "mtime": 1.7e9, "seconds": 0.1})
    plots = [Drawn("thermo.out", "time (s)", (Series("p (MPa)", [(n, n * n) for n in range(500)]),))]
    lines = ["x" * 10_000_000, EVIL, "the end"]
    run = run_page(
        manifest(outputs=outputs), told(samples=200, plots=plots, log_tail=lines), place="s3://data/out/hsdi/"
    )
    (where / "run.html").write_text(run)
    runs = [facts_of(each, place=each["output"]) for each in map(imagined, range(1000))]
    parameters = {each.place: {"angle": str(n % 40)} for n, each in enumerate(runs)}
    (where / "doe.html").write_text(doe_page(Doe("s3://data/output/doe/", runs, 1.79e9, parameters)))
    return where


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280, 3840])
@pytest.mark.parametrize("name", ["run", "doe"])
def test_a_page_opens_alone_and_fits(chromium, pages, name, width, dark):
    """No request but the page itself, nothing on the console, no script of others, no sideways scrolling, text that is readable."""
    chromium.open(pages / f"{name}.html", width=width, dark=dark)

    assert [(pages / f"{name}.html").as_uri()] == chromium.asked
    assert [] == chromium.said
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert [] == chromium.value(RATIO)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["run", "doe"])
def test_axe_finds_nothing(chromium, pages, name, dark):
    """Deque's axe-core, all its rules: contrast, names, roles, what the keyboard reaches."""
    axe = next(cache.get("axe").glob("lib*/python*/site-packages/axe_playwright_python/axe.min.js"))
    chromium.open(pages / f"{name}.html", dark=dark)
    chromium.value(f"{axe.read_text()}; 0")
    chromium.value("axe.run().then(found => { window.found = found; }); 0")
    while not chromium.value("'found' in window"):
        time.sleep(0.05)  # a promise of the page, and the page has no way to call
    told = "window.found.violations.map(each => [each.id, each.impact, each.nodes.length, each.nodes[0].html.slice(0, 200)])"

    assert [] == chromium.value(told)
    assert chromium.value("window.found.passes.length") > 10


def test_search_narrows_the_table(chromium, pages):
    """Words in any order, counted; nothing found is said; an empty field shows all."""
    chromium.open(pages / "run.html")
    shown = "[...document.querySelectorAll('#outputs tbody tr')].filter(row => !row.hidden).length"
    chromium.value("document.querySelector('input[type=search]').focus()")
    chromium.type("h5 out/01")

    assert 10 == chromium.value(shown)
    assert "10 of 201" == chromium.value("document.querySelector('.find output').textContent")
    chromium.type(" nothing")
    assert 0 == chromium.value(shown)


def test_a_click_sorts_by_number_and_by_name(chromium, pages):
    """Bytes as numbers, up and down; the heading says which way."""
    chromium.open(pages / "run.html")
    column = "[...document.querySelectorAll('#outputs tbody tr')].map(row => +row.cells[1].dataset.v)"
    click = "document.querySelectorAll('#outputs th button')[1].click()"
    chromium.value(click)
    up = chromium.value(column)
    chromium.value(click)

    assert sorted(up) == up
    assert sorted(up, reverse=True) == chromium.value(column)
    assert "descending" == chromium.value("document.querySelectorAll('#outputs th')[1].getAttribute('aria-sort')")


def test_bars_are_as_wide_as_their_seconds(chromium, pages):
    """What is drawn, in pixels, is what the manifest says."""
    chromium.open(pages / "run.html")
    share = """(() => { const bar = document.querySelector('rect.f-solve'), lane = bar.closest('svg');
      return [bar.getBoundingClientRect().width / lane.getBoundingClientRect().width, +bar.dataset.seconds]; })()"""
    drawn, seconds = chromium.value(share)

    assert 80 == seconds
    assert drawn == pytest.approx(80 / 100, abs=0.005)


def test_a_chart_is_read_under_the_pointer(chromium, pages):
    """Moving over a chart tells the values there."""
    chromium.open(pages / "run.html")
    box = chromium.value(
        "(() => { const p = document.querySelector('.tall svg[data-x1]'); p.scrollIntoView({block: 'center'}); "
        "const b = p.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    told_there = chromium.value("[...document.querySelectorAll('.tall .key output')].map(o => o.textContent)")

    assert told_there[1].startswith("at 249") or told_there[1].startswith("at 25")
    assert 55_000 < float(told_there[0]) < 70_000


def test_the_keyboard_reaches_search_headings_and_tables(chromium, pages):
    """Tab goes through them, and what has the focus shows it."""
    chromium.open(pages / "doe.html")
    reached = set()
    for _ in range(30):
        chromium.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(chromium.value("document.activeElement.tagName + ':' + (document.activeElement.className || '')"))
        if chromium.value("document.activeElement.tagName") == "A":  # a thousand squares: on to what comes after them
            chromium.value("[...document.querySelectorAll('.squares a')].at(-1).focus()")

    assert {"A:", "DIV:box", "INPUT:", "BUTTON:", "DIV:scroll"} <= reached


def test_on_paper_nothing_is_cut_off(chromium, pages):
    """Printed, what scrolls on a screen is shown whole, and ink stays dark on white."""
    chromium.open(pages / "run.html", dark=True)
    chromium.look(width=1000, dark=True, media="print")
    whole = "(box => box.scrollHeight <= box.clientHeight + 1)(document.querySelector('#outputs').parentElement)"

    assert chromium.value(whole)
    assert "rgb(255, 255, 255)" == chromium.value("getComputedStyle(document.body).backgroundColor")


def test_a_foreign_script_does_not_run(chromium, pages, tmp_path):
    """Even if markup got in: the policy names one script by its hash, and allows no handler and no request."""
    source = (pages / "run.html").read_text()
    bad = "<script>document.title = 'in'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title = 'in'\">"
    (tmp_path / "bad.html").write_text(source.replace("<main>", f"<main>{bad}", 1))
    chromium.open(tmp_path / "bad.html")

    assert "in" != chromium.value("document.title")
    assert any("Content Security Policy" in line for line in chromium.said)
