"""A contact sheet of a store: sample images of every class and split."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_bench.base.files import write_bytes
from fer_bench.data.store import Store
from fer_bench.errors import DataError
from fer_bench.rng import numpy_generator

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MARGIN, LABEL_WIDTH, LINE = 6, 110, 15
TALL = 96  # height of an image in pixels; small ones are enlarged by a whole factor, without smoothing
WIDEST = 2400  # width of the sheet in pixels; longer rows wrap


@dataclass(frozen=True)
class _Row:
    """The images of one class: an optional heading above, name and count on the left, store rows."""

    heading: str
    name: str
    count: int
    picked: np.ndarray


def contact_sheet(
    store: Store, out: str | Path, per_class: int = 8, split: str | None = None, seed: int = 0
) -> list[int]:
    """Write a PNG with one row per class, split by split: name, count and `per_class` randomly chosen images.

    The same store and arguments give the same bytes.

    Parameters
    ----------
    split : str, optional
        Use only this split.

    Returns
    -------
    list of int
        The store rows in the picture, split by split and class by class.

    Raises
    ------
    DataError
        The store has no such split.
    """
    table = store.columns("label", "split")
    known = [str(s) for s in dict.fromkeys(table["split"].tolist())]
    if split is not None and split not in known:
        raise DataError(f"unknown split '{split}'", where=str(store.path), hint=f"splits: {', '.join(known)}")
    parts = [split] if split else known
    rows: list[_Row] = []
    for part in parts:
        for label, name in enumerate(store.classes):
            members = np.flatnonzero((table["label"] == label) & (table["split"] == part))
            generator = numpy_generator(seed, "contact sheet", part, name)
            picked = np.sort(generator.permutation(members)[:per_class])
            heading = part if len(parts) > 1 and label == 0 else ""
            rows.append(_Row(heading, name, len(members), picked))
    _draw(store, rows, per_class, Path(out))
    return [int(row) for line in rows for row in line.picked]


def tile_size(height: int, width: int, tall: int = TALL) -> tuple[int, int]:
    """Height and width at which an image is drawn: enlarged by a whole factor, or shrunk to `tall` pixels."""
    if height <= tall:
        factor = max(1, round(tall / height))
        return height * factor, width * factor
    return tall, max(1, round(width * tall / height))


def tile(pixels: np.ndarray, tall: int = TALL) -> Picture:
    """The picture of uint8 [C, H, W] at its tile size; the first three of three or more channels are colours."""
    from PIL import Image

    flat = pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))
    _, high, wide = pixels.shape
    height, width = tile_size(high, wide, tall)
    method = Image.Resampling.NEAREST if height >= high else Image.Resampling.BOX
    return Image.fromarray(flat).resize((width, height), method)


def _draw(store: Store, rows: Sequence[_Row], per_class: int, out: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    _, high, wide = store.shape
    height, width = tile_size(high, wide)
    step_x, step_y = width + MARGIN, height + MARGIN
    columns = min(max(1, per_class), max(1, (WIDEST - LABEL_WIDTH - MARGIN) // step_x))
    lines = [max(1, -(-len(row.picked) // columns)) for row in rows]
    headings = [2 * LINE if row.heading else 0 for row in rows]
    size = (LABEL_WIDTH + MARGIN + columns * step_x, MARGIN + sum(lines) * step_y + sum(headings))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    top = MARGIN
    for row, lines_of_row, above in zip(rows, lines, headings, strict=True):
        if row.heading:
            pen.text((MARGIN, top + LINE // 2), row.heading, fill="black", font=ImageFont.load_default(14))
        top += above
        middle = top + height // 2
        pen.text((MARGIN, middle - LINE), row.name, fill="black", font=font)
        pen.text((MARGIN, middle), f"{row.count:,}", fill="dimgray", font=font)
        for k, pixels in enumerate(store.images(row.picked)):
            line, column = divmod(k, columns)
            sheet.paste(tile(pixels), (LABEL_WIDTH + column * step_x, top + line * step_y))
        top += lines_of_row * step_y
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())
