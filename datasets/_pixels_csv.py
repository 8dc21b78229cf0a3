"""Reader of CSV files that hold one grey image a row, its pixels as blank-separated numbers in one column.

It streams: a few hundred rows are in memory at a time. Rows without fault are parsed with whole-array operations;
only a block that holds a fault is looked at row by row, to say what is wrong with which line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from fer_bench import Problems

BLOCK = 512  # rows: 5 MB of text and about 50 MB of index arrays at 48x48; larger blocks were no faster


@dataclass(frozen=True)
class PixelCsv:
    """A CSV file and the names in its first line, stripped of blanks and quotes, in lower case."""

    path: Path
    header: tuple[str, ...]

    @property
    def kind(self) -> str | None:
        """ "usage" (label, pixels and split), "labelled", "unlabelled" (pixels only), or None for another file."""
        kinds = {"emotion pixels usage": "usage", "emotion pixels": "labelled", "pixels": "unlabelled"}
        return kinds.get(" ".join(sorted(self.header)))

    def count(self) -> int:
        """Number of rows below the header, blank lines left out."""
        with open(self.path, "rb") as file:
            file.readline()
            return sum(1 for line in file if line.strip())


@dataclass(frozen=True)
class Rows:
    """Parsed rows: their numbers (from 0, below the header), pixels uint8 [k, size], labels [k], usages."""

    numbers: list[int]
    pixels: np.ndarray
    labels: np.ndarray
    usages: list[str]


def sniff(path: Path) -> PixelCsv:
    """Read the first line of `path`; whatever it holds, no error is raised."""
    with open(path, "rb") as file:
        text = file.readline(2000).decode("utf-8-sig", errors="replace")
    return PixelCsv(path, tuple(name.strip(' "\r\n\t').lower() for name in text.split(",")) if text.strip() else ())


def describe(csv: PixelCsv) -> str:
    """What `csv` is, for an error message."""
    if not csv.header:
        return f"{csv.path.name} (empty)"
    names = ", ".join(csv.header)
    return f"{csv.path.name} (first line: {names[:60]}{'...' if len(names) > 60 else ''})"


def read_rows(csv: PixelCsv, size: int, classes: Sequence[str], usages: Sequence[str], problems: Problems):
    """Iterate over :class:`Rows` of `csv`; rows with a fault go to `problems` with their line number.

    Parameters
    ----------
    size : int
        Expected pixels a row.
    classes, usages : sequence of str
        Labels 0 .. len(classes)-1 and these values of the Usage column are accepted.
    """
    parser = _Parser(csv, size, tuple(classes), tuple(usages), problems)
    empty = True
    for rows in parser.run():
        empty = False
        yield rows
    if empty and not len(problems):
        problems.add(csv.path, None, "no rows: the file ends after its header")


@dataclass(frozen=True)
class _Parser:
    csv: PixelCsv
    size: int
    classes: tuple[str, ...]
    usages: tuple[str, ...]
    problems: Problems

    def run(self) -> Iterator[Rows]:
        with open(self.csv.path, "rb") as file:
            file.readline()
            line, row = 2, 0  # line as an editor shows it; row counts images from 0
            while block := list(islice(file, BLOCK)):
                picked = self._fields(block, line, row)
                line, row = line + len(block), row + sum(1 for text in block if text.strip())
                if picked:
                    yield self._rows(picked)

    def _fields(self, block: list[bytes], line: int, row: int) -> list[tuple[int, int, bytes, int, str]]:
        """(line, row, pixel text, label, usage) of each row whose columns and small fields are in order."""
        picked = []
        for number, text in enumerate(block, line):
            if not text.strip():
                continue
            parts = text.rstrip(b"\r\n").split(b",")
            if len(parts) != len(self.csv.header):
                expected = f"{len(self.csv.header)} ({', '.join(self.csv.header)})"
                self.problems.add(self.csv.path, number, f"wrong number of columns: {len(parts)}, expected {expected}")
            else:
                cells = {name: _unquoted(part) for name, part in zip(self.csv.header, parts, strict=True)}
                label, usage = self._label(cells, number), self._usage(cells, number)
                if label is not None and usage is not None:
                    picked.append((number, row, cells["pixels"], label, usage))
            row += 1
        return picked

    def _label(self, cells: dict[str, bytes], line: int) -> int | None:
        if "emotion" not in cells:
            return -1
        text = cells["emotion"].decode("utf-8", errors="replace")
        if not re.fullmatch(r"[+-]?\d+", text):
            self.problems.add(self.csv.path, line, f"the label is no integer: '{text[:20]}'")
        elif not 0 <= int(text) < len(self.classes):
            names = f"0 {self.classes[0]} .. {len(self.classes) - 1} {self.classes[-1]}"
            self.problems.add(self.csv.path, line, f"the label is out of range: {text[:20]}, expected {names}")
        else:
            return int(text)
        return None

    def _usage(self, cells: dict[str, bytes], line: int) -> str | None:
        text = cells.get("usage", b"").decode("utf-8", errors="replace")
        if "usage" in cells and text not in self.usages:
            self.problems.add(self.csv.path, line, f"unknown Usage: '{text[:20]}', expected {', '.join(self.usages)}")
            return None
        return text

    def _rows(self, picked: list[tuple[int, int, bytes, int, str]]) -> Rows:
        pixels = parse_pixels([p[2] for p in picked], self.size)
        if pixels is None:
            picked, pixels = self._slowly(picked)
        labels = np.asarray([p[3] for p in picked], dtype=np.int64)
        return Rows([p[1] for p in picked], pixels, labels, [p[4] for p in picked])

    def _slowly(self, picked: list) -> tuple[list, np.ndarray]:
        good, arrays = [], []
        for entry in picked:
            one = parse_pixels([entry[2]], self.size)
            fault = None if one is not None else self._fault(entry[2])
            if fault:
                self.problems.add(self.csv.path, entry[0], fault)
            else:
                good.append(entry)
                arrays.append(one[0] if one is not None else np.asarray(entry[2].split(), dtype=np.int64))
        return good, np.asarray(arrays, dtype=np.uint8).reshape(len(good), self.size)

    def _fault(self, text: bytes) -> str | None:
        if b'"' in text:
            return "a quote is not closed: the row is cut off or holds a stray quote"
        tokens = text.split()
        for token in tokens:
            shown = token[:20].decode("utf-8", errors="replace")
            if not re.fullmatch(rb"[+-]?\d+", token):
                return f"a pixel is no integer: '{shown}'"
            if not 0 <= int(token[:20]) <= 255:
                return f"a pixel is out of range: {shown}, expected 0 .. 255"
        if len(tokens) != self.size:
            return f"wrong number of pixels: {len(tokens)}, expected {self.size}"
        return None


def _unquoted(cell: bytes) -> bytes:
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[:1] == cell[-1:] == b'"' else cell


def parse_pixels(texts: list[bytes], size: int) -> np.ndarray | None:
    """Parse rows of exactly `size` integers 0..255 separated by single blanks; None when any row is otherwise.

    Whole-array parsing: each number is read back from the blank that ends it, so 83 million pixels take some seconds
    where a conversion number by number takes minutes.
    """
    if any(text.count(b" ") != size - 1 for text in texts):
        return None
    buffer = np.frombuffer(b"  " + b" ".join(texts) + b" ", dtype=np.uint8)
    blank = buffer == ord(" ")
    digits = buffer - np.uint8(ord("0"))  # anything but a digit wraps to 10 or more
    if not (blank | (digits < 10)).all():
        return None
    ends = np.flatnonzero(blank)[1:]
    lengths = np.diff(ends) - 1
    ends = ends[1:]
    if len(ends) != len(texts) * size or lengths.min() < 1 or lengths.max() > 3:
        return None
    value = digits[ends - 1].astype(np.uint16)
    value += np.where(lengths > 1, digits[ends - 2], 0) * np.uint16(10)
    value += np.where(lengths > 2, digits[ends - 3], 0) * np.uint16(100)
    return value.astype(np.uint8).reshape(len(texts), size) if value.max() <= 255 else None
