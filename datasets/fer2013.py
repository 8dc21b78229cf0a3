"""FER2013: 35,887 grey faces of 48x48 pixels in seven classes, from any form in which people hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_bench import Chunk, DataError, Dataset, DatasetCard, Fetch, Protocol, Reading

from ._fer2013.folders import ROLE_SPLITS, Placed, place
from ._shared.class_names import ClassNames
from ._shared.folders import entries, find_tree, load_blocks
from ._shared.parameters import CLASS_ORDER
from ._shared.pixels_csv import PixelCsv, describe, read_rows, sniff
from ._shared.search import find_layout
from ._shared.text import ENDINGS, tables_in

card = DatasetCard(
    name="fer2013",
    title="FER2013 (ICML 2013 facial expression recognition challenge)",
    classes=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    counts={
        "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
        "PublicTest": (467, 56, 496, 895, 653, 415, 607),
        "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
    },
    layouts={
        "csv": "one table with columns emotion, pixels, Usage (fer2013.csv)",
        "icml": "one table with the same columns in another order (icml_face_data.csv: emotion, Usage, pixels)",
        "csv_splits": "train.csv, val.csv and test.csv, each with columns emotion, pixels",
        "kaggle": "the competition's pair: train.csv (emotion, pixels) and test.csv (pixels: no labels)",
        "folders": "train|validation|test/<class or 0..6>/<Usage>_<row>.png or .jpg",
        "folders_numbered": "train|test/<class>/im<k>.png; in test each class has its PublicTest images first",
        "folders_validation": "train|validation[|test]/<class>/<n>.jpg",
    },
    orders={
        "FER+": ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear"),
        "RAF-DB": ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
        "AffectNet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    },
    digests={
        "pixels": "c267d81af4fae7bced50ff1be0ce06f7d14fb05887ece2efe39e04c35f8558b1",
        "labels": "c68d29e1eafe873ffa8486b14fbd56c24506327d0d68b5b65e1e6e6d68c31a53",
    },
    protocols=(
        Protocol(
            name="official",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            title="train on Training, select on PublicTest, report PrivateTest",
            source="Goodfellow et al. 2013",
        ),
        Protocol(
            name="khaireddin21",
            train=("Training",),
            val=("PrivateTest",),
            test=("PublicTest",),
            select="accuracy",
            title="the public parts swapped: select on PrivateTest, report PublicTest",
            source="Khaireddin & Chen 2021, arXiv 2105.03588; usef-kh/fer, data/fer2013.py",
        ),
        Protocol(
            name="lethesec21",
            train=("Training",),
            test=("PrivateTest",),
            val_is_test=True,
            select="accuracy",
            watermark="the epoch is chosen on the test set",
            title="the best epoch on PrivateTest is reported",
            source="LetheSec/Fer2013-Facial-Emotion-Recognition-Pytorch, dataset.py and train.py",
        ),
        Protocol(
            name="wujie18",
            train=("Training",),
            test=("PrivateTest",),
            val_is_test=True,
            select="accuracy",
            watermark="the epoch is chosen on the test set",
            title="the best epoch on PrivateTest is reported, as for its 73.112 %",
            source="WuJie1010/Facial-Expression-Recognition.Pytorch, mainpro_FER.py",
        ),
        Protocol(
            name="folder7178",
            train=("Training",),
            test=("PublicTest", "PrivateTest"),
            holdout=0.1,
            title="the class folders' test, both public parts together; 10 % of Training selects",
            source="frickichens/CV-Project-HUST; which 10 % they took is not known, ours are drawn class by class",
        ),
        Protocol(
            name="shuffle60-20-20x10",
            scheme="shuffle",
            shares=(0.6, 0.2, 0.2),
            folds=10,
            title="all images divided at random, ten times; equal images fall into different parts",
            source="StevenHSKim/FER-crossval; their divisions are not published, ours are drawn class by class",
        ),
    ),
    paper="Goodfellow et al. 2013, Challenges in representation learning: a report on three machine learning contests",
    url="https://arxiv.org/abs/1307.0414",
    licence="no statement by the owners was found; cite Goodfellow et al. 2013 and do not redistribute the images",
    get=(
        "Kaggle, 'Challenges in Representation Learning: Facial Expression Recognition Challenge'"
        " (https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge):"
        " take icml_face_data.csv or fer2013.csv (in fer2013.tar.gz), put it into data/raw/fer2013,"
        " then: fer-bench data prepare fer2013"
    ),
    fetch=(
        Fetch(
            kind="kaggle_competition",
            ref="challenges-in-representation-learning-facial-expression-recognition-challenge",
            files=("icml_face_data.csv",),
            sha256={"icml_face_data.csv": "2c7ce224ef03ec2e2e522d10b93a069900b26fa1c028174d91d5f1f8013a2884"},
            licence="no licence by the owners is known; you accept the competition's rules with your Kaggle account",
        ),
    ),
    params={
        "classes": CLASS_ORDER,
    },
    image="48x48 grey",
)

SIDE = 48
COLUMNS = ("emotion", "pixels", "usage")  # of fer2013.csv, in lower case


def _strangeness(table: PixelCsv) -> tuple[bool, bool]:
    """Of several tables that hold everything, the one that is most like fer2013.csv is read."""
    return table.header != table.columns, table.columns != COLUMNS


class Fer2013(Dataset):
    """Reads every layout of ``card.layouts``; the first two, and folders with row numbers, give the same store."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout in `source` or at most two folders below it."""
        self.names = ClassNames.of(self.card.classes, self.params)
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        """Every layout that `where` itself is; what it holds is noted in `seen`."""
        named = [p for p in entries(where) if p.suffix.lower() in ENDINGS[0]] if where.is_dir() else [where]
        seen += [describe(sniff(p)) for p in named]
        tables = [sniff(p) for p in tables_in(where, lambda p: sniff(p).kind is not None)]
        whole = [self._one_csv(t) for t in tables if t.kind == "usage"]
        if where.is_file():
            return whole
        tree = find_tree(where, self.names)
        folders = [self._folders(place(tree, self.card.counts))] if tree else []
        pair = {t.path.stem.lower(): t for t in tables if t.kind in ("labelled", "unlabelled")}
        if not whole:
            return self._split_csvs(pair) + folders
        full = [t for t in tables if t.kind == "usage"]
        best = min(map(_strangeness, full))
        plain = [r for r, t in zip(whole, full, strict=True) if _strangeness(t) == best]
        spare = [r.files[0].name for r in whole if r not in plain] + [t.path.name for t in pair.values()]
        summary = f"; {', '.join(spare)} beside it left unread, it holds all labels itself" if spare else ""
        return [replace(r, summary=r.summary + summary) for r in plain] + folders

    def _one_csv(self, table: PixelCsv) -> Reading:
        layout = "csv" if table.columns == COLUMNS else "icml"
        return self._csvs(layout, f"{table.path}: {table.summary}; split by the Usage column", [(table, None)])

    def _csvs(self, layout: str, summary: str, parts: Sequence[tuple[PixelCsv, list[str] | None]]) -> Reading:
        return Reading(
            layout=layout,
            summary=summary,
            files=[table.path for table, _ in parts],
            labels=self.names.by_number(),
            chunks=lambda: self._csv_chunks(parts),
        )

    def _split_csvs(self, tables: dict[str, PixelCsv]) -> list[Reading]:
        roles = {role: tables[role] for role in ROLE_SPLITS if role in tables}
        if not {"train", "test"} <= set(roles) or roles["train"].kind != "labelled":
            return []
        folder = roles["train"].path.parent
        names = ", ".join(table.path.name for table in roles.values())
        unlabelled = [t.path.name for t in roles.values() if t.kind == "unlabelled"]
        missing = (
            f"; {', '.join(unlabelled)} has NO LABELS, so the official protocol can't be scored with it"
            " (fer2013.csv or icml_face_data.csv beside it would be used instead)"
        )
        if "val" in roles:
            parts = [(t, [ROLE_SPLITS[role]] * t.count()) for role, t in roles.items()]
            summary = f"{folder}: {names}; val is taken as PublicTest, test as PrivateTest" + missing * bool(unlabelled)
            return [self._csvs("csv_splits", summary, parts)]
        public, private = (sum(self.card.counts[s]) for s in ("PublicTest", "PrivateTest"))
        rows = roles["test"].count()
        if rows != public + private:
            hint = f"expected {public} PublicTest rows and then {private} PrivateTest rows, or val.csv beside it"
            raise DataError(f"test.csv has {rows} rows: PublicTest can't be told", where=str(folder), hint=hint)
        usages = ["PublicTest"] * public + ["PrivateTest"] * private
        parts = [(roles["train"], ["Training"] * roles["train"].count()), (roles["test"], usages)]
        summary = f"{folder}: {names}, the competition's pair; the first {public} test rows are PublicTest"
        summary += missing * bool(unlabelled)
        return [self._csvs("kaggle", summary, parts)]

    def _csv_chunks(self, parts: Sequence[tuple[PixelCsv, list[str] | None]]) -> Iterator[Chunk]:
        problems, place = self.problems(), self.names.positions()
        for table, splits in parts:
            prefix = f"{table.path.name}:" if len(parts) > 1 else ""
            for rows in read_rows(table, SIDE * SIDE, self.names.numbered, tuple(self.card.counts), problems):
                if problems.worth_reading:
                    images = rows.pixels.reshape(-1, 1, SIDE, SIDE)
                    split = rows.usages if splits is None else [splits[k] for k in rows.numbers]
                    source = [f"{prefix}{k}" for k in rows.numbers]
                    yield Chunk(images=images, labels=place[rows.labels], split=split, source=source)
        problems.raise_if_any()

    def _folders(self, placed: Placed) -> Reading:
        return Reading(
            layout=placed.layout,
            summary=placed.summary,
            files=[file.path for _, file in placed.images],
            labels=placed.labels,
            chunks=lambda: self._folder_chunks(placed),
        )

    def _folder_chunks(self, placed: Placed) -> Iterator[Chunk]:
        problems = self.problems()
        for path, reason in placed.faults:
            problems.add(path, None, reason)
        splits = {file.relative: split for split, file in placed.images}
        for batch, images in load_blocks((f for _, f in placed.images), SIDE, problems):
            if problems.worth_reading:
                names = [f.relative for f in batch]
                labels = np.asarray([f.label for f in batch])
                yield Chunk(images=images, labels=labels, split=[splits[n] for n in names], source=names)
        problems.raise_if_any()
