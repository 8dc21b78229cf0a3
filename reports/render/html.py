"""A report as one page that needs nothing else: style, script and figures stand in it, and it works from a disk.

The templates escape everything that comes from the study. A content security policy forbids the page to load anything
and to run any script but its own, which it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fer_bench.reports.render.blocks import Block, Document
from fer_bench.reports.render.marks import plain, spans

TEMPLATES = Path(__file__).with_name("templates")
LINKS = re.compile(r"(https?://|mailto:)", re.IGNORECASE)  # any other kind of address could be a script
LONG = 32  # characters from which a cell may break into lines
DROPPED = {"script", "style", "metadata", "foreignObject", "a", "animate", "set", "iframe", "title", "desc"}
INHERITED = "stroke-linejoin:round;stroke-linecap:butt"  # what matplotlib's own style sheet sets for every element


def page(document: Document, drawings: Mapping[str, bytes]) -> str:
    """The whole report; `drawings` has the SVG file of every figure, and the PNG file of every picture, by name."""
    script, style = (Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("report.js", "report.css"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(document=document, drawings=drawings, script=script, style=style, policy=_policy(script))
    )


@cache
def _environment() -> Environment:
    """Jinja2 with what the templates need; a name that a template misspells is an error, not an empty string."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"spans": spans, "plain": plain, "kind": _kind}
    environment.filters |= {"inline_svg": lambda *of: Markup(inline_svg(*of)), "png_address": _png_address}
    environment.tests |= {"web_address": LINKS.match, "long": lambda cell: len(plain(cell)) > LONG}
    return environment


def _kind(block: Block) -> str:
    return type(block).__name__


def _png_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ("default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "img-src data:")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


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
