"""Other labels for the images that runs were tested on, kept in the ledger beside the runs.

::

    ledger/labels/<fingerprint>/<data set>/
      rows.npy     int [n]: rows of the scored store, ascending; images without a counterpart are left out
      labels.npy   int [n]: positions in `classes`, -1 for none
      votes.npy    int [n, K]: votes for each of `answers`
      about.json   names, the store they came from, and a hash of every array; written last

They belong to a state of the data (its fingerprint) and not to a run, so finished records stay as they are, and a
report scores every run on these data with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.base.files import read_array, read_json, sha256_file, write_array, write_json
from fer_bench.base.names import DATASET, RUN, checked, locate, name_of
from fer_bench.errors import LedgerError
from fer_bench.printable import printable_data

FORMAT = 1
ARRAYS = ("rows", "labels", "votes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Relabelled:
    """The labels and votes of another data set for the same images.

    Attributes
    ----------
    name, title : str
        The data set that they come from, and what tables call its labels.
    rule : str
        What makes a label, in a few words; may be empty.
    classes : tuple of str
        Its classes; those that the scored data set has too by the names that they have there.
    answers : tuple of str
        What annotators could vote for, in the same spelling; empty where there are no votes.
    rows : int64 [n]
        Rows of the scored store, ascending.
    labels : int64 [n]
        Positions in `classes`, -1 for an image without a label.
    votes : int64 [n, K]
        Votes for each of `answers`.
    images : int
        Number of images of the scored store.
    source : dict
        What the labels were read from: the store's `fingerprint`, and the SHA-256 of its `table`.
    """

    name: str
    title: str
    rule: str
    classes: tuple[str, ...]
    answers: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    votes: np.ndarray
    images: int
    source: dict[str, str]


def labels_folder(ledger: Path) -> Path:
    """Where a ledger keeps other labels. No method may read it."""
    return ledger / "labels"


def _folder(ledger: Path, fingerprint: str, name: str) -> Path:
    return locate(_of(ledger, fingerprint), checked(name, DATASET, error=LedgerError))


def _of(ledger: Path, fingerprint: str) -> Path:
    return labels_folder(ledger) / checked(fingerprint, RUN, error=LedgerError)


def write_relabelled(ledger: Path, fingerprint: str, found: Relabelled) -> Path:
    """Write other labels for the data of this fingerprint, in place of earlier ones; returns their folder."""
    folder = _folder(ledger, fingerprint, found.name)
    for name in ARRAYS:
        array = getattr(found, name)
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        kind = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
        write_array(folder / f"{name}.npy", array.astype(kind))
    about: dict[str, Any] = {"format": FORMAT, "name": found.name, "title": found.title, "rule": found.rule}
    about |= {"classes": list(found.classes), "answers": list(found.answers), "images": found.images}
    about |= {"source": found.source, "sha256": {f"{n}.npy": sha256_file(folder / f"{n}.npy") for n in ARRAYS}}
    write_json(folder / "about.json", about)
    return folder


def relabelled_names(ledger: Path, fingerprint: str) -> list[str]:
    """The data sets that give other labels for the data of this fingerprint."""
    folder = _of(ledger, fingerprint)
    found = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(name_of(name) for name in found if (folder / name / "about.json").is_file())


def is_current(ledger: Path, fingerprint: str, name: str, source: dict[str, str]) -> bool:
    """Whether the labels that this data set gives now are in the ledger already, unharmed."""
    try:
        return read_relabelled(ledger, fingerprint, name).source == source
    except LedgerError:
        return False


def read_relabelled(ledger: Path, fingerprint: str, name: str) -> Relabelled:
    """Other labels for the data of this fingerprint.

    Raises
    ------
    LedgerError
        They are missing or damaged.
    """
    folder = _folder(ledger, fingerprint, name)
    try:
        about = printable_data(read_json(folder / "about.json"))
        if about["format"] != FORMAT:
            raise ValueError(f"they have the format {about['format']!r}, expected {FORMAT}")
        for array in ARRAYS:
            path = folder / f"{array}.npy"
            if path.is_symlink() or sha256_file(path) != about["sha256"][path.name]:
                raise ValueError(f"{path.name} has changed since it was written")
        arrays = {a: read_array(folder / f"{a}.npy").astype(np.int64) for a in ARRAYS}
        found = Relabelled(
            name=name, title=_text(about["title"]), rule=_text(about["rule"]), classes=_texts(about["classes"]),
            answers=_texts(about["answers"]), images=int(about["images"]),
            source={str(k): str(v) for k, v in about["source"].items()}, **arrays,
        )  # fmt: skip
        _check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        what = f"the labels of '{name}' can't be read: {error}"
        raise LedgerError(what, where=str(folder), next=f"fer-bench relabel --from {name}") from error
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _check(found: Relabelled) -> None:
    """Raise ValueError unless the arrays fit each other and the names."""
    n, rows, labels = len(found.rows), found.rows, found.labels
    if rows.ndim != 1 or labels.shape != (n,) or found.votes.shape != (n, len(found.answers)):
        raise ValueError(f"rows {rows.shape}, labels {labels.shape} and votes {found.votes.shape} do not fit")
    if n and (rows[0] < 0 or (np.diff(rows) <= 0).any()):
        raise ValueError("its rows are not in order")
    if n and not -1 <= labels.min() <= labels.max() < len(found.classes):
        raise ValueError(f"its labels lie outside -1 to {len(found.classes) - 1}")
    if found.votes.size and found.votes.min() < 0:
        raise ValueError("it has negative votes")
