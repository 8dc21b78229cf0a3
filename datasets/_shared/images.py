"""Image files of any size and mode to rows of a store.

A loader lists its images as :class:`Row` objects and calls :func:`reading`. The headers of all files are read first, so
the shape of the store is known before work starts; pixels are decoded when the store is written, block by block.

Images that are all square and of one size keep their pixels, unless they are larger than the parameter `size`. Others
are fitted into squares of the smaller of `size` and the largest side found. What else becomes of a picture (it is
turned upright, laid on black, brought to 8 bits) is described in :mod:`.pictures`, counted and reported.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_bench import Chunk, DataError, Dataset, Reading

from .pictures import (
    Source,
    Unreadable,
    check_mode,
    depth_of,
    has_alpha,
    has_colour,
    has_frames,
    is_deep,
    opened,
    orientation,
    peak,
    plain,
)

if TYPE_CHECKING:
    from PIL import Image

BLOCK_BYTES = 2**26
TREATED = {  # what is done to a picture, for people
    "turned": "turned upright (EXIF orientation)",
    "as stored": "not turned upright in spite of EXIF, because face boxes count stored pixels",
    "alpha": "with an alpha channel laid on black",
    "frames": "with several frames, of which the first is read",
    "16-bit": "of 16 bits a pixel brought to 8",
}


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

    file: Source
    name: str
    label: int
    split: str
    subject: str = ""
    box: tuple[int, int, int, int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What an image file is, told by its header.

    Attributes
    ----------
    width, height : int
        Of the upright picture, or of its box.
    mode : str
    colour : bool
    treated : tuple of str
        Keys of :data:`TREATED`.
    peak : int
        The largest value of a 16-bit image; 0 for others.
    """

    width: int
    height: int
    mode: str
    colour: bool
    treated: tuple[str, ...] = ()
    peak: int = 0


@dataclass(frozen=True)
class Fit:
    """Shape that every image gets: 1 or 3 channels, height and width, and how another size is fitted into it."""

    channels: int
    height: int
    width: int
    how: str  # "stretch", "pad" or "crop"
    bits: int = 16  # that the values of 16-bit images fill


def header(row: Row) -> Header:
    """Size and mode of an image from its header alone (of a 16-bit one from its pixels); the size is that of its box.

    Raises
    ------
    Unreadable
        It is no image, of a mode that is neither 8 nor 16 bits a channel, or its box lies outside.
    """
    with opened(row.file) as image:
        check_mode(image)
        width, height = image.size
        mode, colour = image.mode, has_colour(image)
        way = orientation(image)
        if way > 4 and image.format != "TIFF" and row.box is None:  # Pillow has exchanged the sides of a TIFF already
            width, height = height, width
        largest = peak(image) if is_deep(image) else 0
        done = {
            "turned": way > 1 and row.box is None,
            "as stored": way > 1 and row.box is not None,
            "alpha": has_alpha(image),
            "16-bit": is_deep(image),
            "frames": has_frames(image),
        }
    if row.box is not None:
        left, top, right, bottom = row.box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise Unreadable(f"the face box {row.box} lies outside the image of {width}x{height}")
        width, height = right - left, bottom - top
    return Header(width, height, mode, colour, tuple(key for key in TREATED if done[key]), largest)


def fit_of(headers: Iterable[Header], params: Mapping[str, Any]) -> Fit:
    """The common shape of images with these headers, after the parameters `size`, `colour` and `fit` of a card."""
    known = list(headers)
    sizes = {(h.width, h.height) for h in known}
    largest = max(max(s) for s in sizes)
    side = min(largest, params["size"]) if params["size"] else largest
    colour = params["colour"] == "rgb" or (params["colour"] == "auto" and any(h.colour for h in known))
    return Fit(3 if colour else 1, side, side, params["fit"], depth_of(max(h.peak for h in known)))


def decode(row: Row, fit: Fit) -> np.ndarray:
    """The pixels of an image, uint8 [C, H, W].

    Raises
    ------
    Unreadable
        The file is damaged.
    """
    from PIL import Image

    with opened(row.file) as image:
        image = plain(image, bits=fit.bits, turn=row.box is None)
        image = image.convert("RGB" if fit.channels == 3 else "L")
        if row.box is not None:
            image = image.crop(row.box)
        if image.size != (fit.width, fit.height):
            image = _FITS[fit.how](image, (fit.width, fit.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _stretch(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    return image.resize(size, method)


def _pad(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    from PIL import Image as images

    scale = min(size[0] / image.width, size[1] / image.height)
    # at least one pixel: ImageOps.pad fails where a thin strip would get none
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = images.new(image.mode, size)
    canvas.paste(image.resize((width, height), method), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def _crop(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.fit(image, size, method)


_FITS = {"stretch": _stretch, "pad": _pad, "crop": _crop}


def survey_of(headers: Iterable[Header]) -> dict[str, dict[str, int]]:
    """How many files have each size and mode, most frequent first, and to how many something was done."""
    known = list(headers)
    sizes, modes = Counter(f"{h.width}x{h.height}" for h in known), Counter(h.mode for h in known)
    survey = {"sizes": dict(sizes.most_common()), "modes": dict(modes.most_common())}
    treated = Counter(key for h in known for key in h.treated)
    return {**survey, "treated": {key: treated[key] for key in TREATED if key in treated}} if treated else survey


def treated_summary(headers: Iterable[Header]) -> str:
    """What was done to the pictures beside fitting them into squares, for people; empty where nothing was."""
    known = list(headers)
    done = survey_of(known).get("treated", {})
    notes = [f"{count} {'image' if count == 1 else 'images'} {TREATED[key]}" for key, count in done.items()]
    largest = max((h.peak for h in known), default=0)
    if largest and depth_of(largest) < 16:
        notes[-1] += f" (their values end at {largest}, so they are taken for {depth_of(largest)} bits)"
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


def mapped(function: Any, items: Sequence[Any]) -> Iterator[Any]:
    """Results in order; image files are read and decoded outside the interpreter's lock, so threads help."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


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

    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        pairs = list(zip(block, mapped(decoded, block), strict=True))
        for row, result in pairs:
            if isinstance(result, str):
                problems.add(_where(row), None, result)
        kept = [(row, pixels) for row, pixels in pairs if not isinstance(pixels, str)]
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
