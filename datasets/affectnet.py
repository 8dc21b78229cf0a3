"""AffectNet: some 290,000 annotated faces from the web in eight classes; its test labels are not public."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_bench import Dataset, DatasetCard, Protocol, Reading

from ._shared.class_names import ClassNames
from ._shared.folders import entries
from ._shared.images import Row, reading
from ._shared.parameters import CLASS_ORDER, IMAGE_PARAMS
from ._shared.search import find_layout
from ._shared.tree import (
    SPLITS,
    Faults,
    TreeImage,
    find_image_tree,
    images_below,
    labelled,
    natural,
    split_named,
    without_repeats,
)

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")  # AffectNet's own numbers
SEVEN = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")

card = DatasetCard(
    name="affectnet",
    title="AffectNet, the images annotated by people",
    classes=CLASSES,
    # no counts: copies differ; the published ones of the 287,651 training images, 283,901 of them without contempt
    shares={"train": (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)},
    orders={
        "FER2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt"),
        "FER+": ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt"),
        "RAF-DB": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral", "contempt"),
        "CK+": ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
        "alphabetical, contempt last": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise", "contempt"),
    },
    layouts={
        "annotations": "train_set|val_set/images/<id>.jpg and annotations/<id>_exp.npy",
        "folders": "train|val/<0..7 or class name>/<id>.jpg",
    },
    protocols=(
        Protocol(
            name="affectnet7",
            train=("train",),
            test=("val",),
            holdout=0.1,
            classes=SEVEN,
            title="seven classes; no public test: the official validation set is reported, 10 % of train selects",
        ),
        Protocol(
            name="affectnet8",
            train=("train",),
            test=("val",),
            holdout=0.1,
            classes=CLASSES,
            title="eight classes; no public test: the official validation set is reported, 10 % of train selects",
        ),
        Protocol(
            name="affectnet7_bestval",
            train=("train",),
            test=("val",),
            val_is_test=True,
            classes=SEVEN,
            select="accuracy",
            watermark="the epoch is chosen on the validation set that is reported",
            title="seven classes; the best epoch on the official validation set, as papers report it",
        ),
    ),
    paper="Mollahosseini, Hasani & Mahoor 2017, AffectNet: a database for facial expression, valence, and arousal"
    " computing in the wild",
    url="http://mohammadmahoor.com/affectnet/",
    licence="research after a signed agreement with the owners; the images must never be redistributed",
    get=(
        "ask the owners for access (http://mohammadmahoor.com/affectnet/), unpack train_set/ and val_set/ into"
        " data/raw/affectnet, then: fer-bench data prepare affectnet"
    ),
    params={
        **IMAGE_PARAMS,
        "classes": CLASS_ORDER,
    },
    image="224x224 RGB",
)

NO_FACE = {8: "none", 9: "uncertain", 10: "no face"}
ANNOTATION = "_exp.npy"


class AffectNet(Dataset):
    """Reads every layout of ``card.layouts``; rows come in the order of split and image id, so both give one store."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout in `source` or at most two folders below it."""
        self.names = ClassNames.of(CLASSES, self.params)
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        if where.is_file():
            return []
        annotated = [f for f in entries(where) if split_named(f.name) and _is_annotated(f)]
        return [self._by_annotations(where, annotated)] if annotated else self._by_folders(where)

    def _by_annotations(self, where: Path, folders: list[Path]) -> Reading:
        faults: Faults = []
        pairs = []
        place = self.names.positions()
        for folder in folders:
            split = split_named(folder.name) or ""
            labels = _annotations(folder / "annotations", faults)
            images = list(images_below(folder / "images", 0))
            for path in images:
                label = labels.get(path.stem)
                if label is None:
                    faults.append((path, f"an image without its annotation {path.stem}{ANNOTATION}"))
                elif label >= 0:
                    pairs.append((TreeImage(path, path.relative_to(where).as_posix(), split, ""), int(place[label])))
            lonely = sorted(labels.keys() - {path.stem for path in images})
            faults += [(folder / "annotations" / f"{name}{ANNOTATION}", "no image for it") for name in lonely]
        read = self._reading("annotations", where, pairs, faults, "labels from annotations/*_exp.npy")
        return replace(read, labels=self.names.by_number())

    def _by_folders(self, where: Path) -> list[Reading]:
        tree = find_image_tree(where)
        inside = [folder.name for _, folder in tree.folders] if tree else []
        names = self.names.counted_as(inside)
        if tree is None or not tree.splits or not any(names.position(name) is not None for name in inside):
            return []
        pairs, faults = labelled(tree, names)
        read = self._reading("folders", where, pairs, faults, "labels from class folders")
        return [replace(read, labels=names.read_as(inside))]

    def _reading(
        self, layout: str, where: Path, labelled_images: Iterable[tuple[TreeImage, int]], faults: Faults, labels: str
    ) -> Reading:
        pairs = list(
            without_repeats(labelled_images, lambda f: (f[0].split, f[0].path.stem), lambda f: f[0].path, faults)
        )
        pairs.sort(key=lambda f: (SPLITS.index(f[0].split), natural(f[0].path.stem)))
        rows = [Row(file=i.path, name=i.path.name, label=label, split=i.split) for i, label in pairs]
        splits = {row.split for row in rows}
        summary = f"{where}: {labels}; split by folder ({', '.join(s for s in SPLITS if s in splits)})"
        if "test" in splits:
            summary += "; the official set has no public test: the protocols leave the test folder out"
        return reading(self, layout, summary, rows, faults=faults)


def _is_annotated(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "annotations").is_dir()


def _annotations(folder: Path, faults: Faults) -> dict[str, int]:
    """Label by image id, from the files ``<id>_exp.npy``; -1 where the file is a fault, which is noted."""
    labels = {}
    for path in entries(folder):
        if path.name.endswith(ANNOTATION):
            value = _expression(path)
            labels[path.name.removesuffix(ANNOTATION)] = value if isinstance(value, int) else -1
            if isinstance(value, str):
                faults.append((path, value))
    return labels


def _expression(path: Path) -> int | str:
    """The class in an annotation, or what is wrong with it."""
    try:
        with open(path, "rb") as file:
            number = float(np.lib.format.read_array(file, allow_pickle=False).item())
    except Exception as error:  # a damaged header can raise nearly anything, TokenError and SystemError included
        reason = str(error).strip().split("\n")[0][:80]
        return f"unreadable annotation: {reason or type(error).__name__}"
    if number in range(len(CLASSES)):
        return int(number)
    name = f" ({NO_FACE[int(number)]})" if number in NO_FACE else ""
    return f"unknown expression: {number:g}{name}, expected 0 {CLASSES[0]} .. {len(CLASSES) - 1} {CLASSES[-1]}"
