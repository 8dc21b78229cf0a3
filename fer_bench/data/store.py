"""The prepared store: one memory-mapped array, one table, one manifest of hashes.

::

    <root>/<dataset>/images.npy     uint8 [N, C, H, W]
    <root>/<dataset>/table.csv      row, label, split, source, subject, duplicate, ...; one line per image
    <root>/<dataset>/sources.jsonl  the source files, one path (a JSON string) per line
    <root>/<dataset>/manifest.json  classes, counts, layout, hashes, fingerprint
    <root>/<dataset>/checked.json   measurements of the files, so that they need not be read again at the next opening

The fingerprint covers pixels, labels, splits and class names, but not the layout: every layout of the same data gives
the same fingerprint. A store is written next to the old one and swapped in at the end, so a killed process leaves the
old store usable. Every opening checks that the files are still as they were written (:mod:`fer_bench.data.soundness`).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import disk_full, is_full, read_json, sha256_file, write_json, write_text
from fer_bench.base.names import folder_of, locate, name_of
from fer_bench.base.quantities import plural
from fer_bench.contract.cards import DatasetCard
from fer_bench.contract.dataset import Chunk, Reading
from fer_bench.data import soundness
from fer_bench.data.row_file import RowFile
from fer_bench.errors import ChangedStoreError, StoreError
from fer_bench.record.home import Home

FORMAT = 2  # the source files of a store of format 1 are listed in its manifest; such a store is read as well
READABLE = (1, FORMAT)
SOURCES = "sources.jsonl"
ENTRIES = ("classes", "counts", "shape", "sizes", "sha256", "parts", "fingerprint", "params", "sources")


@dataclass(frozen=True)
class Store:
    """An opened store. Images stay on disk until they are requested.

    `states` holds the state (:func:`fer_bench.data.soundness.state_of`) in which each file was last verified.
    """

    path: Path
    manifest: dict[str, Any]
    states: Mapping[str, list[int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Store:
        """Open the store at `path`, after checking that its files are unchanged.

        The first check reads the files; later openings only look at their size, times and inode.

        Parameters
        ----------
        verify : bool
            False reads only the manifest, for example to learn where the store came from.

        Raises
        ------
        StoreError
            There is no store, it is damaged, or an incompatible version wrote it.
        ChangedStoreError
            Its files or its manifest have been changed since they were written.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        if not verify:
            return cls(path, manifest)
        return cls(path, manifest, _sound(path, manifest))

    @property
    def fingerprint(self) -> str:
        """Hash over pixels, labels, splits and class names."""
        return self.manifest["fingerprint"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self.manifest["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Image shape (C, H, W)."""
        _, c, h, w = self.manifest["shape"]
        return c, h, w

    @property
    def bits(self) -> int:
        """Bits that the values of 16-bit source images fill; 16 if there are none, or an earlier version wrote it."""
        return max(map(int, self.manifest.get("survey", {}).get("bits", {})), default=16)

    def __len__(self) -> int:
        return self.manifest["shape"][0]

    @property
    def column_names(self) -> list[str]:
        """Names of the table's columns."""
        with open(self.path / "table.csv", encoding="utf-8", newline="") as file:
            return next(csv.reader(file))

    def columns(self, *names: str) -> dict[str, np.ndarray]:
        """The named columns of the table (default: all), each [N]; numbers as int64, everything else as str."""
        with open(self.path / "table.csv", encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows)
            missing = [n for n in names if n not in header]
            if missing:
                hint = f"columns: {', '.join(header)}"
                raise StoreError(f"the table has no column {missing}", where=str(self.path), hint=hint)
            places = [header.index(n) for n in (names or header)]
            picked = [[row[p] for p in places] for row in rows]
        self._still_sound("table.csv")
        return {n: _typed([row[k] for row in picked]) for k, n in enumerate(names or header)}

    def images(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the images of `rows`, uint8 [len(rows), C, H, W]."""
        with self.image_file() as file:
            return file.read(np.arange(file.shape[0])[rows])

    @contextlib.contextmanager
    def image_file(self) -> Iterator[RowFile]:
        """The file of the images, open; at the end ChangedStoreError if it has changed since the store was opened."""
        with RowFile(self.path / "images.npy") as file:
            yield file
        self._still_sound("images.npy")

    def _still_sound(self, name: str) -> None:
        """Raise ChangedStoreError if a file has changed since the store was opened, unless its content is the same."""
        if self.states and soundness.state_of(self.path / name) != self.states[name]:
            now = Store.open(self.path).fingerprint
            if now != self.fingerprint:
                raise ChangedStoreError(
                    f"the store changed while it was in use: its fingerprint was {self.fingerprint}, now it is {now}",
                    where=str(self.path),
                    next="rerun the same command",
                )

    def verify(self) -> None:
        """Read every file and compare it with its hash, ignoring earlier checks; raises StoreError if one differs."""
        for name, digest in self.manifest["sha256"].items():
            if sha256_file(self.path / name) != digest:
                raise ChangedStoreError(f"{name} has changed since it was prepared", where=str(self.path / name))

    def guarded_files(self) -> list[Path]:
        """The files a method must not read while the test set is sealed: the store's own and their sources."""
        own = [self.path / name for name in ("images.npy", "table.csv")]
        return own + [Path(p) for p in self._sources()]

    def _sources(self) -> list[str]:
        """Paths of the source files; raises ChangedStoreError if their list is not the one that was written."""
        if isinstance(self.manifest["sources"], list):
            return self.manifest["sources"]
        file = self.path / SOURCES
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            text = b""
        if hashlib.sha256(text).hexdigest() != self.manifest["sha256"][SOURCES]:
            again = prepare_command(self.path, self.manifest)
            what = "the list of source files is not the one that was written"
            raise ChangedStoreError(what, where=str(file), next=again)
        return [json.loads(line) for line in text.splitlines()]


def _read_manifest(path: Path) -> dict[str, Any]:
    again = prepare_command(path)
    if not (path / "manifest.json").is_file():
        raise StoreError(f"no prepared store for '{name_of(path.name)}'", where=str(path), next=again)
    try:
        manifest = read_json(path / "manifest.json")
    except ValueError as error:
        raise StoreError(f"the manifest can't be read: {error}", where=str(path), next=again) from error
    if not isinstance(manifest, dict) or manifest.get("format") not in READABLE:
        expected = f"expected {' or '.join(map(str, READABLE))}"
        raise StoreError("the store has an unknown format", where=str(path), hint=expected, next=again)
    missing = [name for name in ENTRIES if name not in manifest]
    if missing:
        raise StoreError(f"the manifest lacks '{missing[0]}'", where=str(path), next=again)
    return manifest


def _sound(path: Path, manifest: Mapping[str, Any]) -> dict[str, list[int]]:
    """Check that files and manifest agree; returns the state of each file."""
    again = prepare_command(path, manifest)
    for name in soundness.FILES:
        if not (path / name).is_file():
            raise ChangedStoreError(f"{name} of '{name_of(path.name)}' is missing", where=str(path / name), next=again)
    try:
        entries = soundness.contents(path)
        change = soundness.difference(manifest, {name: entry["holds"] for name, entry in entries.items()})
    except OSError as error:
        raise StoreError(f"the store can't be read: {error.strerror}", where=str(error.filename or path)) from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        change = soundness.Difference("manifest.json", f"it is not a valid manifest ({error!r})")
    if change is not None:
        raise ChangedStoreError(
            f"{change.file} of '{name_of(path.name)}' has changed since the store was prepared: {change.what}",
            where=str(path / change.file),
            hint=change.detail or None,
            next=again,
        )
    return {name: entry["state"] for name, entry in entries.items()}


def prepare_command(path: Path, manifest: Mapping[str, Any] | None = None) -> str:
    """The command that rewrites the store at `path` from the same source with the same parameters."""
    words = ["fer-bench", "data", "prepare", name_of(path.name)]
    manifest = manifest or {}
    source = manifest.get("from", "PATH")
    if source is not None:  # a built-in set has none
        words += ["--from", str(source) if Path(str(source)).exists() else "PATH"]
    for name, value in dict(manifest.get("given", manifest.get("params", {}))).items():
        words += ["--dataset-set", f"{name}={value}"]
    return shlex.join([*words, *(Home(path.parent.parent.resolve()).options if path.parent.name == "data" else ())])


def naming_plugins(error: ChangedStoreError, folders: Sequence[str | Path]) -> ChangedStoreError:
    """The error, with the plug-in folders added to the command that fixes it."""
    words = [word for folder in folders for word in ("--plugins", str(folder))]
    again = shlex.join([*shlex.split(error.next or ""), *words]) if error.next else None
    return ChangedStoreError(error.what, where=error.where, hint=error.hint, next=again)


def _typed(values: list[str]) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.int64)
    except (ValueError, OverflowError):
        return np.asarray(values, dtype=str)


def write_store(
    root: str | Path,
    card: DatasetCard,
    reading: Reading,
    params: dict[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
) -> Store:
    """Write a store from a recognised source; an existing one is replaced only at the very end.

    Parameters
    ----------
    root : path
        Folder of all stores; this one becomes ``root/<name>``, spelled as by :func:`fer_bench.base.names.locate`.
    reading : Reading
        Its chunks must have the same image shape.
    params, notes : dict, optional
        The data set's parameters, and additional entries for the manifest.

    Raises
    ------
    DataError
        The source is malformed.
    StoreError
        The chunks do not fit together.
    FerBenchError
        The disk is full.
    """
    target = locate(Path(root), card.name)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        manifest, measured = _write_files(aside, card, reading)
        manifest |= {"params": params or {}, "given": _given(card, params or {}), **(notes or {})}
        manifest["checks"] = check_counts(card, manifest)
        manifest = json.loads(json.dumps(manifest))  # as it will be read back
        manifest["self"] = soundness.digest_of(manifest)
        write_json(aside / "manifest.json", manifest)
        soundness.remember(aside, measured)
        states = {name: soundness.state_of(aside / name) for name in soundness.FILES}
        _swap(aside, target)
    except OSError as error:
        if is_full(error):
            raise disk_full(target) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Store(target, manifest, states)


def _given(card: DatasetCard, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that differ from their defaults, so that a person must name them."""
    return {k: v for k, v in params.items() if k not in card.params or card.params[k].default != v}


def _swap(aside: Path, target: Path) -> None:
    """Replace `target` by `aside`; at every moment a complete store has a name from which `prepare` can restore it."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(aside, target)
    shutil.rmtree(old, ignore_errors=True)


def recover(root: str | Path, name: str) -> None:
    """After a killed process: restore the old store's name, and remove what dead processes left behind."""
    for folder in dict.fromkeys((folder_of(name), name)):  # an earlier version may have put the store elsewhere
        _recover_folder(Path(root) / folder)


def _recover_folder(target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    shutil.rmtree(old, ignore_errors=True)
    for aside in target.parent.glob(f".{target.name}.*.part"):
        pid = aside.name.split(".")[-2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(aside, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def check_counts(card: DatasetCard, manifest: dict[str, Any]) -> dict[str, Any]:
    """Compare a manifest's counts with the card's: "match", "differ" with one line per difference, or "unknown"."""
    if not card.counts or list(card.classes) != manifest["classes"]:
        return {"counts": "unknown", "differences": []}
    counts, differences = manifest["counts"], []
    for split in [*card.counts, *(s for s in counts if s not in card.counts)]:
        known = card.counts.get(split)
        if known is None:
            differences.append(f"{split}: {plural(sum(counts[split]), 'image')} in a split that the card does not list")
            continue
        for name, have, expected in zip(card.classes, counts.get(split, [0] * len(known)), known, strict=True):
            if have != expected:
                differences.append(f"{split}/{name}: {have}, expected {expected}")
    unlabelled = manifest["shape"][0] - sum(map(sum, counts.values()))
    if unlabelled != card.unlabelled:
        expected = f", expected {card.unlabelled}" if card.unlabelled else ""
        differences.insert(0, f"{plural(unlabelled, 'image has', 'images have')} no label{expected}")
    return {"counts": "differ" if differences else "match", "differences": differences}


def _write_files(folder: Path, card: DatasetCard, reading: Reading) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write images and table; returns the manifest's first entries, and the measurements of the files."""
    pixels, columns, shape = _write_images(folder / "images.npy", reading.chunks())
    table = _table_text(columns)
    write_text(folder / "table.csv", table)
    write_text(folder / SOURCES, "".join(f"{json.dumps(str(Path(p).resolve()))}\n" for p in reading.files))
    files = ("images.npy", "table.csv", SOURCES)
    labels = np.asarray(columns["label"], dtype=np.int64)
    splits = columns["split"]
    classes = list(reading.classes or card.classes)
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise StoreError(f"labels range from {labels.min()} to {labels.max()}, but there are {len(classes)} classes")
    measured = {"sha256": hashlib.sha256(table.encode()).hexdigest(), **soundness.measure_columns(labels, splits)}
    parts = {"classes": classes, "pixels": pixels, "labels": measured["labels"], "splits": measured["splits"]}
    manifest = {
        "format": FORMAT,
        "dataset": card.name,
        "layout": reading.layout,
        "said": reading.summary,
        "classes": classes,
        "shape": [len(labels), *shape],
        "counts": _counts(labels, splits, len(classes)),
        "survey": dict(reading.survey),
        "label_names": [list(pair) for pair in reading.labels.items()],
        "sources": len(reading.files),
        "sizes": {n: (folder / n).stat().st_size for n in files},
        "sha256": {n: sha256_file(folder / n) for n in files},
        "parts": parts,
        "fingerprint": soundness.fingerprint_of(parts),
    }
    return manifest, {"images.npy": {"shape": manifest["shape"], "pixels": pixels}, "table.csv": measured}


def _write_images(path: Path, chunks: Iterable[Chunk]) -> tuple[str, dict[str, list], tuple[int, int, int]]:
    """Stream chunks into a ``.npy`` file of initially unknown length; returns pixel hash, columns and shape."""
    columns: dict[str, list] = {"label": [], "split": [], "source": [], "subject": [], "duplicate": []}
    digest, shape, total = hashlib.sha256(), None, 0
    seen: dict[bytes, int] = {}
    with open(path, "wb") as file:
        file.write(b"\0" * 128)  # room for the header; .npy headers are padded to a multiple of 64
        for chunk in chunks:
            images = np.ascontiguousarray(chunk.images)
            shape = _check_chunk(chunk, shape, total)
            file.write(images.data)
            digest.update(images.data)
            for k in range(len(chunk)):
                key = hashlib.blake2b(images[k].data, digest_size=12).digest()
                columns["duplicate"].append(seen.setdefault(key, len(seen)))
            columns["label"] += chunk.labels.tolist()
            columns["split"] += chunk.split
            columns["source"] += chunk.source
            columns["subject"] += chunk.subject or [""] * len(chunk)
            for name, values in chunk.extra.items():
                columns.setdefault(name, []).extend(np.asarray(values).tolist())
            total += len(chunk)
        if shape is None:
            raise StoreError("the source contains no images", where=str(path))
        file.seek(0)
        file.write(_npy_header((total, *shape)))
    return digest.hexdigest(), columns, shape


def _check_chunk(chunk: Chunk, shape: tuple[int, int, int] | None, row: int) -> tuple[int, int, int]:
    images = chunk.images
    if images.dtype != np.uint8 or images.ndim != 4:
        raise StoreError(f"a chunk must be uint8 [k, C, H, W], not {images.dtype} {images.shape}", where=f"row {row}")
    if shape is not None and images.shape[1:] != shape:
        raise StoreError(f"images of shape {images.shape[1:]} after images of shape {shape}", where=f"row {row}")
    lengths = {len(images), len(chunk.labels), len(chunk.split), len(chunk.source)}
    if len(lengths) != 1:
        raise StoreError(f"a chunk's parts have different lengths: {sorted(lengths)}", where=f"row {row}")
    c, h, w = images.shape[1:]
    return c, h, w


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = buffer.getvalue()
    if len(header) != 128:
        raise StoreError(f"unexpected .npy header of {len(header)} bytes")
    return header


def _table_text(columns: dict[str, list]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(columns)
    writer.writerow(["row", *names])
    writer.writerows(zip(range(len(columns["label"])), *columns.values(), strict=True))
    return out.getvalue()


def _counts(labels: np.ndarray, splits: list[str], classes: int) -> dict[str, list[int]]:
    names = np.asarray(splits, dtype=str)
    return {
        str(s): np.bincount(labels[(names == s) & (labels >= 0)], minlength=classes).tolist()
        for s in dict.fromkeys(splits)
    }


def duplicates(store: Store) -> dict[str, Any]:
    """Statistics of identical images, from the duplicate column.

    Returns
    -------
    dict
        `distinct` images; `groups` of two or more identical ones; `conflicting` groups with more than one label;
        `by_split`: rows whose image occurs earlier in the same split; `across`: for each pair of splits (A, B) where A
        comes first in the store, how many rows of B also occur in A.
    """
    table = store.columns("label", "split", "duplicate")
    group, label, split = table["duplicate"], table["label"], table["split"]
    sizes = np.bincount(group)
    labelled = label >= 0
    pairs = np.unique(np.stack([group[labelled], label[labelled]]), axis=1)
    splits = [str(s) for s in dict.fromkeys(split.tolist())]
    members = {s: group[split == s] for s in splits}
    across = {(a, b): int(np.isin(members[b], members[a]).sum()) for k, a in enumerate(splits) for b in splits[k + 1 :]}
    return {
        "distinct": int((sizes > 0).sum()),
        "groups": int((sizes > 1).sum()),
        "conflicting": int((np.bincount(pairs[0]) > 1).sum()) if labelled.any() else 0,
        "by_split": {s: len(g) - len(np.unique(g)) for s, g in members.items()},
        "across": {pair: rows for pair, rows in across.items() if rows},
    }
