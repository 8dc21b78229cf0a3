"""Rows of Parquet files in two passes: headers and labels first, then pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_bench import Chunk, Problems

from .._shared.images import Fit, Header, Row, Unreadable, decode, header, mapped
from .._shared.tables import Labels, Unclear
from .shards import Shard, stream

UNLABELLED = "-1"  # what the hub writes where a test has no labels


@dataclass(kw_only=True)
class Scan:
    """What the first pass found.

    Attributes
    ----------
    labels : dict of path to list of str
        Of every row as a text, whole numbers without a point; empty where the row has none.
    rows : dict of path to list of int
        Numbers of the rows that are wanted: those with a sound image of the right size.
    headers : list of Header
        Of these rows.
    faults : list of (path, row or None, reason)
    other_size : int
        Images left out for their size.
    """

    labels: dict[Path, list[str]] = field(default_factory=dict)
    rows: dict[Path, list[int]] = field(default_factory=dict)
    headers: list[Header] = field(default_factory=list)
    faults: list[tuple[Path, int | None, str]] = field(default_factory=list)
    other_size: int = 0


def scan_rows(shards: Sequence[Shard], only_size: int) -> Scan:
    """Read every label and the header of every image; `only_size` is the wanted side, 0 for any."""
    scan = Scan()
    for shard in shards:
        rows, texts = scan.rows.setdefault(shard.path, []), scan.labels.setdefault(shard.path, [])
        try:
            for start, images, labels in stream(shard):
                texts += map(_text, labels)
                for k, image in enumerate(images, start):
                    try:
                        head = header(_row(image))
                    except Unreadable as reason:
                        scan.faults.append((shard.path, k, str(reason)))
                        continue
                    if only_size and (head.width, head.height) != (only_size, only_size):
                        scan.other_size += 1
                    else:
                        rows.append(k)
                        scan.headers.append(head)
        except Unclear as reason:
            scan.faults.append((shard.path, None, str(reason)))
    return scan


def pixel_chunks(
    shards: Sequence[Shard], scan: Scan, labels: Labels, fit: Fit, root: Path, problems: Problems
) -> Iterator[Chunk]:
    """The wanted rows with their pixels, some hundred at a time; what is wrong goes to `problems`."""
    for path, number, reason in scan.faults:
        problems.add(path, number, reason)
    for shard in shards:
        texts, wanted = scan.labels[shard.path], set()
        for k in scan.rows[shard.path]:
            if texts[k] in labels.positions:
                wanted.add(k)
            else:
                known = ", ".join(labels.classes)[:200]
                problems.add(shard.path, k, f"unknown label: '{texts[k][:20]}', the classes are {known}")
        name = Path(os.path.relpath(shard.path, root)).as_posix()
        try:
            for rows, pixels in _decoded(shard, wanted, fit, problems) if problems.worth_reading else ():
                if rows and problems.worth_reading:
                    yield Chunk(
                        images=np.stack(pixels),
                        labels=np.asarray([labels.positions[texts[k]] for k in rows], dtype=np.int64),
                        split=[shard.split] * len(rows),
                        source=[f"{name}:{k}" for k in rows],
                    )
        except Unclear as reason:
            if (shard.path, None, str(reason)) not in scan.faults:
                problems.add(shard.path, None, str(reason))
    problems.raise_if_any()


def _decoded(
    shard: Shard, wanted: set[int], fit: Fit, problems: Problems
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Numbers and pixels of the wanted rows of a file, block by block; images are decoded in threads."""

    def attempt(image: bytes) -> np.ndarray | str:
        try:
            return decode(_row(image), fit)
        except Unreadable as reason:
            return str(reason)

    for start, images, _ in stream(shard):
        rows = [k for k in range(start, start + len(images)) if k in wanted]
        sound = {}
        for k, pixels in zip(rows, mapped(attempt, [images[k - start] for k in rows]), strict=True):
            if isinstance(pixels, str):
                problems.add(shard.path, k, pixels)
            else:
                sound[k] = pixels
        yield list(sound), list(sound.values())


def _text(label: str | float | None) -> str:
    """A label as a text; pandas keeps whole numbers as fractions where some are missing, and writes these as NaN."""
    if label is None or label != label:
        return ""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _row(image: bytes | None) -> Row:
    """An image as the shared reader takes it; where it belongs is kept here."""
    if image is None:
        raise Unreadable("no image: the row holds no bytes")
    return Row(file=image, name="", label=-1, split="")
