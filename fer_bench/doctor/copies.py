"""The copies in a store: looked for once, kept in a file, and read from it by every run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from fer_bench.contract.cards import DatasetCard
from fer_bench.data.copies import Copies, first_of_each, load_copies, save_copies
from fer_bench.data.store import Store
from fer_bench.doctor.near_duplicates import Progress, no_progress
from fer_bench.doctor.patient import Patient
from fer_bench.errors import FerBenchError

MOST = 100_000  # images; the search compares all pairs, and takes minutes on so many


def copies_of(patient: Patient) -> Copies:
    """The copies in a store; near copies are looked for unless :func:`reason_for_exact_only` says why not."""
    exact = first_of_each(patient.exact)
    reason = reason_for_exact_only(patient)
    return Copies(exact, exact if reason else first_of_each(patient.near), reason)


def reason_for_exact_only(patient: Patient) -> str:
    """Why only identical images count as copies in this store; empty where near copies count too."""
    if patient.card.built_in:
        return "the images are drawn by a program, so images that look alike are no copies"
    if len(patient.store) > MOST:
        return f"the store has more than {MOST:,} images"
    if patient.crowded:
        return "so many images look alike, with nobody named, that copies can't be told from pictures of one person"
    return ""


def known_copies(
    store: Store, card: DatasetCard, folder: Path, announce: Callable[[], Progress] = lambda: no_progress
) -> Copies:
    """The copies in a store, from the folder of its derived files, or else looked for and written there.

    Parameters
    ----------
    folder : Path
        See :meth:`fer_bench.record.home.Home.splits`.
    announce : callable
        Called if near copies have to be looked for, which takes half a minute for 36,000 images; returns the function
        that is told of progress.
    """
    patient = Patient(store, card)
    exact = first_of_each(patient.exact)
    if known := load_copies(folder, exact):
        return known
    if not card.built_in and len(store) <= MOST:
        patient.progress = announce()
    copies = copies_of(patient)
    with contextlib.suppress(OSError, FerBenchError):  # in a home that can't be written, every run looks for itself
        save_copies(folder, copies)
    return copies
