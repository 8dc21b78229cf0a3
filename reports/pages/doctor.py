"""The doctor's findings as a page, in Markdown and HTML: findings, counts and, if wanted, pictures of examples.

The same store gives the same bytes: no dates, no paths of this machine.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from fer_bench import __version__
from fer_bench.base.files import write_bytes, write_text
from fer_bench.contract.cards import DatasetCard
from fer_bench.data.contact_sheet import tile, tile_size
from fer_bench.data.store import Store
from fer_bench.doctor.examine import LEVELS, Diagnosis, Finding, without_rejects
from fer_bench.printable import printable
from fer_bench.reports.facts.phrases import code, count, percent
from fer_bench.reports.render import html, markdown
from fer_bench.reports.render.blocks import (
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Outline,
    Paragraph,
    Part,
    Picture,
    TableBlock,
)
from fer_bench.reports.render.figure_files import STYLE, save
from fer_bench.reports.render.page_folder import CHECK, Target, aside, check, move
from fer_bench.reports.render.table import Table
from fer_bench.reports.sections.figures import COLOURS

PAGE = "README.md"
WEB_PAGE = "index.html"
PICTURED = {
    "exact-conflict": "Identical images with conflicting labels",
    "exact-across": "Identical images in more than one split",
    "near-conflict": "Near-duplicates with conflicting labels",
    "near-across": "Near-duplicates in more than one split",
    "near": "Near-duplicates",
    "alike": "Similar images of the same person",
    "constant": "Constant images",
    "near-constant": "Almost constant images",
}
GROUPS, MEMBERS = 12, 3  # of a picture: how many groups, and of each how many images
ACROSS = 12  # images side by side
TALL, GAP, CAPTION, CAPTION_WIDTH = 96, 8, 40, 84  # pixels


def write_page(
    diagnosis: Diagnosis,
    store: Store,
    card: DatasetCard,
    out: str | Path | Target,
    *,
    images: bool = True,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write ``README.md`` with ``figures/``, and ``index.html``, which needs no other file, into the folder `out`.

    Files in it that fer-bench did not write are not replaced.

    Parameters
    ----------
    more : mapping
        Text of further files by name.
    images : bool
        Show images of the data set. Without them, the page can be published where the licence forbids showing faces.
        Pictures of an earlier page are then removed.

    Returns
    -------
    Path
        The Markdown file.

    Raises
    ------
    FerBenchError
        The folder can't be written, or fer-bench did not write a file that would be replaced.
    """
    target = out if isinstance(out, Target) else Target(out=Path(out), kept=CHECK)
    check(target, [PAGE, WEB_PAGE, *more])
    with aside(target) as folder:
        _write(diagnosis, store, card, folder, images)
        for name, text in more.items():
            write_text(folder / name, text)
        move(folder, target, retired=[f"figures/{kind}.png" for kind in PICTURED])
    return target.out / PAGE


def _write(diagnosis: Diagnosis, store: Store, card: DatasetCard, out: Path, images: bool) -> None:
    with matplotlib.rc_context(STYLE):
        save(_chart(diagnosis), out / "figures", "counts")
    pictures = _pictures(diagnosis, store) if images else {}
    for kind, (_, png) in pictures.items():
        write_bytes(out / "figures" / f"{kind}.png", png)
    page = _document(diagnosis, store, card, {kind: caption for kind, (caption, _) in pictures.items()}, images)
    drawings = {"counts": (out / "figures" / "counts.svg").read_bytes()}
    drawings |= {kind: png for kind, (_, png) in pictures.items()}
    write_text(out / WEB_PAGE, printable(html.page(page, drawings)))
    write_text(out / PAGE, printable(markdown.page(page)))


def _document(
    diagnosis: Diagnosis, store: Store, card: DatasetCard, pictured: Mapping[str, str], images: bool
) -> Document:
    parts = [
        *_findings(diagnosis),
        _counts(diagnosis),
        _conflicts(diagnosis),
        _picture_part(pictured),
        _clean(diagnosis, store, card),
    ]
    return Document(
        title=f"Data check: {store.manifest['dataset']}",
        intro=(Paragraph(f"**{diagnosis.verdict}.**"), Bullets(_facts(diagnosis, store, card, images))),
        parts=tuple(part for part in parts if part is not None),
    )


def _facts(diagnosis: Diagnosis, store: Store, card: DatasetCard, images: bool) -> tuple[str, ...]:
    licence = card.licence or "not stated on its card"
    content = "This page contains images of the data set" if images else "This page contains no images of the data set"
    shape = "x".join(map(str, store.shape))
    return (
        f"{card.title}; layout {code(store.manifest['layout'])}",
        f"{count(len(store), 'image')} of {shape} (channels, height, width), {diagnosis.exact['distinct']:,} distinct",
        f"fingerprint {code(store.fingerprint)}; fer-bench {__version__}",
        f"{content}; licence: {licence}",
    )


def _findings(diagnosis: Diagnosis) -> list[Part]:
    parts = []
    for level in LEVELS:
        items = tuple((f.title, f.detail) for f in diagnosis.findings if f.level == level)
        if items:
            parts.append(Part(f"{level}s", f"{level.capitalize()}s", (Outline(items),)))
    return parts


def _chart(diagnosis: Diagnosis) -> Drawing:
    """Bars of the counts, one panel per split, with the card's counts as lines across them."""
    splits, places = list(diagnosis.counts), np.arange(len(diagnosis.classes))
    figure = Drawing(figsize=(max(4.0, 2.9 * len(splits)), 0.9 + 0.3 * len(places)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(splits), squeeze=False, sharey=True)[0]
    for axis, split in zip(panels, splits, strict=True):
        axis.barh(places, diagnosis.counts[split], height=0.62, color=COLOURS[0], label="in the store")
        if split in diagnosis.known:
            known = diagnosis.known[split]
            axis.vlines(known, places - 0.42, places + 0.42, color=COLOURS[1], linewidth=2, label="on the card")
        axis.set_title(split)
        axis.set_xlabel("images")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.grid(axis="x")
    panels[0].set_yticks(places, diagnosis.classes)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _counts(diagnosis: Diagnosis) -> Part:
    splits = list(diagnosis.counts)
    rows = []
    for k, name in enumerate(diagnosis.classes):
        cells = [_cell(int(diagnosis.counts[s][k]), diagnosis.known.get(s, {k: None})[k]) for s in splits]
        rows.append((name, *cells, f"{sum(int(diagnosis.counts[s][k]) for s in splits):,}"))
    totals = [int(diagnosis.counts[s].sum()) for s in splits]
    rows.append(("all", *(f"{n:,}" for n in totals), f"{sum(totals):,}"))
    caption = "Labelled images. In parentheses: the number on the card, where it differs." if diagnosis.known else ""
    titles = ("Class", *splits, "all")
    table = Table(titles, (False, *(True for _ in titles[1:])), tuple(rows), caption)
    chart = Figure("counts", "Counts by class and split", None)
    return Part("counts", "Counts", (TableBlock(table, "counts", "Images by class and split", footer=1), chart))


def _cell(have: int, known: int | None) -> str:
    return f"{have:,}" if known in (None, have) else f"**{have:,}** ({known:,})"


def _conflicts(diagnosis: Diagnosis) -> Part | None:
    if not diagnosis.conflicts:
        return None
    rows = tuple((f"{a}, {b}", f"{n:,}") for (a, b), n in diagnosis.conflicts.items())
    caption = "Groups of copies (identical or near-duplicates) that contain both labels."
    table = Table(("Labels", "Groups"), (False, True), rows, caption)
    return Part("conflicts", "Which labels conflict", (TableBlock(table, "conflicts", "Labels that conflict"),))


def _clean(diagnosis: Diagnosis, store: Store, card: DatasetCard) -> Part:
    kinds = Counter(reason.split(" of row ")[0] for _, reason, _ in diagnosis.dropped)
    rows = tuple((kind, f"{n:,}") for kind, n in kinds.most_common())
    share = percent(len(diagnosis.dropped) / len(store))
    text = (
        f"`clean.csv` leaves out {count(len(diagnosis.dropped), 'row')} ({share} %). Of each group of copies, one image"
        " is kept: a test image if there is one, otherwise a validation image, otherwise a training image. If the"
        " labels of the copies conflict, none is kept."
    )
    blocks: list[Block] = [Paragraph(text)]
    if rows:
        table = Table(("Reason", "Rows"), (False, True), rows)
        blocks.append(TableBlock(table, "clean", "Rows left out, by reason"))
        if protocol := without_rejects(store, card):
            run = f"fer-bench run METHOD --dataset {card.name} --protocol {protocol}"
            blocks += [Paragraph("To run a study without these rows:"), Code(run)]
    return Part("clean", "Clean manifest", tuple(blocks))


def _picture_part(pictured: Mapping[str, str]) -> Part | None:
    blocks: list[Block] = []
    for kind, caption in pictured.items():
        blocks += [Paragraph(f"**{PICTURED[kind]}**: {caption}"), Picture(kind, PICTURED[kind])]
    return Part("pictures", "Pictures", tuple(blocks)) if blocks else None


def _pictures(diagnosis: Diagnosis, store: Store) -> dict[str, tuple[str, bytes]]:
    """By kind of finding: a picture and its caption."""
    table = store.columns("label", "split")
    names = [*store.classes, "no label"]  # -1 is the last one
    captions = [(str(s), names[k]) for s, k in zip(table["split"], table["label"].tolist(), strict=True)]
    pictures = {}
    for kind in PICTURED:
        finding = diagnosis.of_kind(kind)
        if finding is None:
            continue
        groups = _examples(finding, diagnosis, captions)
        of = f"{len(groups)} of {finding.count:,}"
        special = {"near": "the least certain pairs", "alike": f"{of} pairs, the most similar"}
        which = special.get(kind, f"{of} groups, the largest first" if len(groups) < finding.count else "all of them")
        pictures[kind] = (f"{which}. Below each image: row, split, label.", _picture(store, groups, captions))
    return pictures


def _examples(finding: Finding, diagnosis: Diagnosis, captions: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
    """Example groups with a few members each: the least certain pairs of near-duplicates, otherwise the largest groups.

    A group that crosses splits is shown with one image per split, one with conflicting labels with one per label.
    """
    if finding.kind == "near":
        weakest = np.argsort(diagnosis.near.score, kind="stable")[:GROUPS]
        return [(int(diagnosis.near.first[k]), int(diagnosis.near.second[k])) for k in weakest]
    if finding.kind == "alike":
        return list(finding.groups[:GROUPS])
    differing = {"across": 0, "conflict": 1}.get(finding.kind.rpartition("-")[2])
    examples = []
    for group in sorted(finding.groups, key=lambda group: (-len(group), group))[:GROUPS]:
        if differing is not None:
            group = tuple({captions[row][differing]: row for row in reversed(group)}.values())
        examples.append(tuple(sorted(group)[:MEMBERS]))
    return examples


def _picture(store: Store, groups: Sequence[tuple[int, ...]], captions: Sequence[tuple[str, str]]) -> bytes:
    """Groups side by side, images of one group close together; a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    _, high, wide = store.shape
    height, width = tile_size(high, wide, TALL)
    step = max(width, CAPTION_WIDTH) + GAP
    per_line = max(1, ACROSS // max(map(len, groups)))
    lines = [groups[k : k + per_line] for k in range(0, len(groups), per_line)]
    longest = max(sum(map(len, line)) * step + len(line) * 2 * GAP for line in lines)
    sheet = Image.new("RGB", (longest + GAP, GAP + len(lines) * (height + CAPTION + 2 * GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for k, line in enumerate(lines):
        x, y = GAP, GAP + k * (height + CAPTION + 2 * GAP)
        for group in line:
            for row, pixels in zip(group, store.images(np.asarray(group)), strict=True):
                sheet.paste(tile(pixels, TALL), (x, y))
                for place, text in enumerate((str(row), *captions[row])):
                    pen.text((x, y + height + 1 + 12 * place), text[:14], fill="black", font=font)
                x += step
            pen.line([(x, y), (x, y + height + CAPTION)], fill="lightgray")
            x += 2 * GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
