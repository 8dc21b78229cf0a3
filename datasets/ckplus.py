"""CK+: peak frames of posed expressions in seven classes, from the original sequences or from three 48x48 forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Param, Protocol, Reading

from ._ckplus.arrays import CSV_CLASSES, hdf5, pixels_csv
from ._ckplus.frames import ALL, CLASSES, EMOTIONS, NEUTRAL, Candidate, find_folders, find_original, folders, original
from ._shared.class_names import ClassNames
from ._shared.folders import entries
from ._shared.images import reading
from ._shared.parameters import CLASS_ORDER, FIT, IMAGE_PARAMS
from ._shared.pixels_csv import describe, sniff
from ._shared.protocols import SUBJECT10
from ._shared.search import find_layout
from ._shared.text import ENDINGS, tables_in

card = DatasetCard(
    name="ckplus",
    title="CK+ (extended Cohn-Kanade): 327 labelled sequences of 118 subjects, three peak frames each",
    classes=("anger", "disgust", "fear", "happy", "sadness", "surprise", "contempt"),
    counts={"all": (135, 177, 75, 207, 84, 249, 54)},
    orders={
        "the original": ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"),
        "FER2013": ("anger", "disgust", "fear", "happy", "sadness", "surprise", "contempt"),
    },
    sequence=3,
    layouts={
        "original": "cohn-kanade-images/S005/001/S005_001_00000011.png + Emotion/S005/001/*_emotion.txt (one number)",
        "folders48": "CK+48/<class>/S010_004_00000017.png, also below train/ and test/",
        "hdf5": "CK_data.h5: data_pixel uint8 [n, 48, 48] and data_label 0 .. 6 (no subjects)",
        "csv": "ckextended.csv: emotion, pixels, Usage, labels 0 .. 7 (one frame a sequence, no subjects)",
    },
    protocols=(
        SUBJECT10,
        Protocol(
            name="wujie10",
            scheme="blocks",
            folds=10,
            take=(12, 18, 9, 21, 9, 24, 6),
            val_is_test=True,
            select="accuracy",
            title="ten blocks of rows, class by class; not a partition",
            watermark="subjects lie in training and test, and the epoch is chosen on the test folds",
            source="WuJie1010/Facial-Expression-Recognition.Pytorch, CK.py",
        ),
        Protocol(
            name="frame_random",
            scheme="shuffle",
            shares=(0.6, 0.2, 0.2),
            folds=10,
            title="ten random divisions of the frames",
            watermark="frames of one sequence lie in training and test",
            source="FER-crossval",
        ),
    ),
    paper="Lucey et al. 2010, The extended Cohn-Kanade dataset (CK+)",
    url="https://doi.org/10.1109/CVPRW.2010.5543262",
    licence="the owners' agreement must be signed; the images must never be redistributed",
    get=(
        "sign the agreement of the owners (http://www.pitt.edu/~emotion/ck-spread.htm), unpack cohn-kanade-images and"
        " Emotion_labels side by side in data/raw/ckplus, then: fer-bench data prepare ckplus"
    ),
    params={
        **IMAGE_PARAMS,
        "fit": replace(FIT, default="crop"),
        "frames": Param(3, "last frames of each labelled sequence that are taken (the peak)", low=1, high=100),
        "neutral": Param(False, "also take the first frame of each sequence as class neutral (an eighth class)"),
        "ck_csv": Param(False, "read a FER2013-like CSV as ckextended.csv"),
        "classes": CLASS_ORDER,
    },
    image="48x48 grey; 640x490 grey or colour in the original",
)


class CkPlus(Dataset):
    """Reads every layout of ``card.layouts``; class folders and HDF5 of the same frames give the same store."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout in `source` or at most two folders below it."""
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        candidates = self._files(where, seen)
        if where.is_dir():
            trees = find_original(where, seen)
            if trees:
                candidates.append(
                    original(*trees, self.params["frames"], self.params["neutral"], self._numbered(EMOTIONS))
                )
            candidates += [folders(parts, self.params["neutral"]) for parts in find_folders(where)]
        return [self._reading(c) for c in candidates]

    def _files(self, where: Path, seen: list[str]) -> list[Candidate]:
        """The arrays that the file `where` is, or that lie in that folder."""
        paths = [p for p in ([where] if where.is_file() else entries(where)) if p.is_file()]
        arrays = [p for p in paths if p.suffix.lower() in (".h5", ".hdf5")]
        seen += [describe(sniff(p)) for p in paths if p.suffix.lower() in ENDINGS[0] and sniff(p).kind != "usage"]
        tables = [sniff(p) for p in tables_in(where, lambda p: p not in arrays and sniff(p).kind == "usage")]
        candidates = [hdf5(path, self._numbered(CLASSES), seen) for path in arrays]
        numbered = self._numbered(CSV_CLASSES)
        candidates += [pixels_csv(t, self.params["neutral"], self.params["ck_csv"], numbered, seen) for t in tables]
        return [c for c in candidates if c is not None]

    def _numbered(self, official: Sequence[str]) -> ClassNames:
        """The classes of a form with these official numbers, or in the order of the parameter `classes`."""
        return ClassNames.of(ALL, self.params, numbered=official)

    def _reading(self, candidate: Candidate) -> Reading:
        """Rows in canonical order: class, subject, sequence, frame; without names, as the source has them."""
        neutral = self.params["neutral"]
        if neutral and not any(row.label == NEUTRAL for row in candidate.rows):
            raise DataError("there are no neutral images", where=candidate.summary, hint="leave neutral at false")
        rows = sorted(candidate.rows, key=lambda r: (r.label, r.extra["sequence"], r.extra["frame"]))
        classes = (*self.card.classes, "neutral") if neutral else ()
        made = reading(self, candidate.layout, candidate.summary, rows, faults=candidate.faults, classes=classes)
        return replace(made, files=[*candidate.files, *made.files], labels=candidate.labels)
