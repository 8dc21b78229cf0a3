"""The prepared store: one memory-mapped array, one table, one manifest of hashes.

::

    <root>/<dataset>/images.npy     uint8 [N, C, H, W]
    <root>/<dataset>/table.csv      row, label, split, source, subject, duplicate, ... one line an image
    <root>/<dataset>/manifest.json  classes, counts, layout, source files, hashes, fingerprint

The fingerprint covers pixels, labels, splits and class names, not the layout: every layout of the same data gives the
same one. A store is written beside the old one and swapped in at the end, so a kill leaves the old store usable.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.atomic import canonical_json, disk_full, is_full, read_json, sha256_file, write_json, write_text
from fer_bench.cards import DatasetCard
from fer_bench.dataset import Chunk, Reading
from fer_bench.errors import StoreError
from fer_bench.names import folder_of, locate, name_of

FORMAT = 1
FILES = ("images.npy", "table.csv", "manifest.json")


@dataclass(frozen=True)
class Store:
    """An opened store. Opening reads the manifest only; images stay on disk until asked for."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open the store at `path`.

        Raises
        ------
        StoreError
            There is none, it is damaged, or it was written by an incompatible version.
        """
        path = Path(path)
        name = name_of(path.name)
        again = f"fer-bench data prepare {name} --from PATH"
        if not (path / "manifest.json").is_file():
            raise StoreError(f"no prepared store for '{name}'", where=str(path), next=again)
        try:
            manifest = read_json(path / "manifest.json")
        except ValueError as error:
            raise StoreError(f"the manifest can't be read: {error}", where=str(path), next=again) from error
        if manifest.get("format") != FORMAT:
            raise StoreError("the store has another format", where=str(path), hint=f"expected {FORMAT}", next=again)
        for name, size in manifest["sizes"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != size:
                raise StoreError(f"{name} is missing or has changed its size", where=str(file), next=again)
        return cls(path, manifest)

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

    def __len__(self) -> int:
        return self.manifest["shape"][0]

    @property
    def column_names(self) -> list[str]:
        """Names of the table's columns."""
        with open(self.path / "table.csv", encoding="utf-8", newline="") as file:
            return next(csv.reader(file))

    def columns(self, *names: str) -> dict[str, np.ndarray]:
        """The named columns of the table; numbers as int64, everything else as str."""
        with open(self.path / "table.csv", encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows)
            missing = [n for n in names if n not in header]
            if missing:
                raise StoreError(f"the table has no column {missing}", where=str(self.path), hint=", ".join(header))
            places = [header.index(n) for n in (names or header)]
            picked = [[row[p] for p in places] for row in rows]
        return {n: _typed([row[k] for row in picked]) for k, n in enumerate(names or header)}

    def images(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the images of `rows`, uint8 [len(rows), C, H, W]."""
        mapped = np.load(self.path / "images.npy", mmap_mode="r")
        out = np.ascontiguousarray(mapped[rows])
        mapped._mmap.close()
        return out

    def verify(self) -> None:
        """Compare every file with its hash; raises StoreError where one differs."""
        for name, digest in self.manifest["sha256"].items():
            if sha256_file(self.path / name) != digest:
                raise StoreError(f"{name} has changed since it was prepared", where=str(self.path / name))

    def guarded_files(self) -> list[Path]:
        """The files a method must not read while the test is sealed: the store's own and their sources."""
        own = [self.path / name for name in ("images.npy", "table.csv")]
        return own + [Path(p) for p in self.manifest["sources"]]


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
    """Write a store from a recognised source; the old one, if any, is replaced only at the very end.

    Parameters
    ----------
    root : path
        Folder of all stores; the store becomes ``root/<name>``, as :func:`fer_bench.names.locate` spells it.
    reading : Reading
        Its chunks must agree in image shape.
    params, notes : dict, optional
        The dataset's parameters, and further entries of the manifest.

    Raises
    ------
    DataError
        From the reading: malformed source.
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
        manifest = _write_files(aside, card, reading)
        manifest |= {"params": params or {}, "checks": check_counts(card, manifest), **(notes or {})}
        write_json(aside / "manifest.json", manifest)
        _swap(aside, target)
    except OSError as error:
        if is_full(error):
            raise disk_full(target) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Store.open(target)


def _swap(aside: Path, target: Path) -> None:
    """Put `aside` in the place of `target`; at every instant one whole store has a name that `prepare` can restore."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(aside, target)
    shutil.rmtree(old, ignore_errors=True)


def recover(root: str | Path, name: str) -> None:
    """After a kill in the middle: give the old store its name back, and remove what dead processes left behind."""
    for folder in dict.fromkeys((folder_of(name), name)):  # the store may lie where an earlier version put it
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
    """Compare a manifest's counts with the card's: "match", "differ" with one line a difference, or "unknown"."""
    if not card.counts or list(card.classes) != manifest["classes"]:
        return {"counts": "unknown", "differences": []}
    found, differences = manifest["counts"], []
    for split in [*card.counts, *(s for s in found if s not in card.counts)]:
        known = card.counts.get(split)
        if known is None:
            differences.append(f"{split}: {sum(found[split])} images of a split the card does not know")
            continue
        for name, have, expected in zip(card.classes, found.get(split, [0] * len(known)), known, strict=True):
            if have != expected:
                differences.append(f"{split}/{name}: {have}, expected {expected}")
    unlabelled = manifest["shape"][0] - sum(map(sum, found.values()))
    if unlabelled != card.unlabelled:
        expected = f", expected {card.unlabelled}" if card.unlabelled else ""
        differences.insert(0, f"{unlabelled} images have no label{expected}")
    return {"counts": "differ" if differences else "match", "differences": differences}


def _write_files(folder: Path, card: DatasetCard, reading: Reading) -> dict[str, Any]:
    pixels, columns, shape = _write_images(folder / "images.npy", reading.chunks())
    table = _table_text(columns)
    write_text(folder / "table.csv", table)
    labels = np.asarray(columns["label"], dtype=np.int64)
    splits = columns["split"]
    classes = list(reading.classes or card.classes)
    if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise StoreError(f"labels {labels.min()} to {labels.max()} do not fit {len(classes)} classes")
    parts = {
        "classes": classes,
        "pixels": pixels,
        "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
        "splits": hashlib.sha256("\n".join(splits).encode()).hexdigest(),
    }
    return {
        "format": FORMAT,
        "dataset": card.name,
        "layout": reading.layout,
        "said": reading.said,
        "classes": classes,
        "shape": [len(labels), *shape],
        "counts": _counts(labels, splits, len(classes)),
        "survey": dict(reading.survey),
        "label_names": [list(pair) for pair in reading.labels.items()],
        "sources": [str(Path(p).resolve()) for p in reading.files],
        "sizes": {n: (folder / n).stat().st_size for n in ("images.npy", "table.csv")},
        "sha256": {n: sha256_file(folder / n) for n in ("images.npy", "table.csv")},
        "parts": parts,
        "fingerprint": hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16],
    }


def _write_images(path: Path, chunks: Iterable[Chunk]) -> tuple[str, dict[str, list], tuple[int, int, int]]:
    """Stream chunks into a ``.npy`` file of a length known only at the end; returns pixel hash, columns and shape."""
    columns: dict[str, list] = {"label": [], "split": [], "source": [], "subject": [], "duplicate": []}
    digest, shape, total = hashlib.sha256(), None, 0
    seen: dict[bytes, int] = {}
    with open(path, "wb") as file:
        file.write(b"\0" * 128)  # the header's place; .npy headers are padded to a multiple of 64
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
            raise StoreError("the source holds no images", where=str(path))
        file.seek(0)
        file.write(_npy_header((total, *shape)))
    return digest.hexdigest(), columns, shape


def _check_chunk(chunk: Chunk, shape: tuple[int, int, int] | None, row: int) -> tuple[int, int, int]:
    images = chunk.images
    if images.dtype != np.uint8 or images.ndim != 4:
        raise StoreError(f"a chunk must be uint8 [k, C, H, W], not {images.dtype} {images.shape}", where=f"row {row}")
    if shape is not None and images.shape[1:] != shape:
        raise StoreError(f"images of {images.shape[1:]} after images of {shape}", where=f"row {row}")
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
    """What the duplicate column tells of pixel-equal images.

    Returns
    -------
    dict
        `distinct` images; `groups` of two or more equal ones; `conflicting` groups with more than one label;
        `by_split`: rows with an equal image earlier in the same split; `across`: for each ordered pair of splits
        (A, B) where A comes first in the store, how many rows of B occur in A.
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
