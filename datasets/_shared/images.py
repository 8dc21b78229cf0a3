"""Image files of any size and mode to rows of a store.

A loader lists its images as :class:`Row` objects and calls :func:`reading`. The headers of all files are read first, so
the shape of the store is known before work starts; pixels are decoded when the store is written, block by block.

Images that are all square and of one size keep their pixels, unless they are larger than the parameter `size`. Others
are fitted into squares of the smaller of `size` and the largest side found. What else becomes of a picture (it is
turned upright, laid on black, brought to 8 bits) is described in :mod:`fer_bench.data.pictures`, counted and
reported.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench import (
    IMAGE_TREATMENTS,
    Chunk,
    DataError,
    Dataset,
    Reading,
    cores,
    decode_image,
    image_header,
)
from fer_bench import ImageFit as Fit
from fer_bench import ImageHeader as Header
from fer_bench import UnreadableImage as Unreadable

BLOCK_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of a source.

    Attributes
    ----------
    file : Path or bytes
        The file, or its content.
    name : str
        What identifies it in the source; rows of all layouts of the same data should have the same order.
    label : int
        Class position; -1 where there is none.
    split : str
    subject : str
    box : tuple of int, optional
        Left, top, right, bottom of the face; the image is cropped to it.
    extra : mapping
        Further columns; every row of a reading has the same ones.
    """

    file: Path | bytes
    name: str
    label: int
    split: str
    subject: str = ""
    box: tuple[int, int, int, int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def header(row: Row) -> Header:
    """Size and mode of an image from its header; raises Unreadable for what can't be used."""
    return image_header(row.file, row.box)


def fit_of(headers: Iterable[Header], params: Mapping[str, Any]) -> Fit:
    """The common shape of images with these headers, after the parameters `size`, `colour` and `fit` of a card."""
    known = list(headers)
    sizes = {(h.width, h.height) for h in known}
    largest = max(max(s) for s in sizes)
    side = min(largest, params["size"]) if params["size"] else largest
    colour = params["colour"] == "rgb" or (params["colour"] == "auto" and any(h.colour for h in known))
    return Fit(3 if colour else 1, side, side, params["fit"], max(h.bits for h in known))


def decode(row: Row, fit: Fit) -> np.ndarray:
    """The pixels of an image, uint8 [C, H, W]; raises Unreadable if it is damaged."""
    return decode_image(row.file, fit, row.box)


def survey_of(headers: Iterable[Header]) -> dict[str, dict[str, int]]:
    """How many files have each size and mode, most frequent first, and to how many something was done."""
    known = list(headers)
    sizes, modes = Counter(f"{h.width}x{h.height}" for h in known), Counter(h.mode for h in known)
    survey = {"sizes": dict(sizes.most_common()), "modes": dict(modes.most_common())}
    treated = Counter(key for h in known for key in h.treated)
    if any(h.peak for h in known):
        survey["bits"] = {str(max(h.bits for h in known)): sum(h.peak > 0 for h in known)}
    return (
        {**survey, "treated": {key: treated[key] for key in IMAGE_TREATMENTS if key in treated}} if treated else survey
    )


def treated_summary(headers: Iterable[Header]) -> str:
    """What was done to the pictures beside fitting them into squares, for people; empty where nothing was."""
    known = list(headers)
    done = survey_of(known).get("treated", {})
    notes = [f"{count} {'image' if count == 1 else 'images'} {IMAGE_TREATMENTS[key]}" for key, count in done.items()]
    largest = max(known, key=lambda h: h.peak, default=None)
    if largest is not None and largest.peak and largest.bits < 16:
        notes[-1] += f" (their values end at {largest.peak}, so they are taken for {largest.bits} bits)"
    return "".join(f"; {text}" for text in notes)


def reading(
    dataset: Dataset, layout: str, summary: str, rows: Sequence[Row], *,
    faults: Iterable[tuple[Path | str, str]] = (), files: Iterable[Path] = (), classes: tuple[str, ...] = (),
) -> Reading:  # fmt: skip
    """A reading of image files; the card must have the parameters `size`, `colour` and `fit`.

    Parameters
    ----------
    rows : sequence of Row
        In store order.
    faults : iterable of (file, reason)
        Faults that the loader has found; reported with the unreadable images when the store is written.
    files : iterable of Path
        Further source files (lists, annotations).
    classes : tuple of str
        As :attr:`fer_bench.Reading.classes`.

    Raises
    ------
    DataError
        There is no readable image at all.
    """
    known = list(faults)
    sound: list[Row] = []
    headers: list[Header] = []
    for row, result in zip(rows, mapped(_header_or_reason, rows), strict=True):
        if isinstance(result, Header):
            sound.append(row)
            headers.append(result)
        else:
            known.append((_where(row), result))
    if not sound:
        why = f"{known[0][0]}: {known[0][1]}" if known else "no image files"
        raise DataError(f"{dataset.card.name}: not one readable image", where=f"{summary}\n         {why}")
    fit = fit_of(headers, dataset.params)
    if len({(h.width, h.height) for h in headers} | {(fit.width, fit.height)}) > 1:
        summary += f"; images of {_span(headers)} are brought to {fit.width}x{fit.height} ({fit.how})"
    summary += treated_summary(headers)
    paths = [r.file for r in sound if isinstance(r.file, Path)]
    largest = max(range(len(sound)), key=lambda k: (max(headers[k].width, headers[k].height), -k))
    return Reading(
        layout=layout,
        summary=summary,
        files=list(dict.fromkeys([*files, *paths])),  # several rows may share a file
        chunks=lambda: _chunks(dataset, sound, fit, known),
        classes=classes,
        shape=(len(sound), fit.channels, fit.height, fit.width),
        largest=_where(sound[largest]),
        survey=survey_of(headers),
    )


def _span(headers: Sequence[Header]) -> str:
    small = min(headers, key=lambda h: (h.width * h.height, h.width))
    large = max(headers, key=lambda h: (h.width * h.height, h.width))
    ends = list(dict.fromkeys(f"{h.width}x{h.height}" for h in (small, large)))
    return " to ".join(ends)


def _where(row: Row) -> str:
    return str(row.file) if isinstance(row.file, Path) else row.name


def _header_or_reason(row: Row) -> Header | str:
    try:
        return header(row)
    except Unreadable as reason:
        return str(reason)


def mapped(function: Callable[[Any], Any], items: Iterable[Any], ahead: int = 512) -> Iterator[Any]:
    """Results in order, by as many threads as there are cores, at most `ahead` before they are asked for.

    Image files are read and decoded outside the interpreter's lock, so threads help. They go on while the caller works
    on what it has.

    Notes
    -----
    It never waits for its threads. Where an error ends the caller's loop, the garbage collector closes this generator:
    in any thread, at any point, also where that thread holds the lock that the end of a thread needs.
    """
    pool = ThreadPoolExecutor(cores())
    try:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _chunks(
    dataset: Dataset, rows: Sequence[Row], fit: Fit, faults: Iterable[tuple[Path | str, str]]
) -> Iterator[Chunk]:
    problems = dataset.problems()
    for file, reason in faults:
        problems.add(file, None, reason)
    step = max(1, min(512, BLOCK_BYTES // (fit.channels * fit.height * fit.width)))

    def decoded(row: Row) -> np.ndarray | str:
        try:
            return decode(row, fit)
        except Unreadable as reason:
            return str(reason)

    pixels = mapped(decoded, rows, ahead=step)
    for start in range(0, len(rows), step):
        pairs = [(row, next(pixels)) for row in rows[start : start + step]]
        for row, result in pairs:
            if isinstance(result, str):
                problems.add(_where(row), None, result)
        kept = [(row, found) for row, found in pairs if not isinstance(found, str)]
        if kept and problems.worth_reading:
            yield _chunk(kept)
    problems.raise_if_any()


def _chunk(kept: Sequence[tuple[Row, np.ndarray]]) -> Chunk:
    rows = [row for row, _ in kept]
    return Chunk(
        images=np.stack([pixels for _, pixels in kept]),
        labels=np.asarray([r.label for r in rows], dtype=np.int64),
        split=[r.split for r in rows],
        source=[r.name for r in rows],
        subject=[r.subject for r in rows],
        extra={name: np.asarray([r.extra[name] for r in rows]) for name in rows[0].extra},
    )
