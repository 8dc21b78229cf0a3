"""Class names that come with Parquet files: in their own metadata, or in notes beside or above them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_bench import DataError

NOTES = ("README.md", "dataset_info.json", "dataset_infos.json")


def agreed_names(own: Mapping[Path, tuple[str, ...]], label: str, root: Path) -> tuple[dict[Path, tuple], tuple]:
    """Who tells the class names, and what they are; nobody and none where nothing tells them.

    Parameters
    ----------
    own : mapping of file to tuple of str
        What each file's own metadata tell; empty for nothing.
    label : str
        Column of the labels.
    root : Path
        The source folder; notes above it do not count.

    Raises
    ------
    DataError
        Two of them tell different names.
    """
    sources = {path: names for path, names in own.items() if names}
    for note in dict.fromkeys(note for path in own for note in _notes(path.parent, root)):
        noted = {class_names(features, label) for features in _noted(note)} - {()}
        if len(noted) > 1:
            raise DataError(f"the class names of {label} differ among its configurations", where=str(note))
        if noted:
            sources[note] = noted.pop()
    if len(set(sources.values())) > 1:
        listed = "\n         ".join(f"{path}: {', '.join(names)}" for path, names in sources.items())
        raise DataError("the class names differ, so the labels are not sure", where=listed)
    return sources, next(iter(sources.values()), ())


def _notes(folder: Path, root: Path) -> Iterator[Path]:
    """Files that may describe the set, from `folder` up to `root`."""
    for place in (folder, *folder.parents):
        yield from (place / name for name in NOTES if (place / name).is_file())
        if place == root:
            break


def _noted(note: Path) -> list[Any]:
    """The features of every configuration that a note describes; none where it can't be read."""
    text = note.read_text(encoding="utf-8", errors="replace")
    infos = _json(text) if note.suffix == ".json" else _front_matter(text).get("dataset_info")
    if isinstance(infos, dict):
        infos = [infos] if "features" in infos else list(infos.values())
    return [info.get("features") for info in infos or [] if isinstance(info, dict)]


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _front_matter(text: str) -> dict:
    """The YAML between the two lines of dashes with which a README begins."""
    import yaml

    block = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        content = yaml.safe_load(block[1]) if block else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def schema_features(metadata: bytes) -> Any:
    """The features in a schema's entry ``huggingface``; none where it can't be read."""
    content = _json(metadata)
    info = content.get("info") if isinstance(content, dict) else None
    return info.get("features") if isinstance(info, dict) else None


def class_names(features: Any, column: str) -> tuple[str, ...]:
    """Names of a ClassLabel in label order; none where the column is none.

    The features are a mapping ``{column: {"names": [...]}}``, or the list that stands in a README,
    ``[{"name": column, "dtype": {"class_label": {"names": {"0": ...}}}}]``.
    """
    if isinstance(features, list):
        dtype = next((f.get("dtype") for f in features if isinstance(f, dict) and f.get("name") == column), None)
        label = dtype.get("class_label") if isinstance(dtype, dict) else None
    else:
        label = features.get(column) if isinstance(features, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    if isinstance(names, dict):
        by_number = {str(k): name for k, name in names.items()}
        order = [str(k) for k in range(len(names))]
        names = [by_number[k] for k in order] if set(order) == set(by_number) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
