"""Sizes in bytes, as people read them."""

from __future__ import annotations


def human_size(size: float) -> str:
    """Bytes in the unit that fits: 83 MB, 1.4 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
