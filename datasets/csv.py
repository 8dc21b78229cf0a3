"""Any set of images with a table of their labels: CSV, TSV or semicolons, with or without a header."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Param, Reading

from ._shared.folders import IMAGES, entries
from ._shared.images import Row, reading
from ._shared.parameters import ANY_IMAGE_PARAMS
from ._shared.protocols import GIVEN, HOLDOUT10, RANDOM60_20_20, SUBJECT10
from ._shared.search import find_layout
from ._shared.tables import (
    COLUMNS,
    Finder,
    Labels,
    Table,
    Unclear,
    class_list,
    find_column,
    is_missing,
    plain,
    read_table,
    row_numbers,
    split_in,
    split_of,
    split_rank,
    understand,
)
from ._shared.text import ENDINGS, HEAD, tables_in

card = DatasetCard(
    name="csv",
    title="Images and a table of their labels",
    classes=(),
    layouts={
        "table": "one table with an image name and a label in each row, divided by commas, tabs or semicolons",
        "tables": "train.csv, val.csv and test.csv (or names with these words), each such a table",
    },
    protocols=(
        replace(GIVEN, unlabelled="drop"),
        replace(HOLDOUT10, unlabelled="drop"),
        replace(RANDOM60_20_20, unlabelled="drop"),
        replace(SUBJECT10, unlabelled="drop"),
    ),
    get="put the images and their table into data/raw/csv, then: fer-bench data prepare csv",
    params={
        "name_column": Param("", "column of the image names, by name or number from 1; empty: by the names people use"),
        "label_column": Param("", "column of the labels; empty: by the names people use"),
        "split_column": Param("", "column of the parts; empty: by the names people use"),
        "subject_column": Param("", "column of the subjects; empty: by the names people use"),
        "images": Param("", "folder of the images, relative to the table; empty: beside it, in images/, train/ ..."),
        "classes": Param(
            "",
            "class names in label order, separated by commas: for labels that are numbers, and where a class has a name"
            " that stands for a missing label elsewhere (none, na, ?)",
        ),
        **ANY_IMAGE_PARAMS,
    },
    image="any size; 0 keeps the largest",
)

WHOLE = "all"  # the split of a table that tells none


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a table keeps what, by position; None for what it does not tell."""

    name: int
    label: int
    split: int | None
    subject: int | None
    header: tuple[str, ...]  # empty where the first row is data


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a table: its place, and the texts that matter."""

    table: Path
    line: int
    name: str
    label: str
    split: str
    subject: str

    @property
    def where(self) -> str:
        """File and row, as an error names them."""
        return f"{self.table}, row {self.line}"


class Csv(Dataset):
    """The table decides: images that it does not name are left out, and counted."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise tables in `source` or at most two folders below it."""
        root = Path(source or ".")
        root = root if root.is_dir() else root.parent
        return find_layout(self, source, lambda where, seen: self._fits(where, root, seen))

    def _fits(self, where: Path, root: Path, seen: list[str]) -> list[Reading]:
        tables: dict[Path, Columns] = {}
        spare = []

        def fits(path: Path) -> bool:
            try:
                tables[path] = self._columns(read_table(path, limit=HEAD), self._finder(path, root))
            except Unclear as reason:
                if where.is_file() or path.suffix.lower() in ENDINGS[0]:
                    spare.append(f"{path.name} ({reason})")
            return path in tables

        tables_in(where, fits)
        seen += spare
        notes = [f"left unread: {', '.join(spare)}"] if spare else []
        parts = {path: split_in(path.stem) or "" for path in tables}
        if len(tables) > 1 and "" not in parts.values() and len(set(parts.values())) == len(parts):
            return [self._reading("tables", tables, parts, root, notes)]
        return [self._reading("table", {path: columns}, {}, root, notes) for path, columns in tables.items()]

    def _finder(self, table: Path, root: Path) -> Finder:
        return Finder.of(table, root, self.params["images"])

    def _columns(self, table: Table, finder: Finder) -> Columns:
        """Where the columns of a table are; raises Unclear with what it is instead."""
        first = table.first
        if len(first) < 2:
            raise Unclear(f"one column: {first[0][:40]}" if first else table.kind or "empty, or no text")
        if "pixels" in map(plain, first):
            raise Unclear("holds pixels, not image names: fer2013 and ckplus are the data sets that read such a table")
        given = {kind: self.params[f"{kind}_column"] for kind in COLUMNS}
        places = {kind: find_column(first, kind, text) for kind, text in given.items()}
        named = any(place is not None and not given[kind].isdigit() for kind, place in places.items())
        numbers = row_numbers(table)
        columns = [k for k in range(len(first)) if k not in numbers or len(first) - len(numbers) < 2]
        rest = [k for k in columns if k not in places.values()]
        for kind in ("name", "label"):  # of two columns the first is the name, whatever they are called
            if places[kind] is None and len(columns) == 2 and rest:
                places[kind] = rest.pop(0)
        name, label = places["name"], places["label"]
        if name is None or label is None or name == label:
            lacks = "label" if name is not None else "name"
            raise Unclear(f"no {lacks} column known among {', '.join(first)[:80]}: --dataset-set {lacks}_column=NAME")
        if not named:
            examples = [cells[name] for _, cells in table.rows[:2] if len(cells) > name]
            images = [Path(text).suffix.lower() in IMAGES or finder.matches(text) != [] for text in examples]
            if True not in images:
                raise Unclear(f"no image names in its column {name + 1}: {', '.join(examples)[:80]}")
            named = not images[0]
        split, subject = places["split"], places["subject"]
        return Columns(name=name, label=label, split=split, subject=subject, header=tuple(first) if named else ())

    def _reading(
        self, layout: str, tables: dict[Path, Columns], parts: dict[Path, str], root: Path, notes: list[str]
    ) -> Reading:
        faults: list[tuple[str, str]] = []
        entries_read: list[Entry] = []
        for path, columns in tables.items():
            table = read_table(path)
            entries_read += self._entries(table, columns, parts.get(path), faults)
            notes = [*notes, f"{path.name} is {table.note}"] if table.note else notes
        labels = understand((e.label for e in entries_read), class_list(self.params["classes"], "csv[classes]"))
        if entries_read and not labels.classes:
            raise DataError("not one row of the table has a label", where=", ".join(map(str, tables)))
        rows = sorted(self._rows(entries_read, labels, root, faults), key=lambda row: (split_rank(row.split), row.name))
        spare = _unnamed(rows)
        notes = [*notes, f"{spare} images without a row are left out"] if spare else notes
        notes = [*filter(None, [labels.missing_summary(entry.label for entry in entries_read)]), *notes]
        sizes = Counter(row.split for row in rows)
        notes = [", ".join(f"{size} {split}" for split, size in sizes.items()), *notes]
        first, columns = next(iter(tables.items()))
        names = ", ".join(path.name for path in tables)
        summary = "; ".join(
            [f"{first.parent}: {names}, {_columns_summary(columns, bool(parts))}", labels.summary, *notes]
        )
        found_rows = reading(self, layout, summary, rows, faults=faults, files=tables, classes=labels.classes)
        return replace(found_rows, labels=labels.read_as)

    def _entries(
        self, table: Table, columns: Columns, part: str | None, faults: list[tuple[str, str]]
    ) -> Iterator[Entry]:
        """The rows of a table below its header; those with too few or too many cells are faults."""
        width = len(table.first)
        for line, cells in table.rows[bool(columns.header) :]:
            if len(cells) != width:
                faults.append((f"{table.path}, row {line}", f"wrong number of columns: {len(cells)}, expected {width}"))
                continue
            split = part if part is not None else WHOLE if columns.split is None else cells[columns.split]
            yield Entry(
                table=table.path,
                line=line,
                name=cells[columns.name],
                label=cells[columns.label],
                split=split_of(split) or split,
                subject="" if columns.subject is None or is_missing(cells[columns.subject]) else cells[columns.subject],
            )
        faults += [(f"{table.path}, row {line}", reason) for line, reason in table.faults]

    def _rows(
        self, entries_read: list[Entry], labels: Labels, root: Path, faults: list[tuple[str, str]]
    ) -> Iterator[Row]:
        finders = {table: self._finder(table, root) for table in {entry.table for entry in entries_read}}
        first: dict[Path, Entry] = {}
        for entry in entries_read:
            try:
                file = finders[entry.table].find(entry.name, entry.split)
                again = first.setdefault(file, entry)
                if again is not entry:
                    raise Unclear(f"a second row for one image: '{entry.name[:60]}', also in {again.where}")
                if entry.label not in labels.positions:
                    raise Unclear(f"unknown label: '{entry.label[:20]}', expected {', '.join(labels.classes)[:200]}")
                if is_missing(entry.split):
                    raise Unclear(f"the split is missing: '{entry.split}'" if entry.split else "the split is empty")
            except Unclear as reason:
                faults.append((entry.where, str(reason)))
                continue
            name = Path(os.path.relpath(file, root)).as_posix()
            label = labels.positions[entry.label]
            yield Row(file=file, name=name, label=label, split=entry.split, subject=entry.subject)


def _columns_summary(columns: Columns, parts: bool) -> str:
    """Which columns were taken for what, for people."""
    kinds = {"name": columns.name, "label": columns.label, "subject": columns.subject}
    kinds |= {} if parts else {"split": columns.split}
    taken = {kind: k for kind, k in kinds.items() if k is not None}
    summary = ", ".join(
        f"{columns.header[k] if columns.header else f'column {k + 1}'} = {kind}" for kind, k in taken.items()
    )
    summary += "" if columns.header else ", no header"
    if parts:
        return f"{summary}; split by the file names"
    return summary if columns.split is not None else f"{summary}; no split: one part '{WHOLE}'"


def _unnamed(rows: list[Row]) -> int:
    """How many images lie beside those of the rows."""
    named = {row.file for row in rows}
    folders = {file.parent for file in named if isinstance(file, Path)}
    images = (path for folder in folders for path in entries(folder) if path.suffix.lower() in IMAGES)
    return sum(path not in named for path in images)
