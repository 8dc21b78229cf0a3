"""The page of an explanation: pictures of faces with maps and shares, what they mean, and the numbers as CSV.

The same run and images give the same bytes: no dates, no paths of this machine but those of the images.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from fer_bench.base.files import write_bytes, write_text
from fer_bench.base.names import shortened
from fer_bench.inference.explain import PREDICTED, TRUE, Explanation, ShownFace
from fer_bench.inference.trained import Trained
from fer_bench.printable import printable
from fer_bench.reports.facts.phrases import code, count, listed, percent
from fer_bench.reports.render import html, markdown
from fer_bench.reports.render.blocks import Block, Bullets, Code, Document, Notice, Paragraph, Part, Picture, TableBlock
from fer_bench.reports.render.figure_files import DPI, STYLE
from fer_bench.reports.render.marks import slug
from fer_bench.reports.render.page_folder import Target, aside, check, move
from fer_bench.reports.render.table import Table, rows_csv
from fer_bench.reports.sections.figures import COLOURS, shorten

PAGE, WEB_PAGE = "README.md", "index.html"
FILES = {"regions": "regions.csv", "shares": "shares.csv", "affinity": "affinity.csv"}
PER_PICTURE = 8  # faces, one below the other
MOST_MAPS, MOST_BARS = 6, 12  # that a picture shows; the CSV files hold all
NUMBERED = 16  # classes and sources up to which the cells of the matrix hold numbers
CAM = (
    "**Grad-CAM** marks the places of the network's last map that raise the score of a class: yellow ones most, "
    "clear ones not at all (Selvaraju et al., ICCV 2017). It does not say why a place counts."
)


def write_page(trained: Trained, explanation: Explanation, target: Target, command: str) -> None:
    """Write ``README.md``, ``index.html``, pictures below ``figures/`` and CSV files; replaces only files of ours.

    Raises
    ------
    FerBenchError
        The folder can't be written, or holds files of others under our names.
    """
    check(target, [PAGE, WEB_PAGE])
    pictures = dict(_pictures(explanation))
    document = _document(trained, explanation, list(pictures), command)
    with aside(target) as folder:
        for name, (_, png) in pictures.items():
            write_bytes(folder / "figures" / f"{name}.png", png)
        for name, text in _csv_files(explanation).items():
            write_text(folder / name, text)
        write_text(folder / WEB_PAGE, printable(html.page(document, {n: png for n, (_, png) in pictures.items()})))
        write_text(folder / PAGE, printable(markdown.page(document)))
        move(folder, target)


# -- text ------------------------------------------------------------------------------------------------------------


def _document(trained: Trained, explanation: Explanation, pictures: Sequence[str], command: str) -> Document:
    record, spec = trained.record, trained.spec
    epoch = record.json("selection")["epoch"] + 1
    facts = [
        f"run {code(record.id)}: {code(record.label)} on {code(f'{spec.dataset}/{spec.protocol}')}, fold {spec.fold}, "
        f"seed {spec.seed}, {spec.backbone}, selected epoch {epoch}",
        _shown(explanation),
        *trained.notes,
        *explanation.notes,
    ]
    parts = [
        Part("read", "How to read the pictures", tuple(_how_to_read(explanation))),
        Part("faces", "Faces", tuple(_face_blocks(explanation, pictures))),
        Part("regions", "Where the maps lie", tuple(_region_blocks(explanation))),
        Part("sources", "What faces draw on", tuple(_source_blocks(explanation, pictures))),
        Part("repeat", "How to repeat this", (Code(command),)),
    ]
    return Document(
        title=f"What {record.label} looks at",
        intro=(Bullets(tuple(facts)), *_seal(trained, explanation)),
        parts=tuple(part for part in parts if part.blocks),
    )


def _shown(explanation: Explanation) -> str:
    if all(face.true is None for face in explanation.faces):
        return f"{count(len(explanation.faces), 'image')} of your own"
    classes = dict.fromkeys(explanation.classes[face.true] for face in explanation.faces if face.true is not None)
    wrong = sum(face.true != face.predicted for face in explanation.faces)
    return (
        f"{count(len(explanation.faces), 'test image')} of the rarest classes ({listed(list(classes))}), "
        f"{wrong} of them predicted wrongly; chosen evenly, so the shares of right and wrong say nothing of the method"
    )


def _seal(trained: Trained, explanation: Explanation) -> Iterator[Block]:
    yield Notice("This page shows the images themselves. Publish it only if the licence of the data permits that.")
    rows = [face.row for face in explanation.faces if face.row is not None]
    if rows:
        verb = "is" if len(rows) == 1 else "are"
        opened = trained.record.json("seal")["count"] if trained.record.has("seal.json") else 0
        yield Notice(
            f"{count(len(rows), 'test image')} of a finished run {verb} shown. The run was scored before, its record "
            f"is unchanged, and its count of openings of the test stays {opened}. But whoever changes a method after "
            "looking at test images has chosen it on the test. Look at images of your own for that."
        )


def _how_to_read(explanation: Explanation) -> Iterator[Block]:
    names = _map_names(explanation)
    items = []
    if PREDICTED in names:
        places = " x ".join(map(str, explanation.sizes.get(PREDICTED, ())))
        items.append(
            CAM
            + f" The network's last map has {places} places here, drawn where the pixels are that move them most."
            * bool(places)
        )
        items.append(
            "It is drawn for the predicted class, and for a wrong prediction also for the true class: the first shows "
            "what misled the network, the second what spoke for the right answer."
            if TRUE in names
            else "It is drawn for the predicted class."
        )
    if own := [name for name in names if name not in (PREDICTED, TRUE)]:
        items.append(
            f"**{listed(own[:MOST_MAPS])}**: told by the method itself, each scaled to its own largest value in each "
            "image." + f" The CSV file has {len(own) - MOST_MAPS} more." * (len(own) > MOST_MAPS)
        )
    if explanation.sources:
        items.append("**Bars**: the share of each source in what the method draws on for this face; they sum to 100 %.")
    yield Bullets(tuple(items))


def _face_blocks(explanation: Explanation, pictures: Sequence[str]) -> Iterator[Block]:
    for name, title, faces in _groups(explanation):
        if name in pictures:
            yield Paragraph(f"**{title}**")
            yield Picture(name, f"{title}: {count(len(faces), 'face')}, each with its maps in a row")


def _region_blocks(explanation: Explanation) -> Iterator[Block]:
    names = _map_names(explanation)
    if not names:
        return
    what = "parts of the face, as this data set places them" if explanation.layout else "thirds of the image"
    unknown = (
        "Where the parts of the faces lie in images of your own is not known"
        if all(face.row is None for face in explanation.faces)
        else "This data set does not say where the parts of a face lie"
    )
    more = "" if explanation.layout else f" {unknown}."
    yield Paragraph(
        f"The mean share of a map's mass in {what}, in %. Compare it with the first row: a map that prefers no place "
        f"has the share of the area.{more} {code(FILES['regions'])} has the shares of every face."
    )
    regions = [r for r, area in explanation.areas.items() if area > 1e-9]
    rows = [("area of the image", "", *(percent(explanation.areas[r]) for r in regions))]
    for name in names:
        for kind, faces in _kinds(explanation, name):
            shares = [explanation.region_shares(face, name) for face in faces]
            sound = [s for s in shares if np.isfinite(s[regions[0]])]
            cells = (percent(float(np.mean([s[r] for s in sound]))) if sound else "–" for r in regions)
            rows.append((name, f"{len(sound)} {kind}".strip(), *cells))
    table = Table(("Map", "Faces", *regions), (False, False, *(True for _ in regions)), tuple(rows))
    yield TableBlock(table, "regions", "Share of each map in each region", sortable=False)


def _kinds(explanation: Explanation, name: str) -> Iterator[tuple[str, list[ShownFace]]]:
    """The faces that have a map, those predicted rightly and wrongly apart where that is known."""
    faces = [face for face in explanation.faces if name in face.maps]
    if all(face.true is None for face in faces):
        yield "", faces
        return
    for kind, right in (("right", True), ("wrong", False)):
        if some := [face for face in faces if (face.true == face.predicted) is right]:
            yield kind, some


def _source_blocks(explanation: Explanation, pictures: Sequence[str]) -> Iterator[Block]:
    if not explanation.sources:
        return
    if explanation.affinity is not None and "affinity" in pictures:
        yield Paragraph(
            f"The mean share of each source (columns) for the faces of each class (rows), over the run's "
            f"{count(explanation.validated, 'validation image')}; no test image takes part. {code(FILES['affinity'])} "
            "has the numbers."
        )
        yield Picture("affinity", "Matrix of the mean shares of each source for each class")
    yield Paragraph(f"{code(FILES['shares'])} has the shares of every face on this page.")


# -- numbers ---------------------------------------------------------------------------------------------------------


def _csv_files(explanation: Explanation) -> dict[str, str]:
    """The numbers behind the page; files without rows are left out."""
    classes, head = explanation.classes, ("image", "row", "true", "predicted", "probability")
    regions: list[Sequence[Any]] = [(*head, "map", "region", "share", "area")]
    shares: list[Sequence[Any]] = [(*head, "source", "share")]
    for face in explanation.faces:
        true = "" if face.true is None else classes[face.true]
        row = "" if face.row is None else face.row
        facts = (face.name, row, true, classes[face.predicted], f"{face.probability:.6f}")
        for name in face.maps:
            for region, share in explanation.region_shares(face, name).items():
                value = f"{share:.6f}" if np.isfinite(share) else ""
                regions.append((*facts, name, region, value, f"{explanation.areas[region]:.6f}"))
        if face.shares is not None:
            pairs = zip(explanation.sources, face.shares, strict=True)
            shares += [(*facts, source, f"{share:.6f}") for source, share in pairs]
    affinity: list[Sequence[Any]] = [("class", "source", "mean_share")]
    if explanation.affinity is not None:
        for k, name in enumerate(classes):
            pairs = zip(explanation.sources, explanation.affinity[k], strict=True)
            affinity += [(name, source, f"{v:.6f}" if np.isfinite(v) else "") for source, v in pairs]
    kept = {"regions": regions, "shares": shares, "affinity": affinity}
    return {FILES[name]: rows_csv(rows) for name, rows in kept.items() if len(rows) > 1}


# -- pictures --------------------------------------------------------------------------------------------------------


def _map_names(explanation: Explanation) -> list[str]:
    return list(dict.fromkeys(name for face in explanation.faces for name in face.maps))


def _groups(explanation: Explanation) -> Iterator[tuple[str, str, list[ShownFace]]]:
    """File name, title and faces of each picture: class by class, at most PER_PICTURE faces in each."""
    known = dict.fromkeys(face.true for face in explanation.faces)
    for number, label in enumerate(known):
        faces = [face for face in explanation.faces if face.true == label]
        title = "Images" if label is None else explanation.classes[label]
        stem = f"faces-{number + 1}-{slug(title)}"
        for start in range(0, len(faces), PER_PICTURE):
            part = f" ({start // PER_PICTURE + 1})" if len(faces) > PER_PICTURE else ""
            name = f"{shortened(stem)}{f'-{start // PER_PICTURE + 1}' if part else ''}"
            yield name, printable(title) + part, faces[start : start + PER_PICTURE]


def _pictures(explanation: Explanation) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Name, title and PNG of every picture."""
    for name, title, faces in _groups(explanation):
        yield name, (title, _png(_draw_faces(explanation, faces)))
    if explanation.affinity is not None:
        yield "affinity", ("affinity", _png(_draw_affinity(explanation)))


def _png(figure: Drawing) -> bytes:
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.dpi = DPI
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def _draw_faces(explanation: Explanation, faces: Sequence[ShownFace]) -> Drawing:
    """One row for each face: the image, its maps, and bars of its shares."""
    named = _map_names(explanation)
    own = [name for name in named if name not in (PREDICTED, TRUE)][:MOST_MAPS]
    columns = [name for name in (PREDICTED, TRUE) if any(name in face.maps for face in faces)] + own
    bars = bool(explanation.sources)
    widths = [1.0] * (1 + len(columns)) + [1.9] * bars
    with matplotlib.rc_context(STYLE):
        figure = Drawing(figsize=(1.45 * sum(widths) + 0.3, 1.75 * len(faces) + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(faces), len(widths), squeeze=False, width_ratios=widths)
        for row, face in zip(axes, faces, strict=True):
            _picture(row[0], face.image)
            row[0].set_title(_caption(explanation, face), fontsize=7)
            for axis, name in zip(row[1:], columns, strict=False):
                if name in face.maps:
                    _picture(axis, face.image)
                    _overlay(axis, face.maps[name])
                    empty = "" if face.maps[name].any() else "\n(0 everywhere)"
                    axis.set_title(_map_title(explanation, face, name) + empty, fontsize=7)
                else:
                    axis.set_axis_off()
            if bars and face.shares is not None:
                _bars(row[-1], explanation.sources, face.shares)
    return figure


def _caption(explanation: Explanation, face: ShownFace) -> str:
    """Where the face comes from, and what it is taken for."""
    said = f"{shorten(explanation.classes[face.predicted], 16)} {100 * face.probability:.0f} %"
    if face.true is not None:
        said = ("right: " if face.true == face.predicted else "wrong: ") + said
    name = face.name if len(face.name) <= 26 else f"…{face.name[-25:]}"
    return printable(f"{name}\n{said}")


def _map_title(explanation: Explanation, face: ShownFace, name: str) -> str:
    if name == PREDICTED:
        return printable(f"Grad-CAM\n{shorten(explanation.classes[face.predicted], 20)}")
    if name == TRUE and face.true is not None:
        return printable(f"Grad-CAM\n{shorten(explanation.classes[face.true], 20)} (true)")
    return printable(shorten(name, 24))


def _picture(axis: Axes, image: np.ndarray) -> None:
    axis.set_axis_off()
    shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _overlay(axis: Axes, values: np.ndarray) -> None:
    """Lay a map over the image, scaled to its largest value; the smaller, the clearer."""
    largest = float(values.max())
    scaled = values / largest if largest > 0 else np.zeros_like(values)
    axis.imshow(scaled, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * scaled, interpolation="bilinear")


def _bars(axis: Axes, sources: Sequence[str], shares: np.ndarray) -> None:
    """Horizontal bars of the largest shares, in the order of the sources."""
    largest = np.sort(np.argsort(-shares, kind="stable")[:MOST_BARS])
    places = np.arange(len(largest))
    axis.barh(places, 100 * shares[largest], color=COLOURS[0], height=0.7)
    axis.set_yticks(places, [printable(shorten(sources[k], 14)) for k in largest], fontsize=6)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.tick_params(axis="x", labelsize=6)
    axis.set_xlabel("share, %", fontsize=6)


def _draw_affinity(explanation: Explanation) -> Drawing:
    """The matrix of mean shares, classes downwards and sources across."""
    assert explanation.affinity is not None
    values, sources = 100 * explanation.affinity, explanation.sources
    with matplotlib.rc_context(STYLE):
        size = (2.2 + 0.5 * min(len(sources), 40), 1.4 + 0.34 * min(len(values), 60))
        figure = Drawing(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.imshow(values, cmap="Blues", vmin=0, vmax=max(float(np.nanmax(values)), 1e-9), aspect="auto")
        few = max(values.shape) <= NUMBERED
        for (i, j), value in np.ndenumerate(values) if few else ():
            dark = value > 0.6 * np.nanmax(values)
            text = "–" if not np.isfinite(value) else f"{value:.0f}"
            axis.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_yticks(np.arange(len(values)), [printable(shorten(name, 20)) for name in explanation.classes])
        axis.set_xticks(np.arange(len(sources)), [printable(shorten(name, 20)) for name in sources], rotation=45,
                        ha="right")  # fmt: skip
        axis.set_xlabel("source (share in %)")
        axis.set_ylabel("true class")
    return figure
