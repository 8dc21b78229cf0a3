"""A picture of a store: some images of every class, so that a person can look at what the numbers are about."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from fer_bench.atomic import write_bytes
from fer_bench.errors import DataError
from fer_bench.rng import numpy_generator
from fer_bench.store import Store

MARGIN, LABEL_WIDTH, LINE = 6, 110, 15
TALL = 96  # pixels an image should have on the sheet; small ones are enlarged by a whole factor, without smoothing


def contact_sheet(
    store: Store, out: str | Path, per_class: int = 8, split: str | None = None, seed: int = 0
) -> list[int]:
    """Write a PNG with one row a class: name and count at the left, then `per_class` images drawn at random.

    The same store and arguments give the same bytes.

    Parameters
    ----------
    split : str, optional
        Draw from this split only.

    Returns
    -------
    list of int
        The store rows shown, class by class.

    Raises
    ------
    DataError
        The store has no such split.
    """
    table = store.columns("label", "split")
    known = list(dict.fromkeys(table["split"].tolist()))
    if split is not None and split not in known:
        raise DataError(f"no split '{split}'", where=str(store.path), hint=f"splits: {', '.join(known)}")
    picked, counts = [], []
    for label, name in enumerate(store.classes):
        mask = (table["label"] == label) & ((table["split"] == split) if split else True)
        rows = np.flatnonzero(mask)
        generator = numpy_generator(seed, "contact sheet", split or "all", name)
        picked.append(np.sort(generator.permutation(rows)[:per_class]))
        counts.append(len(rows))
    _draw(store, picked, counts, per_class, Path(out))
    return [int(row) for rows in picked for row in rows]


def _draw(store: Store, picked: list[np.ndarray], counts: list[int], per_class: int, out: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    _, height, width = store.shape
    factor = max(1, round(TALL / height))
    step_x, step_y = width * factor + MARGIN, height * factor + MARGIN
    size = (LABEL_WIDTH + MARGIN + max(1, per_class) * step_x, MARGIN + len(picked) * step_y)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for k, (name, rows, count) in enumerate(zip(store.classes, picked, counts, strict=True)):
        top = MARGIN + k * step_y
        middle = top + (step_y - MARGIN) // 2
        pen.text((MARGIN, middle - LINE), name, fill="black", font=font)
        pen.text((MARGIN, middle), f"{count:,}", fill="dimgray", font=font)
        for column, pixels in enumerate(store.images(rows)):
            tile = _as_image(pixels).resize((width * factor, height * factor), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL_WIDTH + column * step_x, top))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())


def _as_image(pixels: np.ndarray):
    """The PIL picture of uint8 [C, H, W]; one channel is grey, of three or more the first three are colours."""
    from PIL import Image

    if pixels.shape[0] < 3:
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))
