"""The HTML page: what stands in its source, and what a real browser makes of it."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_bench import Chunk, DatasetCard, Protocol, Reading
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import examine
from fer_bench.reports import build_report
from fer_bench.reports.pages.doctor import write_page
from fer_bench.reports.render import html
from fer_bench.reports.render.blocks import Bullets, Code, Document, Notice, Outline, Paragraph, Part, TableBlock
from fer_bench.reports.render.table import Table

BASE, BETTER = (40, 8, 90), (40, 18, 90)
VOID = {"meta", "link", "br", "hr", "img", "input", "col"}
NASTY = """<b>&amp; "q" 'a' {{ 7 * 191 }} {% raw %} <script>alert(1)</script>"""


class Reader(HTMLParser):
    """Collects start tags, and checks that every element is closed in its order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def table(*rows: tuple[str, ...], titles: tuple[str, ...] = ("Name", "Value"), **options: Any) -> TableBlock:
    right = tuple(i > 0 for i in range(len(titles)))
    return TableBlock(Table(titles, right, rows, "A caption."), "mine", "Mine", **options)


def page_of(*blocks, title: str = "a study") -> str:
    return html.page(Document(title, (), (Part("first", "First", tuple(blocks)),)), {})


# -- the source ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        Paragraph(NASTY),
        Paragraph(f"**{NASTY}**"),
        Notice(NASTY),
        Bullets((NASTY,)),
        Outline(((NASTY, (NASTY,)), (NASTY, ()))),
        Code(NASTY),
        table((NASTY, "1"), titles=(NASTY, NASTY)),
        TableBlock(Table(("a",), (False,), ((f"`{NASTY}`",),), NASTY), "x", NASTY),
    ],
    ids=lambda b: type(b).__name__,
)
def test_everything_that_comes_from_a_study_is_escaped(block):
    text = page_of(block, title=NASTY)
    tags = [tag for tag, _ in read(text).tags]
    assert tags.count("script") == 1
    assert not {"b", "i"} & set(tags)
    assert "{{ 7 * 191 }} {% raw %}" in text  # text is no template
    assert "1337" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`rasn[a=<b>]` wins", "<code>rasn[a=&lt;b&gt;]</code> wins"),
        ("**`x`** and *y*", "<strong><code>x</code></strong> and <em>y</em>"),
        ("[Doe (2020)](https://x.org/a(b)c)", '<a href="https://x.org/a(b)c" rel="noreferrer">Doe (2020)</a>'),
        ("[run](javascript:alert(1))", "run"),
        ("+4.2 [+1.0, +7.5] (2 seeds)", "+4.2 [+1.0, +7.5] (2 seeds)"),
        ("2 * 3 * 4, a_b_c, ` alone, **open", "2 * 3 * 4, a_b_c, ` alone, **open"),
    ],
)
def test_marks_become_elements(text, expected):
    assert f"<p>{expected}</p>" in page_of(Paragraph(text))


def test_two_drawings_share_no_id_and_leave_the_page_alone():
    svg = b"""<?xml version="1.0"?><!DOCTYPE svg><!-- note -->
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="576pt" height="9pt">
<!-- a \x08 --><metadata>m</metadata><style>*{fill:red}</style><script>alert(1)</script>
<defs><clipPath id="c"><path d="M0 0"/></clipPath></defs>
<g id="g" clip-path="url(#c)" style="fill: url(#c)" onload="alert(1)"><use xlink:href="#g"/>
<image xlink:href="http://x.org/a.png"/><image xlink:href="data:image/png;base64,AA"/><text>a &lt; b</text></g></svg>"""
    one, two = (html.inline_svg(svg, prefix, "It's <alt>") for prefix in ("f-one", "f-two"))
    ids = [re.findall(r'\bid="([^"]+)"', drawing) for drawing in (one, two)]
    assert ids[0] == ["f-one", "f-one-c", "f-one-g"]
    assert not set(ids[0]) & set(ids[1])
    assert re.findall(r"#([\w-]+)", one) == ["f-one-c", "f-one-c", "f-one-g"]
    tags = read(one).tags
    assert not {"metadata", "style", "script"} & {tag for tag, _ in tags}
    assert "onload" not in one
    assert [a.get("href") for t, a in tags if t == "image"] == [None, "data:image/png;base64,AA"]
    assert tags[0][1]["aria-label"] == "It's <alt>"
    assert "width:768px" in tags[0][1]["style"]
    assert "a &lt; b" in one


def test_the_page_loads_nothing_and_runs_its_own_script_only(report):
    text = report.read_text()
    reader = read(text)
    sources = {k: v for _, attrs in reader.tags for k, v in attrs.items() if k in ("src", "srcset", "data", "action")}
    assert sources == {}
    assert not [a for t, a in reader.tags if t in ("link", "iframe", "object", "embed", "base", "form")]
    links = {a["href"] for t, a in reader.tags if t == "a"}
    assert {link[0] == "#" or link.startswith("https://") for link in links} == {True}
    (policy,) = [a["content"] for t, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "script-src 'sha256-" in policy


def test_ids_are_unique_and_every_entry_of_the_contents_leads_somewhere(report):
    tags = read(report.read_text()).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for t, a in tags if t in ("a", "use") and a["href"].startswith("#")}
    assert targets <= set(ids)
    assert {"s-answer", "s-recall", "s-missing", "s-repeat"} <= targets


def test_the_page_names_command_versions_data_and_runs(report, small_study):
    text = report.read_text()
    _, study = small_study
    for sentence in (study["command"], "<td>f00d</td>", "2.11", *study["runs"]):
        assert sentence.replace("f00d", "<code>f00d</code>") in text


def test_a_table_names_its_columns_rows_and_foot():
    text = page_of(table(("a", "1"), ("b", "2"), ("all", "3"), footer=1)).partition("<main>")[2]
    assert text.count('scope="col"') == 2
    assert text.count('scope="row"') == 3
    assert text.index("<tfoot>") < text.index("all")
    assert '<table class="sorts">' in text
    assert '<table class="sorts">' not in page_of(table(("a", "1"), ("b", "2"), sortable=False))


def test_a_page_is_laid_out_as_its_blocks_say():
    content = (
        Bullets(("one", "`two`")),
        Outline((("head", ("detail",)), ("alone", ()))),
        Code("  a\n\n  b"),
        Notice("mind"),
        table(("a", "−1"), ("w" * 33, "2"), ("all", "3"), footer=1),
    )
    page = page_of(*content, title="a & b")
    head = """</head>
<body>
<header>
<h1>a &amp; b</h1>
<button type="button" id="theme" hidden></button>
</header>
<nav aria-label="Contents">
<ol class="scroll">
<li><a href="#s-first">First</a></li>
</ol>
</nav>
<main>
"""
    body = f"""<section id="s-first" aria-labelledby="h-first">
<h2 id="h-first">First</h2>
<ul>
<li>one</li>
<li><code>two</code></li>
</ul>
<ul>
<li>head<ul><li>detail</li></ul></li>
<li>alone</li>
</ul>
<pre><code>  a

  b</code></pre>
<p class="notice" role="note">⚠ mind</p>
<figure class="table" id="t-mine">
<div class="scroll" role="region" tabindex="0" aria-label="Mine">
<table class="sorts">
<thead>
<tr><th scope="col">Name</th><th scope="col" class="number">Value</th></tr>
</thead>
<tbody>
<tr><th scope="row">a</th><td class="number">−1</td></tr>
<tr><th scope="row" class="long">{"w" * 33}</th><td class="number">2</td></tr>
</tbody>
<tfoot>
<tr><th scope="row">all</th><td class="number">3</td></tr>
</tfoot>
</table>
</div>
<figcaption>A caption.</figcaption>
</figure>
</section>
"""
    assert page.startswith('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    assert page.endswith(f"{head}{body}</main>\n</body>\n</html>\n")


# -- the browser -----------------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium, spoken to over a pair of pipes in its DevTools protocol."""

    def __init__(self, program: str, profile: str):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"]
        # The protocol's pipes are descriptors 3 and 4.
        shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, program, *options],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reading, self.writing = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.numbers = itertools.count(1)
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.writing.write(json.dumps(message).encode() + b"\0")
        self.writing.flush()
        while (answer := self.message()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def message(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            read = os.read(self.reading.fileno(), 1 << 16)
            assert read, "the browser is gone"
            self.buffer += read
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def show(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        """Load a file and wait for it; `events` then holds what happened meanwhile."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[theme])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.message())

    def run(self, program: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=program, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def complaints(self) -> list[Any]:
        """Whatever the page wrote to its console, threw, or asked the network for besides its own file."""
        messages = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        out: list[Any] = [e["params"] for e in self.events if e.get("method") in messages]
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return out + [url for url in asked if not url.startswith("data:")][1:]

    def picture(self, path: Path) -> None:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.writing.close()
        self.reading.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium on this machine")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        yield browser
        browser.close()


@pytest.fixture
def small_study(bench):
    """Two methods, one of them with long parameters in its label, two seeds each."""
    label = "better[share.source=exponential_moving_average,share.momentum=0.999]"
    runs = [bench.run(m, s, h) for m, h in (("base", BASE), (label, BETTER)) for s in range(2)]
    return bench, bench.study(runs, [label, "base"])


@pytest.fixture(scope="module")
def shelf() -> dict[str, Path]:
    """Holds the page of `small_study`, which is drawn once."""
    return {}


@pytest.fixture
def report(small_study, shelf, tmp_path) -> Path:
    bench, study = small_study
    if not shelf:
        shelf["page"] = build_report(bench.ledger, study, tmp_path / "out", formats=["html"])
    return shelf["page"]


def test_no_width_and_no_theme_overflows_or_complains(browser, report):
    for width, dark in itertools.product((360, 1280), (False, True)):
        browser.show(report, width, dark)
        assert browser.complaints() == []
        result = browser.run(
            """(() => {
            const wide = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll")
                && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5);
            const style = getComputedStyle(document.body);
            return {page: document.documentElement.scrollWidth, wide: wide.map((e) => e.outerHTML.slice(0, 80)),
                    colour: style.color, ground: style.backgroundColor, size: style.fontSize,
                    scrolls: [...document.querySelectorAll(".scroll")].some((e) => e.scrollWidth > e.clientWidth)};
            })()"""
        )
        assert result["page"] == width
        assert result["wide"] == []
        assert result["size"] == "16px"
        light = [sum(map(int, re.findall(r"\d+", result[c])[:3])) / 765 for c in ("colour", "ground")]
        assert (light[0] > 0.8 and light[1] < 0.2) if dark else (light[0] < 0.2 and light[1] > 0.8)
        if width == 360:
            assert result["scrolls"]


def test_drawings_stand_on_white_in_the_dark_and_are_not_shrunk_on_a_phone(browser, report):
    browser.show(report, 360, dark=True)
    result = browser.run(
        """[...document.querySelectorAll("svg")].map((e) => [
        getComputedStyle(e.parentElement).backgroundColor, e.getBoundingClientRect().width])"""
    )
    assert len(result) == 7
    assert {ground for ground, _ in result} == {"rgb(255, 255, 255)"}
    assert min(width for _, width in result) >= 540


COLUMN = 'document.querySelector("#t-mine").querySelectorAll("tbody td")'


def column_of(browser) -> list[str]:
    return browser.run(f"[...{COLUMN}].map((e) => e.textContent)")


@pytest.mark.parametrize(
    ("cells", "falling"),
    [
        (["58.9 [58.1, 59.8]", "–", "9.1 [8.0, 9.9]", "100.0 [99, 100]"], [3, 0, 2, 1]),
        (["−0.7", "+1.2", "0.0", "−10.5 [−12.0, +0.1]", "–"], [1, 2, 0, 3, 4]),
        (["1,234", "999", "28,709", "12"], [2, 0, 1, 3]),
        (["1.4e-06", "1.3e-05", "nan", "0.1"], [3, 1, 0, 2]),
        (["3 of 64", "12 of 64", "0 of 64"], [1, 0, 2]),
        (["**7**", "", "`8`"], [2, 0, 1]),
    ],
    ids=["intervals", "signs", "thousands", "powers", "counts", "marks"],
)
def test_numbers_sort_as_numbers_and_missing_ones_come_last(browser, tmp_path, cells, falling):
    rows = [(f"row {i}", cell) for i, cell in enumerate(cells)]
    path = tmp_path / "page.html"
    path.write_text(page_of(table(*rows)))
    browser.show(path)
    first = column_of(browser)
    orders = []
    for _ in range(3):
        browser.run('document.querySelectorAll("#t-mine thead button")[1].click()')
        direction = browser.run('document.querySelectorAll("#t-mine th")[1].getAttribute("aria-sort")')
        orders.append((direction, [first.index(c) for c in column_of(browser)]))
    missing = [i for i, c in enumerate(first) if c in ("–", "nan", "")]
    known = [i for i in falling if i not in missing]
    assert orders == [
        ("descending", falling),
        ("ascending", known[::-1] + missing),
        ("none", list(range(len(cells)))),
    ]


def test_the_keyboard_sorts_and_the_foot_stays(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(table(("b", "1"), ("c", "2"), ("a", "2"), ("all", "5"), footer=1)))
    browser.show(path)
    rows = '[...document.querySelectorAll("#t-mine tbody tr, #t-mine tfoot tr")].map((e) => e.cells[0].textContent)'
    browser.run('document.querySelector("#t-mine .scroll").focus()')
    browser.press("Tab", 9)
    browser.press("Enter", 13, "\r")
    assert browser.run('document.activeElement.closest("th").getAttribute("aria-sort")') == "ascending"
    assert browser.run(rows) == ["a", "b", "c", "all"]
    browser.press("Tab", 9)
    browser.press(" ", 32, " ")
    assert browser.run('[...document.querySelectorAll("#t-mine th")].slice(0, 2).map((e) => e.ariaSort)') == [
        "none",
        "descending",
    ]
    assert browser.run(rows) == ["c", "a", "b", "all"]  # equal numbers stay in their order
    assert browser.complaints() == []


def test_the_theme_is_chosen_and_remembered(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(Paragraph("text")))
    ground = "getComputedStyle(document.body).backgroundColor"

    def choose(colour):
        if browser.run(ground) != colour:
            browser.run('document.getElementById("theme").click()')
        assert browser.run(ground) == colour

    def shown_anew(colour, prepare, **how):
        for _ in range(20):  # a browser that is busy may lose what a page stored in its last moment
            prepare()
            browser.show(path, **how)
            if browser.run(ground) == colour:
                return True
        return False

    browser.show(path)
    light = browser.run(ground)
    assert browser.run('document.getElementById("theme").textContent') == "Dark colours"
    browser.run('document.getElementById("theme").click()')
    dark = browser.run(ground)
    assert dark != light
    assert shown_anew(dark, lambda: choose(dark))
    assert shown_anew(light, lambda: choose(light), dark=True)
    assert shown_anew(dark, lambda: browser.run("localStorage.clear()"), dark=True)


def test_a_page_without_storage_still_changes_its_colours(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of(table(("a", "1"), ("b", "2"))))
    forbid = 'Object.defineProperty(window, "localStorage", { get() { throw new Error("forbidden"); } });'
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=forbid)["identifier"]
    try:
        browser.show(path)
        browser.run('document.getElementById("theme").click()')
        assert browser.run("document.documentElement.dataset.theme") == "dark"
        assert browser.run('document.querySelectorAll("#t-mine thead button").length') == 2
        assert browser.complaints() == []
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_no_script_from_a_label_runs(browser, tmp_path):
    path = tmp_path / "page.html"
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    path.write_text(page_of(Paragraph(evil), table((evil, evil), titles=(evil, evil))).replace("&lt;script", "<script"))
    browser.show(path)  # even where a script element had slipped through, the policy would keep it from running
    assert browser.run("document.title") == "a study"
    assert browser.run('document.querySelectorAll("img").length') == 0


def test_the_doctors_page_with_pictures_fits_every_width_and_loads_nothing(browser, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 48, 48), dtype=np.uint8)
    images[30:42] = images[:12]  # twelve pairs with conflicting labels
    labels, splits = np.repeat([0, 1], 30), ["train"] * 40 + ["test"] * 20
    chunk = Chunk(images=images, labels=labels, split=splits, source=[""] * 60)
    card = DatasetCard(
        name="toy",
        title=f"Toy {NASTY}",
        classes=("calm", "cross"),
        protocols=(Protocol(name="p", train=("train",), test=("test",), holdout=0.1),),
    )
    store = write_store(tmp_path, card, Reading(layout="l", summary="", files=[], chunks=lambda: iter([chunk])))
    page = write_page(examine(store, card), store, card, tmp_path / "page").with_name("index.html")
    reader = Reader()
    reader.feed(page.read_text())
    assert reader.open == []
    for width in (390, 1280):
        browser.show(page, width)
        assert browser.complaints() == []
        assert browser.run("document.documentElement.scrollWidth") == width
        widths = browser.run("[...document.images].map((e) => [e.naturalWidth, e.getBoundingClientRect().width])")
        assert len(widths) == 2
        assert all(natural > 390 for natural, _ in widths)
        assert all(output == natural if width == 390 else output <= 960 for natural, output in widths)
    assert "<script>alert" not in page.read_text().split("</head>")[1]
