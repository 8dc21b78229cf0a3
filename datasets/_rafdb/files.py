"""RAF-DB's label lists and image files, and which image belongs to which row and split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._shared.folders import entries
from .._shared.tables import Table, read_table, whole, without_numbers
from .._shared.text import HEAD
from .._shared.tree import Faults, images_below, natural, split_named, without_repeats

LABELS = 7
SPLITS = ("train", "test")
NAME = re.compile(r"(train|test)_([0-9]+)(_aligned)?", re.IGNORECASE)
LIST_SUFFIXES = (".txt", ".csv", ".lst", ".tsv", "")
DEPTH = 4  # DATASET/train/1, Image/aligned, aligned/train/train_images and one folder around them

Key = tuple[str, int]


@dataclass(frozen=True)
class LabelList:
    """A file of rows ``train_00001.jpg 5``: image key to (label position, line number)."""

    path: Path
    labels: dict[Key, tuple[int, int]]
    faulty: set[Key]


@dataclass(frozen=True)
class Face:
    """An image file, its key (None where the name has another form), and the split ("") and label its folders tell."""

    path: Path
    key: Key | None
    aligned: bool
    split: str
    label: int | None


def key_of(name: str) -> tuple[Key, bool] | None:
    """(("train", 1), whether aligned) of ``train_00001_aligned.jpg``; None for a name of another form."""
    match = NAME.fullmatch(Path(name).stem)
    return ((match[1].lower(), int(match[2])), bool(match[3])) if match else None


def name_of(key: Key) -> str:
    """An image's name as in the official list, whose numbers have five digits in train and four in test."""
    split, number = key
    return f"{split}_{number:0{5 if split == 'train' else 4}}.jpg"


def find_lists(where: Path) -> list[Path]:
    """Label lists in `where`, ``EmoLabel/`` and split folders, known by rows that begin with a RAF-DB name."""
    inner = [f for f in entries(where) if f.name.lower() == "emolabel" or split_named(f.name)]
    folders = [where, *(f for f in inner if f.is_dir())]
    files = [p for folder in folders for p in entries(folder) if p.suffix.lower() in LIST_SUFFIXES and p.is_file()]
    return [p for p in files if _is_list(p)]


def _is_list(path: Path) -> bool:
    return any(key_of(cells[0]) for _, cells in _table(path, HEAD).rows)


def _table(path: Path, limit: int | None = None) -> Table:
    """The table in a file; empty cells at the ends of its rows count for nothing."""
    table = without_numbers(read_table(path, limit, blanks=True))
    return replace(table, rows=[(line, [cell for cell in cells if cell]) for line, cells in table.rows])


def read_list(path: Path, faults: Faults) -> LabelList:
    """Read a label list; rows with a fault go to `faults` with their line number."""
    labels: dict[Key, tuple[int, int]] = {}
    faulty: set[Key] = set()
    table = _table(path)
    faults += [(f"{path}, row {number}", reason) for number, reason in table.faults]
    for number, fields in table.rows:
        if number == 1 and [f.lower() for f in fields] == ["image", "label"]:
            continue
        named = key_of(fields[0])
        reason = _row_fault(fields, named is not None)
        if named and not reason and named[0] in labels:
            reason = f"an image listed twice: {fields[0]}, also in row {labels[named[0]][1]}"
        if reason:
            faults.append((f"{path}, row {number}", reason))
            faulty |= {named[0]} if named else set()
        elif named:
            labels[named[0]] = ((whole(fields[1]) or 0) - 1, number)
    return LabelList(path, {k: v for k, v in labels.items() if k not in faulty}, faulty)


def _row_fault(fields: Sequence[str], named: bool) -> str:
    if len(fields) != 2:
        return f"wrong number of columns: {len(fields)}, expected 2 (image, label)"
    if not named:
        return f"not a RAF-DB name: '{fields[0][:40]}', expected train_<number> or test_<number>"
    if not 1 <= (whole(fields[1]) or 0) <= LABELS:
        return f"unknown label: '{fields[1][:20]}', expected 1 .. {LABELS} (the compound set has more)"
    return ""


def merge_lists(lists: Sequence[LabelList], faults: Faults) -> tuple[dict[Key, tuple[int, str]], set[Key]]:
    """One label for each image, with the row it comes from; and the images whose rows are faulty or contradictory."""
    merged: dict[Key, tuple[int, str]] = {}
    reported = {key for table in lists for key in table.faulty}
    for table in lists:
        for key, (label, number) in table.labels.items():
            row = f"{table.path}, row {number}"
            known, other = merged.setdefault(key, (label, row))
            if known != label:
                faults.append((row, f"two labels for {name_of(key)}: {label + 1}, but {known + 1} in {other}"))
                reported.add(key)
    return {key: value for key, value in merged.items() if key not in reported}, reported


def find_faces(where: Path, position: Callable[[str], int | None]) -> list[Face]:
    """All images below `where`; `position` gives the label that a folder's name stands for."""
    faces = []
    for path in images_below(where, DEPTH):
        folders = path.relative_to(where).parts[:-1]
        split = next((s for s in map(split_named, reversed(folders)) if s), "")
        label = position(folders[-1]) if folders else None
        faces.append(face_of(path, split, label))
    return faces


def face_of(path: Path, split: str, label: int | None) -> Face:
    """The face in the file `path`, in a folder that says `split` and `label`."""
    key, aligned = key_of(path.name) or (None, False)
    return Face(path, key, aligned, split, label)


def prefer_aligned(faces: Sequence[Face]) -> tuple[list[Face], int]:
    """The faces without those that lie there aligned as well, and how many these are."""
    aligned = {face.key for face in faces if face.aligned}
    kept = [face for face in faces if face.aligned or face.key not in aligned]
    return kept, len(faces) - len(kept)


def unique(faces: Sequence[Face], faults: Faults) -> Iterator[Face]:
    """The first face of each key; every further one is a fault."""
    return without_repeats(faces, lambda face: face.key or face.path, lambda face: face.path, faults)


def join(faces: Sequence[Face], lists: Sequence[Path], faults: Faults) -> list[tuple[Face, int]]:
    """Each face that has exactly one row, with its label; everything else goes to `faults`."""
    labels, reported = merge_lists([read_list(path, faults) for path in lists], faults)
    present: set[Key | None] = set()
    pairs = []
    for face in unique(faces, faults):
        present.add(face.key)
        if face.key in reported:
            continue
        label, row = labels.get(face.key, (None, "")) if face.key else (None, "")
        if label is None:
            faults.append((face.path, f"an image in no row of the label list: {face.path.name}"))
        elif face.label not in (None, label):
            faults.append((face.path, f"its folder is class {face.label + 1}, but {label + 1} in {row}"))
        else:
            pairs.append((face, label))
    faults += [(row, f"no image for {name_of(key)}") for key, (_, row) in labels.items() if key not in present]
    return pairs


def layout_of(faces: Sequence[Face], lists: Sequence[Path]) -> str:
    """Name of the layout of images with label lists."""
    if any(face.split == "val" for face in faces):
        return "apvit"
    if any(face.label is not None for face in faces):
        return "kaggle"
    tables = any(path.suffix.lower() == ".csv" for path in lists)
    return "flat" if tables or any(face.split for face in faces) else "original"


def split_of(face: Face) -> str:
    """The name's split before the folder's; RAF-DB has no validation set, so such a folder holds the test."""
    return face.key[0] if face.key else {"val": "test"}.get(face.split, face.split)


def order_of(face: Face, label: int) -> tuple:
    """Sorting key: split and number; by class and path where the name has no number."""
    number = face.key[1] if face.key else -1
    return SPLITS.index(split_of(face)), number, label, natural(str(face.path))


def misplaced(faces: Sequence[Face]) -> str:
    """What to say of images whose folder and name, or whose folder and RAF-DB's splits, differ."""
    moved = Counter((face.split, split_of(face)) for face in faces if face.split and face.split != split_of(face))
    notes = ""
    for (folder, split), count in sorted(moved.items()):
        if (folder, split) == ("val", "test"):
            notes += f"; the {count} images in the VALIDATION folder are RAF-DB's TEST, it has no validation set"
        else:
            notes += f"; {count} images named {split}_ lie in the {folder} folder: the name decides"
    return notes
