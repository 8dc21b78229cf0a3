"""A report as one page that needs nothing else: style, script and figures stand in it, and it works from a disk.

Everything that comes from the study is escaped. A content security policy forbids the page to load anything and to run
any script but its own, which it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Figure, Notice, Outline, Picture, TableBlock
from fer_bench.reports.render.marks import Span, plain, spans

TEMPLATES = Path(__file__).with_name("templates")
LINKS = re.compile(r"(https?://|mailto:)", re.IGNORECASE)  # any other kind of address could be a script
LONG = 32  # characters from which a cell may break into lines
DROPPED = {"script", "style", "metadata", "foreignObject", "a", "animate", "set", "iframe", "title", "desc"}
INHERITED = "stroke-linejoin:round;stroke-linecap:butt"  # what matplotlib's own style sheet sets for every element


def page(document: Document, drawings: Mapping[str, bytes]) -> str:
    """The whole report; `drawings` has the SVG file of every figure, and the PNG file of every picture, by name."""
    script, style = (_template(name) for name in ("report.js", "report.css"))
    body = [_block(b, drawings) for b in document.intro]
    for part in document.parts:
        inner = "\n".join(_block(b, drawings) for b in part.blocks)
        body.append(
            f'<section id="s-{part.name}" aria-labelledby="h-{part.name}">\n'
            f'<h2 id="h-{part.name}">{escape(part.title)}</h2>\n{inner}\n</section>'
        )
    contents = "\n".join(f'<li><a href="#s-{p.name}">{escape(p.title)}</a></li>' for p in document.parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="fer-bench">
<title>{escape(document.title)}</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body>
<header>
<h1>{escape(document.title)}</h1>
<button type="button" id="theme" hidden></button>
</header>
<nav aria-label="Contents">
<ol class="scroll">
{contents}
</ol>
</nav>
<main>
{chr(10).join(body)}
</main>
</body>
</html>
"""


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ("default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "img-src data:")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _block(block: Block, drawings: Mapping[str, bytes]) -> str:
    match block:
        case TableBlock():
            return table_html(block)
        case Figure(name, alt):
            return _figure(name, alt, drawings)
        case Picture(name, alt):
            return _picture(alt, drawings[name])
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{inline(item)}</li>" for item in items) + "\n</ul>"
        case Outline(items):
            return "<ul>\n" + "\n".join(f"<li>{inline(item)}{_details(more)}</li>" for item, more in items) + "\n</ul>"
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Notice(text):
            return f'<p class="notice" role="note">⚠ {inline(text)}</p>'
    return f"<p>{inline(block.text)}</p>"


def _details(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{inline(line)}</li>" for line in lines) + "</ul>" if lines else ""


def inline(text: str) -> str:
    """Marked text as HTML."""
    return "".join(map(_span, spans(text)))


def _span(span: Span) -> str:
    out = escape(span.text)
    for wanted, tag in ((span.code, "code"), (span.italic, "em"), (span.bold, "strong")):
        out = f"<{tag}>{out}</{tag}>" if wanted else out
    return f'<a href="{escape(span.url)}" rel="noreferrer">{out}</a>' if LINKS.match(span.url) else out


def table_html(block: TableBlock) -> str:
    """A table in a box in which it scrolls, its caption below; the page's script makes it sortable."""
    table = block.table
    head = "".join(
        f'<th scope="col"{_class(r)}>{inline(t)}</th>' for t, r in zip(table.titles, table.right, strict=True)
    )
    body, foot = ("\n".join(_row(row, table.right) for row in rows) for rows in block.parts)
    sorts = ' class="sorts"' if block.sortable and len(block.parts[0]) > 1 else ""
    lines = [
        f'<figure class="table" id="t-{block.id}">',
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(plain(block.title))}">',
        f"<table{sorts}>\n<thead>\n<tr>{head}</tr>\n</thead>",
        f"<tbody>\n{body}\n</tbody>",
        f"<tfoot>\n{foot}\n</tfoot>" if foot else "",
        "</table>\n</div>",
        f"<figcaption>{inline(table.caption)}</figcaption>" if table.caption else "",
        "</figure>",
    ]
    return "\n".join(line for line in lines if line)


def _row(row: tuple[str, ...], right: tuple[bool, ...]) -> str:
    cells = list(zip(row, right, strict=True))
    first = f'<th scope="row"{_class(*cells[0][::-1])}>{inline(cells[0][0])}</th>'
    return f"<tr>{first}" + "".join(f"<td{_class(r, cell)}>{inline(cell)}</td>" for cell, r in cells[1:]) + "</tr>"


def _class(right: bool, cell: str = "") -> str:
    if right:
        return ' class="number"'
    return ' class="long"' if len(plain(cell)) > LONG else ""


def _figure(name: str, alt: str, drawings: Mapping[str, bytes]) -> str:
    drawing = inline_svg(drawings[name], f"f-{name}", alt)
    return (
        f'<figure class="drawing">\n<div class="scroll" role="region" tabindex="0" aria-label="{escape(alt)}">'
        f"\n{drawing}\n</div>\n<figcaption>{escape(alt)}</figcaption>\n</figure>"
    )


def _picture(alt: str, png: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure class="drawing">\n<div class="scroll" role="region" tabindex="0" aria-label="{escape(alt)}">'
        f'\n<img alt="{escape(alt)}" src="{source}">\n</div>\n</figure>'
    )


def inline_svg(svg: bytes, prefix: str, alt: str) -> str:
    """An SVG file as an element of a page: ids begin with `prefix`, and nothing in it runs, loads or styles others."""
    root = ElementTree.fromstring(re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"", svg))  # a label may hold anything
    _clean(root, prefix)
    width = root.attrib.pop("width", "")
    root.attrib.pop("height", None)
    root.attrib |= {"id": prefix, "role": "img", "aria-label": alt, "style": INHERITED}
    if number := re.match(r"\d+(\.\d+)?(?=pt$)", width):
        root.attrib["style"] += f";width:{float(number[0]) * 4 / 3:g}px"  # a point is 4/3 of a CSS pixel
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(element: ElementTree.Element, prefix: str) -> None:
    element.tag = _local(element.tag)
    element.attrib = {_local(k): v for k, v in element.attrib.items() if not _local(k).lower().startswith("on")}
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.attrib[key] = f"{prefix}-{value}"
        elif key == "href":
            if value.startswith("#"):
                element.attrib[key] = f"#{prefix}-{value[1:]}"
            elif not value.startswith("data:image/png;"):
                del element.attrib[key]
        elif key != "d":
            element.attrib[key] = re.sub(r"url\(\s*['\"]?#", f"url(#{prefix}-", value)
    for child in list(element):
        if _local(child.tag) in DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)
    element.text, element.tail = (_line_break(text) for text in (element.text, element.tail))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _line_break(text: str | None) -> str | None:
    """Indentation dropped; text kept."""
    return text if text is None or text.strip() else "\n" * ("\n" in text)
