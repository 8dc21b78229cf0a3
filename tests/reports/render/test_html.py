"""The HTML page: what stands in its source, and what a real browser makes of it."""

from __future__ import annotations

import re

import pytest

from fer_bench.reports.render import html
from fer_bench.reports.render.blocks import Bullets, Code, Notice, Outline, Paragraph, TableBlock
from fer_bench.reports.render.table import Table
from tests.reports.render.conftest import NASTY, page_of, read, table

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
