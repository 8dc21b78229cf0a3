"""A reader of HTML, and a real browser."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fer_bench.reports import build_report
from fer_bench.reports.render import html
from fer_bench.reports.render.blocks import Document, Part, TableBlock
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


COLUMN = 'document.querySelector("#t-mine").querySelectorAll("tbody td")'


def column_of(browser) -> list[str]:
    return browser.run(f"[...{COLUMN}].map((e) => e.textContent)")
