"""Quantities as people read them: sizes in bytes, and numbers of things."""

from __future__ import annotations


def human_size(size: float) -> str:
    """Bytes in the unit that fits: 83 MB, 1.4 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 image``, ``1,234 images``; `many` is the plural if it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
