"""What a node needs to carry out runs without the driver's disk: the prepared data, and folders of plug-ins."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench.base.quantities import plural
from fer_bench.data import clean_manifest, copies
from fer_bench.data.store import Store
from fer_bench.errors import ClusterError
from fer_bench.record.home import Home

DERIVED = (clean_manifest.NAME, clean_manifest.PROOF, copies.NAME)  # what a run reads of a store's derived files
MOST_BYTES, MOST_FILES = 64 << 20, 5000  # of a folder of plug-ins


@dataclass(frozen=True, eq=False)
class Parcel:
    """Files on their way to a node.

    Attributes
    ----------
    digest : str
        Hash of all names and contents.
    files : dict of str to uint8 [bytes]
        By their places, with forward slashes, below the folder that they are unpacked in. Large files are mapped, not
        read.
    """

    digest: str
    files: dict[str, np.ndarray]


def data_parcel(home: Home, dataset: str) -> Parcel:
    """The store of a data set and what was derived from it, at their places in a home."""
    store = Store.open(home.store(dataset))
    derived = home.splits(store.path.name, store.fingerprint)
    paths = [store.path / name for name in (*store.manifest["sha256"], "manifest.json")]
    return _packed(home.root, [*paths, *(p for name in DERIVED if (p := derived / name).is_file())])


def plugin_parcel(folders: Sequence[str], home: Home) -> Parcel | None:
    """Folders of plug-ins, numbered; None if there are none.

    Hidden files, virtual environments, and what lies in the home of the command stay behind.

    Raises
    ------
    ClusterError
        A folder holds so much that it must be a folder of other things as well.
    """
    files: dict[str, np.ndarray] = {}
    digest = hashlib.sha256()
    for number, folder in enumerate(map(Path, folders)):
        paths = list(_files_below(folder, home))
        size = sum(p.stat().st_size for p in paths)
        if len(paths) > MOST_FILES or size > MOST_BYTES:
            raise ClusterError(
                f"the plug-in folder holds {plural(len(paths), 'file')} with {size >> 20:,} MiB, too much to be sent "
                f"to every node (at most {MOST_FILES:,} files and {MOST_BYTES >> 20} MiB)",
                where=f"--plugins {folder}",
                hint="keep plug-ins in a folder of their own, or install them as a package on every node",
            )
        parcel = _packed(folder, paths)
        digest.update(parcel.digest.encode())
        files |= {f"{number}/{name}": content for name, content in parcel.files.items()}
    return Parcel(digest.hexdigest()[:16], files) if folders else None


def unpack(files: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write the files of a parcel below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.data)


def _packed(root: Path, paths: Sequence[Path]) -> Parcel:
    files = {p.relative_to(root).as_posix(): _content(p) for p in sorted(paths)}
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content.data)
    return Parcel(digest.hexdigest()[:16], files)


def _content(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _files_below(folder: Path, home: Home) -> Iterator[Path]:
    """What may be code of plug-ins or be read by it."""
    others = {p.resolve() for p in (home.data, home.ledger.root, home.results("x").parent, home.tuning)}
    for place, inner, names in os.walk(folder):
        here = Path(place)
        inner[:] = [
            name
            for name in inner
            if not name.startswith((".", "__pycache__"))
            and (here / name).resolve() not in others
            and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if not name.startswith(".") and (here / name).is_file())
