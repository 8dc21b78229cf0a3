"""JAFFE: 213 grey portraits of ten women in seven posed expressions; file names tell subject and class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_bench import Dataset, DatasetCard, Reading

from ._shared.class_names import class_position
from ._shared.folders import IMAGES, JPEGS, entries, subfolders
from ._shared.images import Row, reading
from ._shared.parameters import IMAGE_PARAMS, SIZE
from ._shared.protocols import SUBJECT10
from ._shared.search import find_layout

card = DatasetCard(
    name="jaffe",
    title="JAFFE (Japanese Female Facial Expression)",
    classes=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    counts={"all": (30, 29, 32, 31, 30, 31, 30)},
    layouts={
        "files": "KA.AN1.39.tiff: subject, class (AN DI FE HA NE SA SU) and take, number",
        "folders": "the same files in <class>/ folders",
    },
    protocols=(replace(SUBJECT10, title="one of the ten subjects is the test, the next one selects"),),
    paper="Lyons et al. 1998, Coding facial expressions with Gabor wavelets",
    url="https://doi.org/10.5281/zenodo.3451524",
    licence="non-commercial research on request to the owners; the images must never be redistributed",
    get=(
        "ask the owners for access (https://zenodo.org/records/3451524), unpack the .tiff files into data/raw/jaffe,"
        " then: fer-bench data prepare jaffe"
    ),
    params={
        **IMAGE_PARAMS,
        "size": replace(SIZE, default=256),
    },
    image="256x256 grey",
)

CODES = ("AN", "DI", "FE", "HA", "NE", "SA", "SU")  # in the order of the classes


class Jaffe(Dataset):
    """Reads every layout of ``card.layouts``; all of them give the same store."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the files in `source` or at most two folders below it."""
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        if where.is_file():
            return []
        flat = [p for p in entries(where) if p.is_file()]
        classes = [f for f in subfolders(where) if class_position(f.name, self.card.classes) is not None]
        nested = [p for folder in classes for p in entries(folder)]
        readings = []
        if any(_parts(p) for p in flat):
            readings.append(self._reading("files", where, flat))
        if any(_parts(p) for p in nested):
            readings.append(self._reading("folders", where, nested))
        return readings

    def _reading(self, layout: str, where: Path, files: Sequence[Path]) -> Reading:
        images = [p for p in files if p.suffix.lower() in IMAGES]
        kept: dict[str, Path] = {}
        faults: list[tuple[Path | str, str]] = []
        for path in images:
            name = path.stem.upper()
            if reason := self._fault(path, layout):
                faults.append((path, reason))
            elif name in kept:
                faults.append((path, f"the image occurs twice: also {kept[name]}"))
            else:
                kept[name] = path
        by_number = sorted(kept, key=lambda name: (int(name.rpartition(".")[2]), name))
        rows = [_row(kept[name]) for name in by_number]
        summary = f"{where}: classes and {len({r.subject for r in rows})} subjects from the file names"
        if any(p.suffix.lower() in JPEGS for p in images):
            summary += "; JPEG copies: their pixels are not the original's, so results do not compare exactly"
        labels = dict(zip(CODES, self.card.classes, strict=True))
        return replace(reading(self, layout, summary, rows, faults=faults), labels=labels)

    def _fault(self, path: Path, layout: str) -> str | None:
        if not _parts(path):
            return "not a JAFFE name: expected subject.class+take.number (KA.AN1.39.tiff)"
        label = _row(path).label
        if layout == "folders" and class_position(path.parent.name, self.card.classes) != label:
            return f"the name says {self.card.classes[label]} but it lies in {path.parent.name}/"
        return None


def _parts(path: Path) -> re.Match | None:
    """Subject and class code that a file name tells; None for another name."""
    match = re.fullmatch(rf"([A-Z]{{2}})\.({'|'.join(CODES)})\d+\.\d+", path.stem.upper())
    return match if path.suffix.lower() in IMAGES else None


def _row(path: Path) -> Row:
    parts = _parts(path)
    assert parts is not None
    return Row(file=path, name=path.name, label=CODES.index(parts[2]), split="all", subject=parts[1])
