"""muxspace/facial_expressions: about 13,700 photos in eight classes, most of them of people named in the file name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer_bench import Dataset, DatasetCard, Param, Protocol, Reading

from ._shared.class_names import class_position
from ._shared.folders import IMAGES, entries
from ._shared.images import Row, reading
from ._shared.parameters import IMAGE_PARAMS, SIZE
from ._shared.protocols import RANDOM60_20_20
from ._shared.search import find_layout
from ._shared.tables import Table, read_table, without_numbers
from ._shared.text import ENDINGS, tables_in

# no counts: what is published counts the rows of the list, eight of which double others
card = DatasetCard(
    name="muxspace",
    title="muxspace/facial_expressions",
    classes=("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    shares={"all": (252, 9, 208, 21, 5696, 6868, 268, 368)},
    layouts={"list": "data/legend.csv with columns user.id, image, emotion; the images in images/"},
    protocols=(
        Protocol(
            name="people60-20-20",
            scheme="shuffle",
            shares=(0.6, 0.2, 0.2),
            group="subject",
            title="random parts; the photos of one name stay together",
        ),
        replace(RANDOM60_20_20, title="stratified random parts; the rarest class has 9 images, so its test holds two"),
        Protocol(
            name="random5",
            scheme="shuffle",
            shares=(0.6, 0.2, 0.2),
            folds=5,
            title="five stratified random divisions",
        ),
    ),
    url="https://github.com/muxspace/facial_expressions",
    licence="Apache-2.0 by its uploader; most images are press photos of named people, so do not redistribute them",
    get=(
        "git clone https://github.com/muxspace/facial_expressions data/raw/muxspace,"
        " then: fer-bench data prepare muxspace"
    ),
    params={
        **IMAGE_PARAMS,
        "size": replace(SIZE, default=350),
        "conflicts": Param(
            "drop", "images whose rows have different labels: left out, or a row for each", choices=("drop", "keep")
        ),
    },
    image="350x350 grey, and 925 in colour of other sizes",
)

COLUMNS = ("user.id", "image", "emotion")
LONGEST = 255  # bytes of a file name
HEAD = 4096  # bytes that tell whether a table is the list
PUBLISHED = (252, 9, 208, 21, 5696, 6868, 268, 368)  # rows of the list by class

Faults = list[tuple[Path | str, str]]


@dataclass(frozen=True)
class Entry:
    """One row of the list."""

    line: int
    user: str
    image: str
    label: int
    word: str


class Muxspace(Dataset):
    """Reads the repository, or the list with the images beside it."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the list in `source` or at most two folders below it."""
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        paths = [where] if where.is_file() else [p for p in entries(where) if p.suffix.lower() in ENDINGS[0]]
        lists = tables_in(where, lambda p: _is_list(without_numbers(read_table(p, HEAD))))
        named = [p for p in lists if p.stem.lower() == "legend"]
        spare = [p.name for p in lists if p not in named] if named else []
        seen += [f"{p.name} (its first line is not {','.join(COLUMNS)})" for p in paths if p not in lists]
        return [self._reading(without_numbers(read_table(path)), spare) for path in named or lists]

    def _reading(self, table: Table, spare: Sequence[str]) -> Reading:
        path = table.path
        faults: Faults = [(f"{path}, row {line}", reason) for line, reason in table.faults]
        listed = _entries(table, self.card.classes, faults)
        folder = _folder(path, {e.image for e in listed})
        by_image: dict[str, list[Entry]] = {}
        for entry in listed:
            if (folder / entry.image).is_file():
                by_image.setdefault(entry.image, []).append(entry)
            else:
                faults.append((f"{path}, row {entry.line}", f"no such image: {folder / entry.image}"))
        rows = [row for name in sorted(by_image) for row in self._rows(folder, by_image[name])]
        summary = f"{path}: {len(listed)} rows, images in {folder}; {_compared(listed, self.card.classes)}"
        summary += _described(by_image, folder, self.params["conflicts"])
        summary += f"; {len({r.subject for r in rows})} different names in the file names"
        if spare:
            summary += f"; {', '.join(spare)} beside it left unread"
        read = reading(self, "list", summary, rows, faults=faults, files=[path])
        return replace(read, labels={e.word: self.card.classes[e.label] for e in listed})

    def _rows(self, folder: Path, same: Sequence[Entry]) -> list[Row]:
        """The rows of one image: one, or one for each label where its labels differ and conflicts are kept."""
        labels = {entry.label: entry for entry in reversed(same)}  # the first entry of each label
        if len(labels) > 1 and self.params["conflicts"] == "drop":
            return []
        return [
            Row(
                file=folder / entry.image,
                name=entry.image if k == 0 else f"{entry.image}#{k + 1}",
                label=label,
                split="all",
                subject=re.sub(r"_\d+$", "", Path(entry.image).stem),
                extra={"user": entry.user},
            )
            for k, (label, entry) in enumerate(sorted(labels.items()))
        ]


def _is_list(table: Table) -> bool:
    return sorted(name.lower() for name in table.first) == sorted(COLUMNS)


def _entries(table: Table, classes: Sequence[str], faults: Faults) -> list[Entry]:
    """Every row below the header, in order; rows with a fault are told in `faults`."""
    names = [name.lower() for name in table.first]
    entries_read = []
    for line, cells in table.rows[1:]:
        entry = _entry(line, cells, names, classes)
        if isinstance(entry, Entry):
            entries_read.append(entry)
        else:
            faults.append((f"{table.path}, row {line}", entry))
    return entries_read


def _entry(line: int, cells: Sequence[str], names: Sequence[str], classes: Sequence[str]) -> Entry | str:
    """A row, or what is wrong with it."""
    if len(cells) != len(names):
        return f"wrong number of columns: {len(cells)}, expected {len(names)} ({', '.join(names)})"
    cell = dict(zip(names, cells, strict=True))
    label, image = class_position(cell["emotion"], classes), cell["image"]
    if label is None:
        return f"unknown emotion: '{cell['emotion'][:20]}', expected {', '.join(classes)}"
    if image in ("", ".", "..") or "/" in image or "\\" in image or len(image.encode()) > LONGEST:
        return f"not a file name: '{image[:40]}'"
    return Entry(line, cell["user.id"], image, label, cell["emotion"])


def _folder(path: Path, images: set[str]) -> Path:
    """Where the images lie: images/ beside the list's folder or in it, or that folder itself."""
    places = [path.parent.parent / "images", path.parent / "images", path.parent]
    return next((p for p in places if any((p / name).is_file() for name in images)), places[0])


def _compared(listed: Sequence[Entry], classes: Sequence[str]) -> str:
    """Whether the rows by class are the published ones."""
    counts = Counter(entry.label for entry in listed)
    differences = [
        f"{name} {counts[k]} (published {known})"
        for k, (name, known) in enumerate(zip(classes, PUBLISHED, strict=True))
        if counts[k] != known
    ]
    if not differences:
        return "the rows of every class are the published ones"
    return f"NOT the published rows: {', '.join(differences)}"


def _described(by_image: Mapping[str, Sequence[Entry]], folder: Path, conflicts: str) -> str:
    """What becomes of doubled rows, conflicting labels and files without a row."""
    doubled = [same for same in by_image.values() if len(same) > 1]
    conflicting = sum(len({entry.label for entry in same}) > 1 for same in doubled)
    files = [p.name for p in entries(folder) if p.suffix.lower() in IMAGES] if folder.is_dir() else []
    unlabelled = sum(name not in by_image for name in files)
    summary = f"; {len(doubled)} images have several rows" if doubled else ""
    if conflicting:
        summary += f", {conflicting} with different labels ({'left out' if conflicts == 'drop' else 'each label kept'})"
    return summary + (f"; {unlabelled} image files without a row are left out" if unlabelled else "")
