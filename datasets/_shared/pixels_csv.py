"""Reader of tables that hold one grey image a row, its pixels as blank-separated numbers in one column.

It streams: a few hundred rows are in memory at a time. Rows without fault are parsed with whole-array operations;
only a block that holds a fault is looked at row by row, to say what is wrong with which line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from fer_bench import Problems

from .tables import NAMELESS, meant, whole
from .text import Script, head_of, open_lines, printable, script_of

KNOWN = ("emotion", "pixels", "usage")
DELIMITERS = (",", ";", "\t", "|")
BLOCK = 512  # rows: 5 MB of text and about 50 MB of index arrays at 48x48; larger blocks were no faster


@dataclass(frozen=True)
class PixelCsv:
    """A table and the names in its first line, stripped of blanks and quotes, in lower case."""

    path: Path
    header: tuple[str, ...]
    delimiter: str = ","
    script: Script = field(default=Script("utf-8"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names in the header that this reader knows."""
        return tuple(name for name in self.header if name in KNOWN)

    @property
    def others(self) -> tuple[str, ...]:
        """The named columns that are left unread."""
        return tuple(name for name in self.header if name not in KNOWN and not NAMELESS.fullmatch(name))

    @property
    def kind(self) -> str | None:
        """ "usage" (label, pixels and split), "labelled", "unlabelled" (pixels only), or None for another file."""
        kinds = {"emotion pixels usage": "usage", "emotion pixels": "labelled", "pixels": "unlabelled"}
        kind = kinds.get(" ".join(sorted(self.columns)))
        return None if kind == "unlabelled" and self.others else kind

    @property
    def summary(self) -> str:
        """Its columns, for people, and what is unusual about it."""
        written = [self.script.summary, {",": "", "\t": "tabs"}.get(self.delimiter, f"'{self.delimiter}'")]
        columns = f"columns {', '.join(self.columns)}"
        columns += f" ({', '.join(self.others)} left unread)" if self.others else ""
        return f"{columns}; written with {', '.join(filter(None, written))}" if any(written) else columns

    def count(self) -> int:
        """Number of rows below the header, blank lines left out."""
        with open_lines(self.path, self.script) as lines:
            next(lines, None)
            return sum(1 for line in lines if line.strip())

    def labels(self) -> Iterator[int | None]:
        """The label of each row; None where it is no whole number."""
        place, delimiter = self.header.index("emotion"), self.delimiter.encode()
        with open_lines(self.path, self.script) as lines:
            next(lines, None)
            rows = (line.split(delimiter, place + 1) for line in lines)
            yield from (whole(_unquoted(row[place]).decode(errors="replace")) for row in rows if len(row) > place)


@dataclass(frozen=True)
class Rows:
    """Parsed rows: their numbers (from 0, below the header), pixels uint8 [k, size], labels [k], usages."""

    numbers: list[int]
    pixels: np.ndarray
    labels: np.ndarray
    usages: list[str]


def sniff(path: Path) -> PixelCsv:
    """Read the first line of `path`; whatever it holds, no error is raised."""
    head = head_of(path)
    script = script_of(head)
    line = head.decode(script.encoding or "latin-1", errors="replace").partition(script.ends)[0][:2000]
    if not script.encoding or not line.strip():
        return PixelCsv(path, (), script=script)
    cut = {mark: tuple(name.strip(" \"'\r\n\t").lower() for name in line.split(mark)) for mark in DELIMITERS}
    delimiter = max(cut, key=lambda mark: len(set(KNOWN).intersection(cut[mark])))
    return PixelCsv(path, cut[delimiter], delimiter, script)


def describe(csv: PixelCsv) -> str:
    """What `csv` is, for an error message."""
    if not csv.header:
        return f"{csv.path.name} ({csv.script.kind or 'empty'})"
    names = printable(", ".join(csv.header), 61)
    return f"{csv.path.name} (first line: {names[:60]}{'...' if len(names) > 60 else ''})"


def read_rows(
    csv: PixelCsv, size: int, classes: Sequence[str], usages: Sequence[str], problems: Problems
) -> Iterator[Rows]:
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
        with open_lines(self.csv.path, self.csv.script) as lines:
            next(lines, None)
            line, row = 2, 0  # line as an editor shows it; row counts images from 0
            while block := list(islice(lines, BLOCK)):
                picked = self._fields(block, line, row)
                line, row = line + len(block), row + sum(1 for text in block if text.strip())
                if picked:
                    yield self._rows(picked)

    def _fields(self, block: list[bytes], line: int, row: int) -> list[tuple[int, int, bytes, int, str]]:
        """(line, row, pixel text, label, usage) of each row whose columns and small fields are in order."""
        picked = []
        header, delimiter = self.csv.header, self.csv.delimiter.encode()
        pixels, label_at, usage_at = (header.index(n) if n in header else -1 for n in ("pixels", "emotion", "usage"))
        for number, text in enumerate(block, line):
            if not text.strip():
                continue
            cells = text.rstrip(b"\r\n").split(delimiter)
            if len(cells) != len(header):
                expected = f"{len(header)} ({', '.join(name or 'row number' for name in header)})"
                self.problems.add(self.csv.path, number, f"wrong number of columns: {len(cells)}, expected {expected}")
            else:
                label = -1 if label_at < 0 else self._label(cells[label_at], number)
                usage = "" if usage_at < 0 else self._usage(cells[usage_at], number)
                if label is not None and usage is not None:
                    picked.append((number, row, _unquoted(cells[pixels]), label, usage))
            row += 1
        return picked

    @cached_property
    def _labels(self) -> dict[bytes, int]:
        """The cells that nearly all rows hold, so that they need no closer look."""
        return {str(k).encode(): k for k in range(len(self.classes))}

    @cached_property
    def _usages(self) -> dict[bytes, str]:
        return {usage.encode(): usage for usage in self.usages}

    def _label(self, cell: bytes, line: int) -> int | None:
        if cell in self._labels:
            return self._labels[cell]
        text = _unquoted(cell).decode("utf-8", errors="replace")
        label = whole(text)
        if label is None:
            self.problems.add(self.csv.path, line, f"the label is no integer: '{printable(text, 20)}'")
        elif not 0 <= label < len(self.classes):
            names = f"0 {self.classes[0]} .. {len(self.classes) - 1} {self.classes[-1]}"
            self.problems.add(self.csv.path, line, f"the label is out of range: {text[:20]}, expected {names}")
        else:
            return label
        return None

    def _usage(self, cell: bytes, line: int) -> str | None:
        if cell in self._usages:
            return self._usages[cell]
        text = _unquoted(cell).decode("utf-8", errors="replace")
        usage = meant(text, self.usages)
        if usage not in self.usages:
            message = f"unknown Usage: '{printable(text, 20)}', expected {', '.join(self.usages)}"
            self.problems.add(self.csv.path, line, message)
            return None
        return usage

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
            token_text = printable(token.decode("utf-8", errors="replace"), 20)
            if not re.fullmatch(rb"[+-]?\d+", token):
                return f"a pixel is no integer: '{token_text}'"
            if not 0 <= int(token[:20]) <= 255:
                return f"a pixel is out of range: {token_text}, expected 0 .. 255"
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
