"""Images and votes of FER+ brought together, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from fer_bench import Chunk, Problems, Reading

from .._fer2013.folders import ROLE_SPLITS
from .._shared.folders import load_blocks
from ..fer2013 import SIDE, Fer2013
from .folders import Export
from .votes import COLUMNS, VOTERS, Votes, majority, plurality


def joined_chunks(votes: Votes, images: Fer2013, reading: Reading, problems: Problems) -> Iterator[Chunk]:
    """FER2013's rows with the votes of the same rows.

    Parameters
    ----------
    images : Fer2013
        A lenient reader, so that its faults are reported together with those of the votes.
    reading : Reading
        What it recognised.
    """
    for line, reason in (*votes.unread, *((votes.lines[k], reason) for k, reason in votes.faults.items())):
        problems.add(votes.path, line, reason)
    done: set[int] = set()
    for chunk in reading.chunks():
        kept = [k for k in range(len(chunk)) if _agrees(votes, chunk, k, done, problems)]
        if kept and problems.worth_reading:
            yield _labelled(
                chunk.images[kept],
                votes.counts[[_row_number(chunk.source[k]) for k in kept]],
                chunk.labels[kept],
                split=[chunk.split[k] for k in kept],
                source=[chunk.source[k] for k in kept],
            )
    for file, line, reason in images.faults.rows:
        problems.add(file, line, reason)
    missing = sorted(set(range(len(votes))) - done)
    if missing and not images.faults.rows:
        message = f"votes without an image: {len(missing)} rows from here on, of {len(votes)}"
        problems.add(votes.path, votes.lines[missing[0]], message)
    problems.raise_if_any()


def _agrees(votes: Votes, chunk: Chunk, k: int, done: set[int], problems: Problems) -> bool:
    """Whether image `k` of a chunk has votes that can be its own; the reason against it is told."""
    row = _row_number(chunk.source[k])
    if not 0 <= row < len(votes):
        problems.add(votes.path, None, f"no votes for an image: row {row} of FER2013, the table has {len(votes)}")
        return False
    again, fault = row in done, row in votes.faults
    done.add(row)
    if again or fault:  # reported already, by FER2013's reader or with the votes
        return False
    if votes.usages[row] != chunk.split[k]:
        message = f"not the row order of FER2013: Usage is {votes.usages[row]} here and {chunk.split[k]} there"
    elif chunk.images[k].min() == chunk.images[k].max() and 2 * votes.counts[row, -1] <= VOTERS:
        message = "not the row order of FER2013: an image of one grey value, but its votes see a face"
    else:
        return True
    problems.add(votes.path, votes.lines[row], message)
    return False


def _row_number(source: str) -> int:
    """Row of FER2013 in what its reader gives as source: ``17``, or ``train/happy/Training_17.png``."""
    match = re.search(r"(\d+)(\.\w+)?$", source)
    return int(match[1]) if match else -1


def exported_chunks(export: Export, problems: Problems) -> Iterator[Chunk]:
    """The images of an export with the votes of their names."""
    for path, line, reason in export.faults:
        problems.add(path, line, reason)
    for files, images in load_blocks(export.files, SIDE, problems):
        if problems.worth_reading:
            yield _labelled(
                images,
                export.counts[[file.number for file in files]],
                np.full(len(files), -1),
                split=[ROLE_SPLITS[file.role] for file in files],
                source=[file.relative for file in files],
            )
    problems.raise_if_any()


def _labelled(
    images: np.ndarray, counts: np.ndarray, original: np.ndarray, split: list[str], source: list[str]
) -> Chunk:
    extra = {"plurality": plurality(counts), "fer2013": original, **dict(zip(COLUMNS, counts.T, strict=True))}
    return Chunk(images=images, labels=majority(counts), split=split, source=source, extra=extra)
