"""Search for a known layout: in the source itself, then at most two folders below it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from fer_bench import DataError, Dataset, Reading

from .folders import entries, subfolders
from .text import packed_in, unpacked

DEPTH = 2
SHOWN = 12  # things that were found, in the message that nothing fits

Fits = Callable[[Path, list[str]], list[Reading]]


def find_layout(dataset: Dataset, source: Path | None, fits: Fits) -> Reading:
    """The one layout that `source`, or a folder at most two levels below it, is.

    The levels are searched from the outside in, and the first at which something fits decides.

    Parameters
    ----------
    fits : callable
        ``fits(where, seen)`` returns every layout that this very file or folder is, and may note in `seen` what it
        found there; where it notes nothing, the folder's content is noted.

    Raises
    ------
    DataError
        The source does not exist, nothing fits (the error lists what was looked for and what is there), or several do.
    """
    name = dataset.card.name
    if source is None or not Path(source).exists():
        again = f"fer-bench data prepare {name} --from PATH"
        raise DataError("the source does not exist", where=str(source), hint=dataset.card.get or None, next=again)
    level = [Path(source)]
    seen: list[str] = []
    searched: list[Path] = []
    for _ in range(DEPTH + 1):
        searched += level
        readings: list[Reading] = []
        for where in level:
            before = len(seen)
            readings += fits(where, seen)
            if len(seen) == before:
                seen.append(contents(where))
        if len(readings) > 1:
            listed = "\n         ".join(f"{r.layout}: {r.summary}" for r in readings)
            hint = "name the one you mean: --from FILE or FOLDER"
            raise DataError(f"{len(readings)} layouts fit, and they may differ", where=listed, hint=hint)
        if readings:
            return readings[0]
        level = [inner for where in level if where.is_dir() for inner in subfolders(where)]
    looked = "\n         ".join(f"{layout}: {form}" for layout, form in dataset.card.layouts.items())
    more = f"; and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
    hint = f"looked for:\n         {looked}\n  found: {'; '.join(seen[:SHOWN])}{more}"
    packed = [path for where in searched for path in packed_in(where)]
    if packed:
        raise _packed(name, Path(source), packed, hint)
    raise DataError(f"no known layout of {name}", where=str(source), hint=hint)


def _packed(name: str, source: Path, packed: Sequence[Path], hint: str) -> DataError:
    """The error for a source that holds archives, or a spreadsheet's workbook, in which the data may be."""
    archives = [archive for path in packed if (archive := unpacked(path))]
    names = ", ".join(path.name for path in packed[:SHOWN])
    if not archives:
        message = f"no known layout of {name}: {names} is a workbook of a spreadsheet; save its table as CSV"
        return DataError(message, where=str(source), hint=hint)
    place = archives[0][1] if source.is_file() else source
    again = f"fer-bench data prepare {name} --from {shlex.quote(str(place))}"
    command = " && ".join([*(command for command, _ in archives[:SHOWN]), again])
    return DataError(f"no known layout of {name}: unpack {names} first", where=str(source), hint=hint, next=command)


def contents(where: Path, most: int = 3) -> str:
    """What a file or folder is, for an error message: its name, and the first few things in it."""
    if where.is_file():
        return f"{where.name} (a file of {where.stat().st_size} bytes)"
    inside = entries(where)
    if not inside:
        return f"{where.name}/ (empty)"
    names = ", ".join(f"{p.name}/" if p.is_dir() else p.name for p in inside[:most])
    return f"{where.name}/ ({len(inside)} entries: {names}{', ...' if len(inside) > most else ''})"
