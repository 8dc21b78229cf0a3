"""Whether the files of a store hold what its manifest says; once that is known, a look at their state is enough.

What the files hold is measured once and kept beside them in ``checked.json``, with the state each file was in: size,
times of the last change of content and of status, inode. The manifest is then compared with the measured contents at
every opening, which costs microseconds. A program can set back the time of the last change of content, but not that of
the status, so an edit that hides its time is seen too. A store in a place that can't be written is measured once in
every process.

This finds accidents and edits. It does not stop a person who writes files, manifest and ``checked.json`` anew together:
that makes another data set, under another fingerprint.
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
SETTLED = 2 * 10**9  # ns; a file that changed so shortly before may change again without its times showing it
BLOCK = 1 << 22
SHOWN = 4  # counts named in a hint

KEYS = {"images.npy": {"shape", "pixels"}, "table.csv": {"sha256", "labels", "splits", "rows", "counts"}}

FILES = tuple(KEYS)

State = list[int]
Holds = dict[str, Any]
Entry = dict[str, Any]

_MEASURED: dict[tuple[str, str], Entry] = {}


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the manifest says: the file that has changed, what of it, and details if there are."""

    file: str
    what: str
    detail: str = ""


def state_of(path: str | Path) -> State:
    """Size, time of the last change of content and of status in ns, and inode of a file."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def unmeasured(folder: Path) -> int:
    """How many bytes :func:`contents` would read."""
    states = {name: state_of(folder / name) for name in FILES}
    return sum(state[0] for name, state in states.items() if _known(folder, name, state) is None)


def contents(folder: Path) -> dict[str, Entry]:
    """What each file of the store holds, from the cache where its state is the one that was measured.

    Returns
    -------
    dict
        Of each file its `state`, and what it `holds`. "images.npy": `shape` and `pixels` (SHA-256 of everything after
        the header). "table.csv": `sha256`, `labels`, `splits`, `rows` and `counts` (images by split and label). A file
        that can't be understood holds a `fault`.
    """
    found, fresh = {}, False
    for name in FILES:
        entry = _known(folder, name, state_of(folder / name))
        if entry is None:
            entry, fresh = _measured(folder / name), True
        found[name] = _MEASURED[str(folder), name] = entry
    if fresh:
        with contextlib.suppress(OSError, FerBenchError):  # a home that can't be written, or is full, does without
            write_json(folder / CACHE, found)
    return found


def remember(folder: Path, holds: Mapping[str, Holds]) -> None:
    """Keep what files hold that were written this moment, into a folder that nobody else knows yet."""
    now = time.time_ns()
    entries = {name: {"state": state_of(folder / name), "at": now, "holds": holds[name]} for name in FILES}
    write_json(folder / CACHE, entries)


def _known(folder: Path, name: str, state: State) -> Entry | None:
    """What was measured of a file in this state, in this process or an earlier one."""
    entry = _MEASURED.get((str(folder), name))
    if _settled(entry, name, state):
        return entry
    with contextlib.suppress(OSError, ValueError):
        kept = read_json(folder / CACHE)
        entry = kept.get(name) if isinstance(kept, dict) else None
        if _settled(entry, name, state):
            return entry
    return None


def _settled(entry: Any, name: str, state: State) -> bool:
    """Whether a whole entry is of this state, and was made long enough after the file's last change."""
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
            return {"fault": "it is no array any more"}
        if version != (1, 0) or fortran or dtype != np.uint8 or math.prod(shape) != path.stat().st_size - file.tell():
            return {"fault": f"it holds {dtype} values of shape {'x'.join(map(str, shape))}"}
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return {"shape": list(shape), "pixels": digest.hexdigest()}


def measure_table(path: Path) -> Holds:
    """Hash of the table, and what it says of labels and splits."""
    raw = path.read_bytes()
    try:
        rows = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""))
        pairs = [(int(row["label"]), row["split"]) for row in rows]
        labels, splits = [p[0] for p in pairs], [p[1] for p in pairs]
        held = columns_hold(np.asarray(labels, dtype=np.int64), splits)
    except (ValueError, KeyError, TypeError, csv.Error, OverflowError):
        held = {"fault": "its labels and splits can't be read any more"}
    return {"sha256": hashlib.sha256(raw).hexdigest(), **held}


def columns_hold(labels: np.ndarray, splits: list[str]) -> Holds:
    """What two columns say: their hashes, and how many images each split has of each label."""
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
    """The fingerprint of a store from its parts: class names and the hashes of pixels, labels and splits."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Hash of everything that a manifest (as read from its file) says, without the hash that it keeps of itself."""
    rest = {k: v for k, v in manifest.items() if k != "self"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def difference(manifest: Mapping[str, Any], holds: Mapping[str, Holds]) -> Difference | None:
    """The first thing in which files and manifest do not agree, if there is one."""
    parts, table, images = manifest["parts"], holds["table.csv"], holds["images.npy"]
    if manifest["fingerprint"] != fingerprint_of(parts) or manifest["classes"] != parts["classes"]:
        return Difference("manifest.json", "its fingerprint is not that of its own parts")
    if table["sha256"] != manifest["sha256"]["table.csv"]:
        return Difference("table.csv", *_in_table(table, manifest))
    if "fault" in images:
        return Difference("images.npy", images["fault"])
    if images["pixels"] != parts["pixels"]:
        return Difference("images.npy", "its pixels are not those that were prepared")
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
    said = "it was edited" if wrong == ["text"] else f"its {wrong[0]} are not those of the files"
    return Difference("manifest.json", said, "; ".join(_recounted(table, manifest)[:SHOWN]))


def _in_table(table: Holds, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """What has changed in the table, and the counts that tell of it."""
    if "fault" in table:
        return table["fault"], ""
    changed = [part for part in ("labels", "splits") if table[part] != manifest["parts"][part]]
    if not changed:
        return "its labels and splits are as they were, another column is not", ""
    verb = "differ" if changed != ["labels"] else "are other ones"
    counts = "; ".join(_recounted(table, manifest)[:SHOWN])
    return f"its {' and '.join(changed)} {verb}", counts


def _recounted(table: Holds, manifest: Mapping[str, Any]) -> list[str]:
    """One line a count in which the table and the manifest differ."""
    lines, classes = [], list(manifest["classes"])
    for split in dict.fromkeys([*manifest["counts"], *table.get("counts", {})]):
        now, then = (list(counts.get(split, [])) for counts in (table.get("counts", {}), manifest["counts"]))
        names = [*classes, *(f"label {k}" for k in range(len(classes), max(len(now), len(then))))]
        for k, name in enumerate(names):
            has, had = (counts[k] if k < len(counts) else 0 for counts in (now, then))
            if has != had:
                lines.append(f"{split}/{name}: {has:,} images in the table, {had:,} in the manifest")
    return lines
