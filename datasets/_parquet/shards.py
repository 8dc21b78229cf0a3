"""Parquet files as the Hugging Face hub keeps image sets: which there are, their columns, and their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_bench import DataError, missing_library

from .._shared.folders import entries, subfolders
from .._shared.tables import Unclear, find_column, plain, split_in, split_rank
from .names import class_names, schema_features

BATCH = 256  # rows in memory at a time
IMAGE_COLUMNS = ("image", "img", "img_bytes", "image_bytes", "picture", "pixel_values")
WHOLE = "all"  # the split of files that name none


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file: its split, its columns, and the class names that its own metadata give."""

    path: Path
    split: str
    image: str
    label: str
    numbers: bool  # labels are integers, not texts
    names: tuple[str, ...]


def arrow() -> Any:
    """The module ``pyarrow.parquet``; raises DataError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_library("parquet files need pyarrow", error, install="pyarrow", kind=DataError) from error
    return pyarrow.parquet


def shard_files(where: Path) -> dict[Path, str]:
    """Parquet files in `where`, or in split folders directly below it, with their splits; in store order."""
    files = _parquet_in(where)
    if not files and where.is_dir():
        files = [path for folder in subfolders(where) if split_in(folder.name) for path in _parquet_in(folder)]
    splits = {path: split_in(path.stem) or split_in(path.parent.name) or WHOLE for path in files}
    return dict(sorted(splits.items(), key=lambda item: (split_rank(item[1]), str(item[0]))))


def _parquet_in(where: Path) -> list[Path]:
    return [p for p in ([where] if where.is_file() else entries(where)) if p.suffix.lower() == ".parquet"]


def shard_faults(files: Mapping[Path, str]) -> list[tuple[Path, str]]:
    """Parts that are missing or there twice, by the numbers in names such as ``train-00000-of-00002``."""
    parts: dict[tuple[str, int], dict[int, Path]] = {}
    faults = []
    for path, split in files.items():
        numbers = re.search(r"(\d+)-of-(\d+)", path.stem)
        if numbers:
            known = parts.setdefault((split, int(numbers[2])), {})
            other = known.setdefault(int(numbers[1]), path)
            if other != path:
                faults.append((path, f"a second file for one part: also {other.name}"))
    for (split, total), known in parts.items():
        lacking = [str(k) for k in range(total) if k not in known]
        if lacking:
            near = next(iter(known.values()))
            faults.append((near, f"other parts are missing: of {total} of {split}, number {', '.join(lacking[:9])}"))
    return faults


def open_shard(path: Path, split: str, label_column: str) -> Shard:
    """Find the columns of a file; raises :class:`Unclear` with the reason where it can't be used."""
    parquet = arrow()
    try:
        schema = parquet.read_schema(path)
    except (OSError, ValueError) as error:
        raise Unclear(f"no readable parquet file: {str(error).splitlines()[0][:80]}") from error
    features = schema_features((schema.metadata or {}).get(b"huggingface", b""))
    image = _image_column(schema)
    others = [name for name in schema.names if name != image]
    coded = [name for name in others if class_names(features, name)]
    place = find_column(others, "label", label_column or (coded[0] if len(coded) == 1 else ""))
    if place is None:
        raise Unclear(f"no label column known among {', '.join(others)[:80]}: --dataset-set label_column=NAME")
    label = others[place]
    kind = str(schema.field(label).type)
    if not re.search(r"int|string|double|float", kind) or "<" in kind.removeprefix("dictionary<"):
        raise Unclear(f"the labels in its column {label} are neither numbers nor texts: {kind[:40]}")
    return Shard(
        path=path,
        split=split,
        image=image,
        label=label,
        numbers="string" not in kind,
        names=class_names(features, label),
    )


def _image_column(schema: Any) -> str:
    """The column that holds image files: bytes, or a struct with bytes."""
    candidates = []
    for field in schema:
        kinds = [field.type.field(k) for k in range(field.type.num_fields)] if str(field.type)[:6] == "struct" else []
        content = next((str(kind.type) for kind in kinds if kind.name == "bytes"), str(field.type))
        if content in ("binary", "large_binary"):
            candidates.append(field.name)
    best = [name for name in candidates if plain(name) in IMAGE_COLUMNS] or candidates
    if len(best) != 1:
        reason = f"{', '.join(best)} could each hold the images" if best else "no column holds image files"
        raise Unclear(f"{reason}: {', '.join(f'{f.name} {f.type}' for f in schema)[:160]}")
    return best[0]


def stream(shard: Shard) -> Iterator[tuple[int, list[bytes | None], list[Any]]]:
    """Images and labels of a file, some hundred at a time: the first row's number, files' contents, labels.

    Raises
    ------
    Unclear
        The file is damaged.
    """
    start = 0
    try:
        with arrow().ParquetFile(shard.path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=[shard.image, shard.label]):
                images = [v.get("bytes") if isinstance(v, dict) else v for v in batch.column(shard.image).to_pylist()]
                yield start, images, batch.column(shard.label).to_pylist()
                start += len(images)
    except (OSError, ValueError) as error:
        raise Unclear(f"damaged from row {start} on: {str(error).splitlines()[0][:80]}") from error
