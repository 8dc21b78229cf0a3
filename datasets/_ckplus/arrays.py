"""CK+ as arrays: the HDF5 file and the CSV, both of 48x48 grey faces without names of subjects."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_bench import DataError, Problems, missing_library

from .._shared.class_names import ClassNames
from .._shared.images import Row
from .._shared.pixels_csv import PixelCsv, read_rows
from .frames import NEUTRAL, SPLIT, Candidate, Faults

if TYPE_CHECKING:
    import h5py

SIDE = 48
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_SHA256 = "ec21b482361c35136c095e9360757d1554da6284f34947ea1cf2c8ec89733666"  # the published CK_data.h5
CSV_CLASSES = ("anger", "disgust", "fear", "happy", "sadness", "surprise", "neutral", "contempt")
CSV_USAGES = ("Training", "PublicTest", "PrivateTest")
NO_SUBJECTS = "no subjects and no sequences, so protocols by subject can't be used"


def hdf5(path: Path, numbered: ClassNames, seen: list[str]) -> Candidate | None:
    """The arrays `data_pixel` and `data_label` of an HDF5 file; None, with the reason in `seen`, where it has none.

    Raises
    ------
    DataError
        It is an HDF5 file but h5py is missing, or the arrays are not of the right shape and type.
    """
    with open(path, "rb") as file:
        if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
            seen.append(f"{path.name} (no HDF5 file)")
            return None
    try:
        import h5py
    except ImportError as error:
        raise missing_library(
            "HDF5 files need h5py", error, install="'fer-bench[hdf5]'", kind=DataError, where=str(path)
        ) from error
    try:
        with h5py.File(path, "r") as file:
            pixels, labels = (file.get(name) for name in ("data_pixel", "data_label"))
            if not isinstance(pixels, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
                seen.append(f"{path.name} (HDF5 with {', '.join(file) or 'nothing'})")
                return None
            _check(path, pixels, labels)
            return _from_arrays(path, pixels[:], labels[:], numbered)
    except OSError as error:
        seen.append(f"{path.name} (a damaged HDF5 file: {str(error).split(chr(10))[0][:80]})")
        return None


def _check(path: Path, pixels: h5py.Dataset, labels: h5py.Dataset) -> None:
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (SIDE, SIDE):
        shape = list(pixels.shape)
        raise DataError(f"data_pixel is {pixels.dtype} {shape}, expected uint8 [n, {SIDE}, {SIDE}]", where=str(path))
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        shape = list(labels.shape)
        raise DataError(f"data_label is {labels.dtype} {shape}, expected integers [{len(pixels)}]", where=str(path))


def _from_arrays(path: Path, pixels: np.ndarray, labels: np.ndarray, numbered: ClassNames) -> Candidate:
    known = hashlib.sha256(path.read_bytes()).hexdigest() == HDF5_SHA256
    rows: list[Row] = []
    faults: Faults = []
    place, expected = numbered.positions(), f"0 {numbered.numbered[0]} .. 6 {numbered.numbered[-1]}"
    for k, label in enumerate(labels.tolist()):
        if 0 <= label < NEUTRAL:
            rows.append(_row(pixels[k], k, int(place[label])))
        else:
            faults.append((f"{path}, row {k}", f"the label is out of range: {label}, expected {expected}"))
    which = "the known file by its SHA-256" if known else "NOT the known file: its SHA-256 differs"
    summary = f"{path}: arrays data_pixel and data_label, {which}; {NO_SUBJECTS}"
    return Candidate(
        layout="hdf5", summary=summary, rows=rows, faults=faults, files=[path], labels=numbered.by_number()
    )


def pixels_csv(table: PixelCsv, neutral: bool, forced: bool, numbered: ClassNames, seen: list[str]) -> Candidate | None:
    """The rows of a CSV with CK+'s labels; None, with the reason in `seen`, where it may as well be FER2013's.

    Its header is that of fer2013.csv; what tells it is the label 7, contempt. `forced` takes it without one.
    """
    if not forced and not _has_contempt(table):
        seen.append(f"{table.path.name} (as FER2013's, without label 7: is it CK+? then --dataset-set ck_csv=true)")
        return None
    problems = Problems(lenient=True)
    rows, dropped, place = [], 0, numbered.positions()
    for block in read_rows(table, SIDE * SIDE, numbered.numbered, CSV_USAGES, problems):
        images = block.pixels.reshape(-1, SIDE, SIDE)
        for number, image, value, usage in zip(block.numbers, images, block.labels, block.usages, strict=True):
            label = int(place[value])
            if label == NEUTRAL and not neutral:
                dropped += 1
            else:
                rows.append(_row(image, number, label, usage=usage))
    faults: Faults = [(f"{f}, row {row}" if row is not None else f, why) for f, row, why in problems.rows]
    summary = f"{table.path}: {table.summary}; the Usage column is kept but no split; {NO_SUBJECTS}"
    if dropped:
        summary += f"; {dropped} neutral rows are left out (neutral=true keeps them)"
    labels = numbered.by_number()
    return Candidate(layout="csv", summary=summary, rows=rows, faults=faults, files=[table.path], labels=labels)


def _has_contempt(table: PixelCsv) -> bool:
    return CSV_CLASSES.index("contempt") in table.labels()


def _row(image: np.ndarray, number: int, label: int, **extra: str) -> Row:
    """A row whose file is the image as uncompressed PGM, so that size and fit are treated as those of image files."""
    file = b"P5 %d %d 255\n" % image.shape[::-1] + image.tobytes()
    return Row(file=file, name=str(number), label=label, split=SPLIT, extra={"sequence": "", "frame": -1, **extra})
