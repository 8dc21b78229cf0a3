"""Rows of text in aligned columns."""

from __future__ import annotations

from collections.abc import Iterable

import click

from fer_bench.printable import printable


def table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows with aligned columns."""
    rows = [tuple(map(str, r)) for r in rows]
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))] if rows else []
    for row in rows:
        click.echo(printable("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()))
