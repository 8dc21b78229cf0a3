"""Check whether a store's files match its manifest; once they have been read, checking their state is enough.

The files are measured once, and the measurements are kept next to them in ``checked.json``, together with the state of
each file: size, modification time, status-change time and inode. Every opening then compares the manifest with the
measurements, which takes microseconds. A program can reset a file's modification time but not its status-change time,
so an edit that hides its time is detected too. A store in a read-only place is measured once per process.

This detects accidents and edits. It does not stop a person who rewrites files, manifest and ``checked.json`` together:
that makes another data set, with another fingerprint.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import canonical_json, read_json, write_json
from fer_bench.errors import FerBenchError

CACHE = "checked.json"
SETTLED = 2 * 10**9  # ns; a file changed more recently than this may change again without a visible change of its times
BLOCK = 1 << 22
LISTED = 4  # counts named in a hint

KEYS = {"images.npy": {"shape", "pixels"}, "table.csv": {"sha256", "labels", "splits", "rows", "counts"}}

FILES = tuple(KEYS)

State = list[int]
Holds = dict[str, Any]
Entry = dict[str, Any]

_MEASURED: dict[tuple[str, str], Entry] = {}


@dataclass(frozen=True)
class Difference:
    """A mismatch with the manifest: the file that has changed, what changed in it, and details, if any."""

    file: str
    what: str
    detail: str = ""


def state_of(path: str | Path) -> State:
    """Size, modification and status-change time in ns, and inode of a file."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def unmeasured(folder: Path) -> int:
    """How many bytes :func:`contents` would read."""
    states = {name: state_of(folder / name) for name in FILES}
    return sum(state[0] for name, state in states.items() if _known(folder, name, state) is None)


def contents(folder: Path) -> dict[str, Entry]:
    """Measurements of each file of the store, from the cache if the file's state has not changed.

    Returns
    -------
    dict
        For each file its `state` and what it `holds`. "images.npy": `shape` and `pixels` (SHA-256 of everything after
        the header). "table.csv": `sha256`, `labels`, `splits`, `rows` and `counts` (images by split and label). For a
        file that can't be read, `fault` says why.
    """
    entries, fresh = {}, False
    for name in FILES:
        entry = _known(folder, name, state_of(folder / name))
        if entry is None:
            entry, fresh = _measured(folder / name), True
        entries[name] = _MEASURED[str(folder), name] = entry
    if fresh:
        with contextlib.suppress(OSError, FerBenchError):  # the cache is optional: the home may be read-only or full
            write_json(folder / CACHE, entries)
    return entries


def remember(folder: Path, holds: Mapping[str, Holds]) -> None:
    """Cache the measurements of files just written to a folder that no other process uses yet."""
    now = time.time_ns()
    entries = {name: {"state": state_of(folder / name), "at": now, "holds": holds[name]} for name in FILES}
    write_json(folder / CACHE, entries)


def _known(folder: Path, name: str, state: State) -> Entry | None:
    """Measurements of a file in this state, from this process or an earlier one; None if there are none."""
    entry = _MEASURED.get((str(folder), name))
    if _settled(entry, name, state):
        return entry
    with contextlib.suppress(OSError, ValueError):
        cached = read_json(folder / CACHE)
        entry = cached.get(name) if isinstance(cached, dict) else None
        if _settled(entry, name, state):
            return entry
    return None


def _settled(entry: Any, name: str, state: State) -> bool:
    """Whether an entry is complete, is for this state, and was made long enough after the file's last change."""
    if not isinstance(entry, dict) or entry.get("state") != state or not isinstance(entry.get("at"), int):
        return False
    holds = entry.get("holds")
    return isinstance(holds, dict) and KEYS[name] <= set(holds) and entry["at"] - state[2] >= SETTLED


def _measured(path: Path) -> Entry:
    before, at = state_of(path), time.time_ns()
    holds = (measure_images if path.suffix == ".npy" else measure_table)(path)
    return {"state": before, "at": at if state_of(path) == before else 0, "holds": holds}


def measure_images(path: Path) -> Holds:
    """Shape of the array and hash of its pixels."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            return {"fault": "it is no longer an array"}
        if version != (1, 0) or fortran or dtype != np.uint8 or math.prod(shape) != path.stat().st_size - file.tell():
            return {"fault": f"it contains {dtype} values of shape {'x'.join(map(str, shape))}"}
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return {"shape": list(shape), "pixels": digest.hexdigest()}


def measure_table(path: Path) -> Holds:
    """Hash of the table, and measurements of its labels and splits."""
    raw = path.read_bytes()
    try:
        rows = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""))
        pairs = [(int(row["label"]), row["split"]) for row in rows]
        labels, splits = [p[0] for p in pairs], [p[1] for p in pairs]
        measured = measure_columns(np.asarray(labels, dtype=np.int64), splits)
    except (ValueError, KeyError, TypeError, csv.Error, OverflowError):
        measured = {"fault": "its labels and splits can't be read"}
    return {"sha256": hashlib.sha256(raw).hexdigest(), **measured}


def measure_columns(labels: np.ndarray, splits: list[str]) -> Holds:
    """Hashes of the two columns, and the number of images of each label in each split."""
    names, counts = np.asarray(splits, dtype=str), {}
    for split in dict.fromkeys(splits):
        counts[str(split)] = np.bincount(labels[(names == split) & (labels >= 0)]).tolist()
    return {
        "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
        "splits": hashlib.sha256("\n".join(splits).encode()).hexdigest(),
        "rows": len(labels),
        "counts": counts,
    }


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """The fingerprint of a store, from its class names and the hashes of its pixels, labels and splits."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Hash of a manifest's content (as read from its file), except for its hash of itself."""
    rest = {k: v for k, v in manifest.items() if k != "self"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def difference(manifest: Mapping[str, Any], holds: Mapping[str, Holds]) -> Difference | None:
    """The first mismatch between files and manifest; None if they agree."""
    parts, table, images = manifest["parts"], holds["table.csv"], holds["images.npy"]
    if manifest["fingerprint"] != fingerprint_of(parts) or manifest["classes"] != parts["classes"]:
        return Difference("manifest.json", "its fingerprint does not match its own entries")
    if table["sha256"] != manifest["sha256"]["table.csv"]:
        return Difference("table.csv", *_in_table(table, manifest))
    if "fault" in images:
        return Difference("images.npy", images["fault"])
    if images["pixels"] != parts["pixels"]:
        return Difference("images.npy", "its pixels differ from those that were prepared")
    agree = {
        "labels": table.get("labels") == parts["labels"] and "fault" not in table,
        "splits": table.get("splits") == parts["splits"],
        "shape": images["shape"] == list(manifest["shape"]) and table.get("rows") == manifest["shape"][0],
        "counts": not _recounted(table, manifest),
        "text": "self" not in manifest or manifest["self"] == digest_of(manifest),
    }
    wrong = [name for name, right in agree.items() if not right]
    if not wrong:
        return None
    verb = "differs" if wrong[0] == "shape" else "differ"
    what = "it was edited" if wrong == ["text"] else f"its {wrong[0]} {verb} from the files"
    return Difference("manifest.json", what, "; ".join(_recounted(table, manifest)[:LISTED]))


def _in_table(table: Holds, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """What has changed in the table, and the counts that differ."""
    if "fault" in table:
        return table["fault"], ""
    changed = [part for part in ("labels", "splits") if table[part] != manifest["parts"][part]]
    if not changed:
        return "a column other than labels and splits differs", ""
    counts = "; ".join(_recounted(table, manifest)[:LISTED])
    return f"its {' and '.join(changed)} differ", counts


def _recounted(table: Holds, manifest: Mapping[str, Any]) -> list[str]:
    """One line per count in which the table and the manifest differ."""
    lines, classes = [], list(manifest["classes"])
    for split in dict.fromkeys([*manifest["counts"], *table.get("counts", {})]):
        now, then = (list(counts.get(split, [])) for counts in (table.get("counts", {}), manifest["counts"]))
        names = [*classes, *(f"label {k}" for k in range(len(classes), max(len(now), len(then))))]
        for k, name in enumerate(names):
            table_has, manifest_has = (counts[k] if k < len(counts) else 0 for counts in (now, then))
            if table_has != manifest_has:
                lines.append(f"{split}/{name}: {table_has:,} images in the table, {manifest_has:,} in the manifest")
    return lines
