"""The HTML page in a real browser."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from fer_bench import Chunk, DatasetCard, Protocol, Reading
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import examine
from fer_bench.reports.pages.doctor import write_page
from fer_bench.reports.render.blocks import Paragraph
from tests.reports.render.conftest import NASTY, Reader, column_of, page_of, table


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
    assert len(result) == 8
    assert {ground for ground, _ in result} == {"rgb(255, 255, 255)"}
    assert min(width for _, width in result) >= 540


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
