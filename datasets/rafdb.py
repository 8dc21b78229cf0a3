"""RAF-DB (basic): 15,339 aligned faces of 100x100 pixels in seven classes, from any form in which people hold it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Protocol, Reading

from ._rafdb.files import (
    Face,
    face_of,
    find_faces,
    find_lists,
    join,
    layout_of,
    misplaced,
    name_of,
    order_of,
    prefer_aligned,
    split_of,
    unique,
)
from ._shared.class_names import ClassNames
from ._shared.images import Row, reading
from ._shared.parameters import CLASS_ORDER, IMAGE_PARAMS, SIZE
from ._shared.protocols import HOLDOUT10
from ._shared.search import contents, find_layout
from ._shared.tree import Faults, find_image_tree, labelled

card = DatasetCard(
    name="rafdb",
    title="RAF-DB, basic emotions (Real-world Affective Faces)",
    classes=("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    counts={
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    },
    orders={
        "FER2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
        "FER+": ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear"),
        "AffectNet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    },
    layouts={
        "original": "EmoLabel/list_patition_label.txt and Image/aligned/train_00001_aligned.jpg, or both in one folder",
        "kaggle": "DATASET/train|test/1..7/*_aligned.jpg with train_labels.csv and test_labels.csv (image, label)",
        "flat": "images in train|test folders without class folders, and a list or CSVs of image and label",
        "apvit": "train/ and valid/, flat with a label list or in class folders; the test images lie in valid/",
        "folders": "train|test|valid/<class name or 1..7>/<image>",
    },
    protocols=(
        replace(HOLDOUT10, title="a stratified 10 % of train selects, test is reported (RAF-DB has no validation set)"),
        Protocol(
            name="paper_besttest",
            train=("train",),
            test=("test",),
            val_is_test=True,
            select="accuracy",
            watermark="the epoch is chosen on the test set, as the papers' code does",
            title="train on all of train, report the best epoch on test",
        ),
    ),
    paper="Li, Deng & Du 2017, Reliable crowdsourcing and deep locality-preserving learning for expression recognition"
    " in the wild",
    url="http://www.whdeng.cn/RAF/model1.html",
    licence="non-commercial research after a signed agreement with the owners; the images must never be redistributed",
    get=(
        "ask the owners for access (http://www.whdeng.cn/RAF/model1.html: a signed agreement, sent from an academic"
        " address), unpack EmoLabel/ and Image/aligned/ of the basic set into data/raw/rafdb,"
        " then: fer-bench data prepare rafdb"
    ),
    params={
        **IMAGE_PARAMS,
        "size": replace(SIZE, default=100),
        "classes": CLASS_ORDER,
    },
    image="100x100 RGB",
)

OFFICIAL_LIST = "3890ab2daf1f2cf8b642197be016e643895faa8295dd83620d0a6a535fa0c1c3"  # SHA-256


class RafDb(Dataset):
    """Reads every layout of ``card.layouts``; rows come in the order of split and number, so all give one store."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout in `source` or at most two folders below it."""
        self.names = ClassNames.of(self.card.classes, self.params, first=1)
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        if where.is_file():
            return []
        lists = find_lists(where)
        return self._by_lists(where, lists, seen) if lists else self._by_folders(where, seen)

    def _number(self, folder: str) -> int | None:
        """RAF-DB's number, from 0, of what a class folder holds: the lists that it must agree with have numbers."""
        position = self.names.position(folder)
        return None if position is None else self.names.numbered.index(self.card.classes[position])

    def _by_lists(self, where: Path, lists: Sequence[Path], seen: list[str]) -> list[Reading]:
        """Labels from lists; a class folder, where there is one, must agree."""
        faces, originals = prefer_aligned(find_faces(where, self._number))
        names = ", ".join(p.relative_to(where).as_posix() for p in lists)
        if not faces:
            seen.append(f"{where.name}/ with the labels {names}, but no images below it")
            return []
        faults: Faults = []
        place = self.names.positions()
        pairs = [(face, int(place[number])) for face, number in join(faces, lists, faults)]
        official = any(_sha256(p) == OFFICIAL_LIST for p in lists)
        summary = f"{where}: labels from {names}{' (the official list)' if official else ''}; split by file name"
        if originals:
            summary += f"; {originals} originals of aligned images left unread"
        read = self._reading(layout_of(faces, lists), summary, where, pairs, faults, lists)
        return [replace(read, labels=self.names.by_number())]

    def _by_folders(self, where: Path, seen: list[str]) -> list[Reading]:
        """Labels from class folders alone."""
        tree = find_image_tree(where)
        inside = [folder.name for _, folder in tree.folders] if tree else []
        names = self.names.counted_as(inside)
        if tree is None or not any(names.position(name) is not None for name in inside):
            return []
        known, faults = labelled(tree, names)
        faces = [face_of(image.path, image.split, label) for image, label in known]
        nameless = [face.path for face in faces if face.key is None]
        if nameless and not tree.splits:
            seen.append(f"{contents(where)}: class folders, but no split folders and no names train_*, test_*")
            return []
        if nameless and {"val", "test"} <= set(tree.splits):
            raise DataError(
                "it can't be told whether the validation folder holds training or test images of RAF-DB",
                where=f"{nameless[0]} and {len(nameless) - 1} more have no name train_<number> or test_<number>",
                hint="RAF-DB has train and test alone: leave one of the two folders out, or use the data set 'folder'",
                next=f"fer-bench data prepare folder:rafdb --from {shlex.quote(str(where))}",
            )
        pairs = [(face, face.label) for face in unique(faces, faults) if face.label is not None]
        how = "folder" if len(nameless) == len(faces) else "file name" if not nameless else "file name or folder"
        summary = f"{where}: class folders; split by {how}; no label list to check them against"
        lies_in_valid = any(face.split == "val" and face.key for face in faces)
        read = self._reading("apvit" if lies_in_valid else "folders", summary, where, pairs, faults, ())
        return [replace(read, labels=names.read_as(inside))]

    def _reading(
        self,
        layout: str,
        summary: str,
        where: Path,
        pairs: list[tuple[Face, int]],
        faults: Faults,
        lists: Sequence[Path],
    ) -> Reading:
        pairs = sorted(pairs, key=lambda pair: order_of(*pair))
        rows = [
            Row(
                file=face.path,
                name=name_of(face.key) if face.key else face.path.relative_to(where).as_posix(),
                label=label,
                split=split_of(face),
            )
            for face, label in pairs
        ]
        faces = [face for face, _ in pairs]
        read = reading(self, layout, summary + misplaced(faces), rows, faults=faults, files=lists)
        if all(face.aligned for face in faces) or set(read.survey["sizes"]) == {"100x100"}:
            return replace(read, summary=f"{read.summary}; aligned")
        warning = "; NOT ALIGNED as the official images are (no _aligned in the names, other sizes than 100x100)"
        return replace(read, summary=f"{read.summary}{warning}: results do not compare")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
