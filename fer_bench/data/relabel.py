"""Finding the labels that another data set gives to the same images.

Images are the same where their pixels are. Where an image occurs several times, its copies are matched in order, if
both data sets have as many of them; otherwise nobody can say which is which, and they are left out.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from fer_bench.contract.cards import DatasetCard
from fer_bench.data.store import Store
from fer_bench.errors import DataError
from fer_bench.record.home import Home
from fer_bench.record.relabelled import Relabelled, is_current, read_relabelled, write_relabelled

BLOCK = 4096  # images read at once


def keep_labels(home: Home, store: Store, other: Store, card: DatasetCard) -> tuple[Relabelled, bool]:
    """The labels that `other` has for the images of `store`, in the home's ledger; and whether they are new there."""
    ledger, known = home.ledger.root, source_of(other)
    if is_current(ledger, store.fingerprint, card.name, known):
        return read_relabelled(ledger, store.fingerprint, card.name), False
    found = relabel(store, other, card)
    write_relabelled(ledger, store.fingerprint, found)
    return found, True


def source_of(other: Store) -> dict[str, str]:
    """What tells one state of a store's labels from another: votes are not part of its fingerprint."""
    return {"fingerprint": other.fingerprint, "table": other.manifest["sha256"]["table.csv"]}


def relabel(store: Store, other: Store, card: DatasetCard) -> Relabelled:
    """The labels and votes that `other`, the store of `card`, has for the images of `store`.

    Raises
    ------
    DataError
        The card does not say that it labels other images anew, or the stores have no image in common.
    """
    relabels = card.relabels
    if relabels is None:
        raise DataError(f"'{card.name}' does not label the images of another data set", hint="see fer-bench show NAME")
    place = matching_rows(store, other)
    rows = np.flatnonzero(place >= 0)
    if not len(rows):
        raise DataError(
            f"'{card.name}' has none of these images: no two have the same pixels",
            where=f"{store.path} and {other.path}",
            hint="both must be prepared from the same files; copies saved as JPEG have other pixels",
        )
    columns = other.columns(*dict.fromkeys([relabels.label, *relabels.votes.values()]))
    votes = [columns[column][place[rows]] for column in relabels.votes.values()]
    return Relabelled(
        name=card.name,
        title=relabels.title,
        rule=relabels.rule,
        classes=tuple(relabels.names.get(name, name) for name in other.classes),
        answers=tuple(relabels.votes),
        rows=rows,
        labels=columns[relabels.label][place[rows]].astype(np.int64),
        votes=np.stack(votes, axis=1) if votes else np.zeros((len(rows), 0), np.int64),
        images=len(store),
        source=source_of(other),
    )


def matching_rows(store: Store, other: Store) -> np.ndarray:
    """The row of `other` with the same image as each row of `store`, int64 [N]; -1 where there is none to be told."""
    if store.manifest["parts"]["pixels"] == other.manifest["parts"]["pixels"] and store.shape == other.shape:
        return np.arange(len(store))
    mine, theirs = _rows_by_image(store), _rows_by_image(other)
    place = np.full(len(store), -1, dtype=np.int64)
    for image, rows in mine.items():
        if len(rows) == len(theirs.get(image, ())):
            place[rows] = theirs[image]
    return place


def _rows_by_image(store: Store) -> dict[bytes, list[int]]:
    """Rows by the hash of their image and its shape, ascending."""
    found: dict[bytes, list[int]] = defaultdict(list)
    shape = repr(store.shape).encode()
    for start in range(0, len(store), BLOCK):
        images = store.images(np.arange(start, min(start + BLOCK, len(store))))
        for k, image in enumerate(images, start):
            found[hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest()].append(k)
    return found
