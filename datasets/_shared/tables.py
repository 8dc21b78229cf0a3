"""Text tables in which people keep labels: found out how they are written, read whole, named columns looked up.

Nothing here raises for a malformed row: it lands in :attr:`Table.faults` with its line number.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from fer_bench import DataError

from .folders import IMAGES, ROLES
from .text import HEAD, decoded, printable

DELIMITERS = (",", "\t", ";")
BLANKS = " "  # stands for blanks and tabs, any number of them
LINES = 50  # that decide on the delimiter, within the file's head
NAMELESS = re.compile(r"|unnamed: ?\d+(\.\d+)*|index", re.IGNORECASE)  # of the column of row numbers
# Texts that stand for a missing value: those that pandas, R, Excel and SQL write, and what people type.
MISSING = (
    *("", "nan", "-nan", "none", "null", "na", "n/a", "<na>", "#n/a", "#n/a n/a", "#na", "nat"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "?", "-", "--"),
)

# Column names seen in the field; written with blanks, dots or dashes they count as the same name.
COLUMNS = {
    "name": (
        *("image", "image_name", "image_path", "img", "img_name", "img_path"),
        *("file", "file_name", "file_path", "filename", "filepath", "name", "path", "pth"),
    ),
    "label": ("label", "labels", "emotion", "expression", "class", "target"),
    "split": ("split", "usage", "set", "subset", "fold"),
    "subject": ("subject", "subject_id", "user", "user_id", "person", "person_id"),
}
IMAGE_FOLDERS = ("images", "image", "imgs", "img")
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {**ROLES, "val": (*ROLES["val"], "dev", "publictest"), "test": (*ROLES["test"], "privatetest")}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as text.

    Attributes
    ----------
    rows : list of (int, list of str)
        Line number as an editor shows it, and the stripped cells; the first row may be a header. Blank lines are left
        out.
    note : str
        What had to be guessed, for people; empty mostly.
    faults : tuple of (int, str)
        Line and reason where reading stopped early.
    kind : str
        What the file is where it holds no text ("zip archive"); it has no rows then.
    """

    path: Path
    rows: list[tuple[int, list[str]]]
    note: str = ""
    faults: tuple[tuple[int, str], ...] = ()
    kind: str = ""

    @property
    def first(self) -> list[str]:
        """Cells of the first row; empty for an empty file."""
        return self.rows[0][1] if self.rows else []


def read_table(path: Path, limit: int | None = None, *, blanks: bool = False) -> Table:
    """Read a table with commas, tabs or semicolons, in UTF-8, UTF-16 or Latin-1, with any ends of lines.

    Parameters
    ----------
    limit : int, optional
        Bytes to read at most, for a look at its head; the last line is then left out.
    blanks : bool
        Blanks may divide the cells as well.
    """
    with open(path, "rb") as file:
        data = file.read() if limit is None else file.read(limit)
    text, script = decoded(data, cut=limit is not None and len(data) == limit)
    if not script.encoding:
        return Table(path=path, rows=[], kind=script.kind)
    note = "not UTF-8: read as Latin-1" if script.encoding == "latin-1" else ""
    rows: list[tuple[int, list[str]]] = []
    faults = []
    delimiter = _delimiter(text, (*DELIMITERS, BLANKS) if blanks else DELIMITERS)
    if delimiter == BLANKS:
        lines = re.split(r"\r\n|\r|\n", text)
        return Table(path=path, rows=[(k, line.split()) for k, line in enumerate(lines, 1) if line.strip()], note=note)
    reader = _reader(io.StringIO(text, newline=""), delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        faults.append((line, f"can't be read on from here, a quote may be open: {error}"))
    return Table(path=path, rows=rows, note=note, faults=tuple(faults))


def _reader(lines: Iterable[str], delimiter: str, *, strict: bool = False) -> Any:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _delimiter(text: str, delimiters: Sequence[str]) -> str:
    """The delimiter by which most lines have as many cells as the first, and that makes the most cells."""
    lines = [line for line in text[:HEAD].splitlines()[:LINES] if line.strip()]

    def score(delimiter: str) -> tuple[float, int]:
        try:
            cut = [line.split() for line in lines] if delimiter == BLANKS else _reader(lines, delimiter)
            widths = [len(cells) for cells in cut]
        except csv.Error:
            return 0.0, 0
        return (widths.count(widths[0]) / len(widths), widths[0]) if widths and widths[0] > 1 else (0.0, 0)

    return max(delimiters, key=score)


def row_numbers(table: Table) -> set[int]:
    """Positions of the columns of row numbers, which pandas and R write before a table without naming them."""
    first = [cells for _, cells in table.rows[1:2]]
    return {
        k
        for k, name in enumerate(table.first)
        if NAMELESS.fullmatch(name) and all(len(cells) > k and whole(cells[k]) is not None for cells in first)
    }


def without_numbers(table: Table) -> Table:
    """The table without its columns of row numbers, and without rows that hold nothing else."""
    gone = row_numbers(table)
    if not gone:
        return table
    rows = [(line, [cell for k, cell in enumerate(cells) if k not in gone]) for line, cells in table.rows]
    return replace(table, rows=[(line, cells) for line, cells in rows if any(cells)])


def whole(text: str) -> int | None:
    """The whole number in a cell, also as ``3.0``, which pandas makes of 3 beside missing values; None for another."""
    match = re.fullmatch(r"([+-]?\d{1,9})(\.0*)?", text.strip())
    return int(match[1]) if match else None


def is_missing(text: str) -> bool:
    """Whether a cell stands for a missing value."""
    return text.strip().casefold() in MISSING


def meant(text: str, names: Iterable[str]) -> str:
    """The one of `names` that a cell means, written in large or small letters; the cell itself where it is none."""
    by_plain = {plain(name).replace("_", ""): name for name in names}
    return by_plain.get(plain(text).replace("_", ""), text)


def plain(name: str) -> str:
    """A column name in small letters, with underscores for blanks, dots and dashes."""
    return re.sub(r"[ .\-]+", "_", name.strip().casefold())


class Unclear(Exception):
    """A column that can't be told; its text is the reason, in which nothing harms a terminal."""

    def __init__(self, reason: str):
        super().__init__(printable(reason, len(reason)))


def find_column(header: Sequence[str], kind: str, given: str) -> int | None:
    """Position of the column of this kind (a key of :data:`COLUMNS`); None where no known name stands there.

    Parameters
    ----------
    given : str
        The column a person named, by its name or its number from 1; empty for the known names.

    Raises
    ------
    Unclear
        The named column does not exist, or several columns could be meant.
    """
    names = [plain(name) for name in header]
    if given:
        if plain(given) in names:
            return names.index(plain(given))
        if given.isdigit() and 1 <= int(given) <= len(header):
            return int(given) - 1
        raise Unclear(f"there is no column '{given}' for the {kind} among {', '.join(header)[:80]}")
    columns = [k for k, name in enumerate(names) if name in COLUMNS[kind]]
    if len(columns) > 1:
        several = ", ".join(header[k] for k in columns)
        raise Unclear(f"{several} could each hold the {kind}: name one with --dataset-set {kind}_column=NAME")
    return columns[0] if columns else None


def split_of(text: str) -> str | None:
    """ "train", "val" or "test" for a name people give such a part; None for another text."""
    lower = text.strip().casefold()
    return next((split for split, names in SPLIT_NAMES.items() if lower in names), None)


def split_in(stem: str) -> str | None:
    """The split that a file or folder name holds as one of its words (``train_labels``); None for none or several."""
    splits = {split_of(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return splits.pop() if len(splits) == 1 else None


def split_rank(split: str) -> tuple[int, str]:
    """Sorting key of a split name: train, val, test, then others by name."""
    return (SPLITS.index(split), "") if split in SPLITS else (len(SPLITS), split)


# --- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Finder:
    """Looks up the image that a name in a table means.

    Attributes
    ----------
    folders : tuple of Path
        Where names start.
    parts : mapping of split to tuple of Path
        Folders of one split each: a row's own comes before the others.
    inside : tuple of Path
        Folders that an image must not lie outside of.
    """

    folders: tuple[Path, ...]
    parts: Mapping[str, tuple[Path, ...]]
    inside: tuple[Path, ...]

    @classmethod
    def of(cls, table: Path, root: Path, images: str) -> Finder:
        """For a table in the source `root`: its own folder and those for images in it, or the one named `images`."""
        if images:
            return cls(folders=(table.parent / images,), parts={}, inside=(root, table.parent / images))

        def there(names: Iterable[str]) -> tuple[Path, ...]:
            return tuple(folder for name in names if (folder := table.parent / name).is_dir())

        parts = {split: there(names) for split, names in ROLES.items()}
        return cls(folders=(table.parent, *there(IMAGE_FOLDERS)), parts=parts, inside=(root,))

    def matches(self, name: str, split: str = "") -> list[Path]:
        """Every file that fits a name; one without an image's ending is tried with each of them."""
        own = (*self.folders, *self.parts.get(split, ()))
        others = tuple(folder for folders in self.parts.values() for folder in folders if folder not in own)
        return _files(own, name) or _files(others, name)

    def find(self, name: str, split: str) -> Path:
        """The file with this name; raises :class:`Unclear` for none, for several, and for one outside."""
        files = self.matches(name, split)
        if not files:
            places = (*self.folders, *(folder for folders in self.parts.values() for folder in folders))
            raise Unclear(f"no such image: '{name[:60]}', looked in {', '.join(map(str, places))}")
        if len(files) > 1:
            raise Unclear(f"several images fit one name: '{name[:60]}', {', '.join(map(str, files[:4]))}")
        if not any(files[0].is_relative_to(os.path.abspath(folder)) for folder in self.inside):
            raise Unclear(f"the image lies outside the source folder: '{name[:60]}'")
        return files[0]


def _files(folders: Iterable[Path], name: str) -> list[Path]:
    name = name.replace("\\", "/")
    endings = [""] if Path(name).suffix.lower() in IMAGES else ["", *IMAGES, *(e.upper() for e in IMAGES)]
    pairs = product(folders, endings if name else [])
    tried = dict.fromkeys(os.path.abspath(folder / f"{name}{ending}") for folder, ending in pairs)
    return [Path(path) for path in tried if os.path.isfile(path)]


# --- labels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How the texts of a label column become class positions.

    Attributes
    ----------
    classes : tuple of str
        In label order.
    positions : mapping of str to int
        Class position of each text that is right, -1 for a missing label; any other text is a fault.
    summary : str
        For people: where the names come from.
    """

    classes: tuple[str, ...]
    positions: Mapping[str, int]
    summary: str

    @property
    def read_as(self) -> dict[str, str]:
        """The class of each text that stands for one."""
        return {text: self.classes[k] for text, k in self.positions.items() if k >= 0}

    def missing_summary(self, texts: Iterable[str]) -> str:
        """How many of these rows have no label, for people; empty where all have one."""
        blank = Counter(text for text in texts if self.positions.get(text) == -1)
        if not blank:
            return ""
        rows = "1 row has" if blank.total() == 1 else f"{blank.total()} rows have"
        summary = f"{rows} NO LABEL ({', '.join(sorted(text or 'empty' for text in blank))})"
        summary += ": kept in the store, left out by every protocol"
        words = sorted(text for text in blank if text.isalpha() and not any(map(str.isdecimal, self.classes)))
        if words:
            names = shlex.quote(",".join(sorted((*self.classes, words[0]), key=str.casefold)))
            summary += f" (if {words[0]} is a class: --dataset-set classes={names})"
        return summary


def class_list(text: str, where: str) -> tuple[str, ...]:
    """The class names in a parameter's text, separated by commas; none for an empty text.

    Raises
    ------
    DataError
        A name is empty or occurs twice.
    """
    if not text.strip():
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len({name.casefold() for name in names}) < len(names):
        raise DataError(f"an empty or repeated name among the classes '{text}'", where=where)
    return names


def understand(texts: Iterable[str], given: tuple[str, ...]) -> Labels:
    """Find the classes of a label column.

    Numbers stand for the names in `given`, counted from 0, or from 1 where the labels run from 1 to their number.
    Words are classes by themselves, whether written large or small; but :data:`MISSING` texts are missing labels,
    unless `given` names them.
    """
    by_word = {name.casefold(): k for k, name in enumerate(given)}
    distinct = sorted(set(texts))
    blank = {text: -1 for text in distinct if is_missing(text) and text.casefold() not in by_word}
    distinct = [text for text in distinct if text not in blank]
    numbers = {text: n for text in distinct if (n := whole(text)) is not None and n >= 0}
    if numbers and 2 * len(numbers) >= len(distinct):
        labels = _numbered(numbers, given)
    elif given:
        positions = {text: by_word[text.casefold()] for text in distinct if text.casefold() in by_word}
        labels = Labels(classes=given, positions=positions, summary="labels are names, in the order that was given")
    else:
        labels = _named([text for text in distinct if text not in numbers])
    return replace(labels, positions={**labels.positions, **blank})


def _named(words: Sequence[str]) -> Labels:
    folded = sorted({word.casefold() for word in words})
    classes = tuple(next(word for word in sorted(words, reverse=True) if word.casefold() == name) for name in folded)
    positions = {word: folded.index(word.casefold()) for word in words}
    summary = "labels are names, classes in alphabetical order"
    if len(words) > len(folded):
        summary += f"; {len(words)} spellings with large and small letters are {len(folded)} classes"
    return Labels(classes=classes, positions=positions, summary=summary)


def _numbered(numbers: Mapping[str, int], given: tuple[str, ...]) -> Labels:
    values = sorted(set(numbers.values()))
    if not given:
        positions = {text: values.index(value) for text, value in numbers.items()}
        summary = "labels are NUMBERS whose names nobody tells: they are the class names"
        summary += " (give names in their order with --dataset-set classes=NAME,NAME,...)"
        return Labels(classes=tuple(map(str, values)), positions=positions, summary=summary)
    start = 1 if values[0] >= 1 and values[-1] == len(given) else 0
    positions = {text: value - start for text, value in numbers.items() if 0 <= value - start < len(given)}
    summary = f"labels are numbers from {start}, with the names that were given"
    return Labels(classes=given, positions=positions, summary=summary)
