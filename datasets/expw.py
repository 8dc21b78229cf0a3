"""ExpW: 91,793 faces in photos from the web, one row a face in a list with boxes, in FER2013's seven classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_bench import Dataset, DatasetCard, Param, Protocol, Reading

from ._shared.class_names import ClassNames
from ._shared.folders import entries
from ._shared.images import Row, reading
from ._shared.parameters import CLASS_ORDER, IMAGE_PARAMS
from ._shared.search import find_layout
from ._shared.tables import COLUMNS as NAMES
from ._shared.tables import Table, read_table, whole, without_numbers
from ._shared.text import HEAD, tables_in
from ._shared.tree import Faults, images_below, is_image, natural

card = DatasetCard(
    name="expw",
    title="ExpW (Expression in-the-Wild)",
    classes=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    shares={"all": (3671, 3995, 1088, 30537, 10559, 7060, 34883)},  # as published; together the 91,793 of its title
    orders={
        "FER+": ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear"),
        "RAF-DB": ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
        "AffectNet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    },
    layouts={
        "boxes": "label.lst (photo, face, top, left, right, bottom, confidence, label) and the photos in origin/",
        "names": "label.lst (image, label) and the images beside it or in origin/",
    },
    protocols=(
        Protocol(
            name="photo60-20-20",
            scheme="shuffle",
            shares=(0.6, 0.2, 0.2),
            group="photo",
            title="random, the faces of one photo stay together",
        ),
    ),
    paper="Zhang, Luo, Loy & Tang 2018, From facial expression recognition to interpersonal relation prediction",
    url="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
    licence="non-commercial research; the photos belong to their owners and must not be redistributed",
    get=(
        "download label.lst and the photos from http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html,"
        " put label.lst and origin/ into data/raw/expw, then: fer-bench data prepare expw"
    ),
    params={
        **IMAGE_PARAMS,
        "crop": Param(True, "cut each face out by its box; false keeps the whole photo"),
        "classes": CLASS_ORDER,
    },
    image="224x224 RGB",
)

COLUMNS = {
    8: "photo, face, top, left, right, bottom, confidence, label",
    2: "image, label",
}
ENDINGS = ((".lst", ".txt"), (".csv", ".tsv", ""))
PHOTOS = (".", "origin", "image/origin", "image", "images")  # where the photos may lie, beside the list or one above


class ExpW(Dataset):
    """Reads both layouts of ``card.layouts``; rows come in the order of photo and face."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout in `source` or at most two folders below it."""
        self.names = ClassNames.of(self.card.classes, self.params)
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        if where.is_file():
            return []
        folders = [where, *(f for f in entries(where) if f.name == "label" and f.is_dir())]
        lists = [p for f in folders for p in tables_in(f, lambda p: _columns_of(_table(p, HEAD)) > 0, ENDINGS)]
        readings = []
        for path in lists:
            photos = _find_photos(where)
            if photos:
                readings.append(self._reading(path, photos))
            else:
                seen.append(f"{path.name}, but no photos in {', '.join(PHOTOS)}")
        return readings

    def _reading(self, path: Path, photos: dict[str, Path]) -> Reading:
        faults: Faults = []
        table = _table(path)
        lines, repeated = _lines(table)
        columns = _columns_of(table)
        faults += [(f"{path}, row {line}", reason) for line, reason in table.faults]
        rows: dict[str, tuple[int, Row]] = {}
        for number, fields in lines:
            row = self._row(fields, columns, photos)
            if isinstance(row, str):
                faults.append((f"{path}, row {number}", row))
            elif row.name in rows:
                first = rows[row.name][0]
                faults.append((f"{path}, row {number}", f"a face listed twice: {row.name}, also in row {first}"))
            else:
                rows[row.name] = (number, row)
        ordered = sorted((row for _, row in rows.values()), key=lambda row: natural(row.name))
        named = {fields[0] for _, fields in lines}
        boxed = columns == 8 and self.params["crop"]
        summary = f"{path}: {COLUMNS[columns]}; {'faces cut out by their boxes' if boxed else 'whole images'}; no split"
        if unread := len(photos.keys() - named):
            summary += f"; {unread} images in no row left unread"
        if repeated:
            summary += f"; {repeated} rows that repeat another word for word read once"
        read = reading(self, "boxes" if columns == 8 else "names", summary, ordered, faults=faults, files=[path])
        return replace(read, labels=self.names.by_number())

    def _row(self, fields: Sequence[str], columns: int, photos: dict[str, Path]) -> Row | str:
        """The row of a line, or what is wrong with it."""
        if len(fields) != columns:
            return f"wrong number of columns: {len(fields)}, expected {columns} ({COLUMNS[columns]})"
        photo, label = fields[0], whole(fields[-1])
        if label is None or not 0 <= label < len(self.card.classes):
            first, last = self.names.numbered[0], self.names.numbered[-1]
            return f"unknown label: '{fields[-1][:20]}', expected 0 {first} .. {len(self.card.classes) - 1} {last}"
        if photo not in photos:
            return f"no image for it: '{photo[:60]}'"
        box, name = None, photo
        if columns == 8:
            numbers = [n for n in map(whole, fields[1:6]) if n is not None]
            if len(numbers) < 5:
                return f"a face number or box is no integer: '{' '.join(fields[1:6])[:60]}'"
            face, top, left, right, bottom = numbers
            box = (left, top, right, bottom) if self.params["crop"] else None
            name = f"{photo}#{face}"
        position = int(self.names.positions()[label])
        return Row(file=photos[photo], name=name, label=position, split="all", box=box, extra={"photo": photo})


def _table(path: Path, limit: int | None = None) -> Table:
    return without_numbers(read_table(path, limit, blanks=True))


def _columns_of(table: Table) -> int:
    """How many columns the first row has where its form is known (an image's name first, an integer last), else 0."""
    fields = next((cells for _, cells in _rows_of(table)), [])
    known = len(fields) in COLUMNS and is_image(Path(fields[0])) and whole(fields[-1]) is not None
    return len(fields) if known else 0


def _rows_of(table: Table) -> list[tuple[int, list[str]]]:
    """The rows without a header, which only lists have that somebody saved anew."""
    named = bool(table.first) and not is_image(Path(table.first[0])) and table.first[-1].casefold() in NAMES["label"]
    return table.rows[named:]


def _lines(table: Table) -> tuple[list[tuple[int, tuple[str, ...]]], int]:
    """The rows with their line numbers, each once, and how many were there again."""
    lines = [(number, tuple(cells)) for number, cells in _rows_of(table)]
    first: dict[tuple[str, ...], int] = {}
    for number, fields in lines:
        first.setdefault(fields, number)
    return [(number, fields) for fields, number in first.items()], len(lines) - len(first)


def _find_photos(where: Path) -> dict[str, Path]:
    """Images by name, from the first known folder that holds any."""
    for name in PHOTOS:
        folder = where / name
        if folder.is_dir() and (photos := {path.name: path for path in images_below(folder, 0)}):
            return photos
    return {}
