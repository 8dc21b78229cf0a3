"""The votes of FER+: read from its table or its label lists, and turned into labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._shared.tables import Table, is_missing, meant, read_table, whole, without_numbers

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTES = (*EMOTIONS, "unknown", "nf")
COLUMNS = tuple(f"votes_{name}" for name in VOTES)
HEADER = ("usage", "image name", *VOTES)
VOTERS = 10
NINE_VOTES = "fer0010406.png"  # the one image of the published table whose votes sum to 9


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Rows of votes, in the order of the table.

    Attributes
    ----------
    path : Path
    lines : list of int
        Line of each row in the file.
    names : list of str
        Image names; empty where the table gives none.
    usages : list of str
        Empty texts in a label list, which has no such column.
    counts : int64 [n, 10]
        Columns in the order of :data:`VOTES`; zeros in a faulty row.
    faults : dict of int to str
        What is wrong with a row, by its position.
    unread : tuple of (int, str)
        Line and reason where the file could not be read on.
    """

    path: Path
    lines: list[int]
    names: list[str]
    usages: list[str]
    counts: np.ndarray
    faults: dict[int, str]
    unread: tuple[tuple[int, str], ...]

    def __len__(self) -> int:
        return len(self.lines)


def is_votes_table(path: Path) -> bool:
    """Whether the first line of `path` holds the column names of ``fer2013new.csv``, in any order."""
    return sorted(_header(without_numbers(read_table(path, limit=2000)))) == sorted(HEADER)


def is_label_list(path: Path) -> bool:
    """Whether `path` is a list without header: image name, face box, ten votes."""
    first = without_numbers(read_table(path, limit=2000)).first
    return len(first) == 2 + len(VOTES) and bool(re.fullmatch(r"\(\d+(, *\d+){3}\)", first[1]))


def _header(table: Table) -> list[str]:
    return [name.casefold() for name in table.first]


def read_votes_table(path: Path, usages: Sequence[str]) -> Votes:
    """Read ``fer2013new.csv``; `usages` are the accepted values of its Usage column."""
    table = without_numbers(read_table(path))
    header = _header(table)
    order = [header.index(name) for name in HEADER]
    rows = [(line, [cells[k] for k in order] if len(cells) == len(order) else cells) for line, cells in table.rows[1:]]
    votes = _votes(table, rows)
    for k, usage in enumerate(votes.usages):
        if usage not in usages:
            votes.usages[k] = meant(usage, usages)
        if votes.usages[k] not in usages:
            votes.faults.setdefault(k, f"unknown Usage: '{usage[:20]}', expected {', '.join(usages)}")
    for k in np.flatnonzero(votes.counts[:, -1] < VOTERS).tolist():
        if not votes.names[k]:
            votes.faults.setdefault(k, "no image name although it is not NF for all: only such rows have none")
    return votes


def read_label_list(path: Path, emotions: Sequence[str] = EMOTIONS) -> Votes:
    """Read a ``label.csv``; the face box is left unread, as it covers the whole image.

    `emotions` is the order of its first eight columns of votes, which have no names.
    """
    table = without_numbers(read_table(path))
    order = [0, *(2 + emotions.index(name) for name in EMOTIONS), *range(2 + len(EMOTIONS), 2 + len(VOTES))]
    whole = 2 + len(VOTES)
    rows = [(line, ["", *([cells[k] for k in order] if len(cells) == whole else cells)]) for line, cells in table.rows]
    return _votes(table, rows)


def _votes(table: Table, rows: Sequence[tuple[int, list[str]]]) -> Votes:
    counts = np.zeros((len(rows), len(VOTES)), dtype=np.int64)
    faults = {}
    names, usages = [""] * len(rows), [""] * len(rows)
    for k, (_, cells) in enumerate(rows):
        if len(cells) != len(HEADER):
            faults[k] = f"wrong number of columns: {len(cells)}, expected {len(HEADER)}"
            continue
        usages[k], names[k] = cells[0], "" if is_missing(cells[1]) else cells[1]
        row = _counts(names[k], cells[2:])
        if isinstance(row, str):
            faults[k] = row
        else:
            counts[k] = row
    lines = [line for line, _ in rows]
    return Votes(
        path=table.path, lines=lines, names=names, usages=usages, counts=counts, faults=faults, unread=table.faults
    )


def _counts(name: str, cells: Sequence[str]) -> list[int] | str:
    """The votes of a row, or what is wrong with them."""
    votes = []
    for cell in cells:
        vote = whole(cell)
        if vote is None or not 0 <= vote <= VOTERS:
            return f"votes are no whole number from 0 to {VOTERS}: '{cell[:20]}'"
        votes.append(vote)
    if sum(votes) != VOTERS - (name == NINE_VOTES):
        return f"the votes do not sum to {VOTERS}: {sum(votes)}"
    return votes


def majority(counts: np.ndarray) -> np.ndarray:
    """Label of each row by the rule of the published code: single votes dropped, more than half of the rest agree.

    A row without such a majority, or whose majority says unknown or no face, gets -1. (Barsoum et al. 2016, mode
    "majority".)
    """
    kept = np.where(counts > 1, counts, 0)
    best = kept.argmax(axis=1)
    agreed = (2 * kept.max(axis=1) > kept.sum(axis=1)) & (best < len(EMOTIONS))
    return np.where(agreed, best, -1)


def plurality(counts: np.ndarray) -> np.ndarray:
    """The emotion with the most votes; -1 where it shares the first place, or unknown or no face has it."""
    most = counts.max(axis=1)
    best = counts.argmax(axis=1)
    alone = ((counts == most[:, None]).sum(axis=1) == 1) & (best < len(EMOTIONS))
    return np.where(alone, best, -1)


def overwritten(names: Iterable[str]) -> set[int]:
    """Positions of rows whose name comes again later: an export by name has kept the later row's image only."""
    last: dict[str, int] = {}
    lost = set()
    for k, name in enumerate(names):
        if name in last:
            lost.add(last[name])
        last[name] = k
    return lost
