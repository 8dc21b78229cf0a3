"""FER+: FER2013's images with the votes of ten people each, joined to them by row order."""

from __future__ import annotations

from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Fetch, Param, Protocol, Reading, Relabelling

from ._ferplus.chunks import exported_chunks, joined_chunks
from ._ferplus.folders import Export, image_folder, label_lists, read_export
from ._ferplus.votes import NINE_VOTES, Votes, is_votes_table, read_votes_table
from ._shared.class_names import ClassNames
from ._shared.search import find_layout
from ._shared.text import tables_in
from .fer2013 import SIDE, Fer2013

SOURCE = "Barsoum et al. 2016"
SEVEN = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")
EIGHT = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

card = DatasetCard(
    name="ferplus",
    title="FER+ (FER2013 labelled anew by ten voters an image)",
    classes=EIGHT,
    counts={
        "Training": (8740, 7287, 3149, 3014, 2100, 119, 532, 119),
        "PublicTest": (1182, 865, 415, 351, 287, 24, 62, 13),
        "PrivateTest": (1090, 893, 396, 384, 273, 18, 83, 16),
    },
    orders={
        "FER2013": ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral", "contempt"),
        "AffectNet": ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
        "CK+": ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
    },
    unlabelled=4475,
    digests={"pixels": "c267d81af4fae7bced50ff1be0ce06f7d14fb05887ece2efe39e04c35f8558b1"},
    layouts={
        "votes": "fer2013new.csv, and FER2013 with its row order (fer2013.csv, icml_face_data.csv, or class folders"
        " with names <Usage>_<row>) in the same folder, below it, or in a folder fer2013 beside it",
        "microsoft": "FER2013Train|FER2013Valid|FER2013Test/fer<number>.png, each folder with its label.csv",
    },
    protocols=(
        Protocol(
            name="ferplus8/majority",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            unlabelled="drop",
            title="eight classes; images on which more than half of the votes agree, single votes dropped",
            source=SOURCE,
        ),
        Protocol(
            name="ferplus8/plurality",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            label="plurality",
            unlabelled="drop",
            title="eight classes; images with one emotion that has the most votes",
            source=SOURCE,
        ),
        Protocol(
            name="ferplus8/soft",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            soft=(
                "votes_neutral",
                "votes_happiness",
                "votes_surprise",
                "votes_sadness",
                "votes_anger",
                "votes_disgust",
                "votes_fear",
                "votes_contempt",
            ),
            unlabelled="drop",
            title="as ferplus8/majority, trained on each image's shares of the eight emotions' votes",
            source=SOURCE,
        ),
        Protocol(
            name="ferplus7/majority",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            classes=SEVEN,
            unlabelled="drop",
            title="as ferplus8/majority, seven classes: contempt is left out",
            source=SOURCE,
        ),
        Protocol(
            name="ferplus7/plurality",
            train=("Training",),
            val=("PublicTest",),
            test=("PrivateTest",),
            label="plurality",
            classes=SEVEN,
            unlabelled="drop",
            title="as ferplus8/plurality, seven classes: contempt is left out",
            source=SOURCE,
        ),
    ),
    paper="Barsoum et al. 2016, Training deep networks for facial expression recognition with crowd-sourced label"
    " distribution",
    url="https://arxiv.org/abs/1608.01041",
    licence="labels: MIT, Microsoft; images: those of FER2013, not to be redistributed",
    get=(
        "the votes: fer-bench data fetch ferplus; the images: fer-bench show fer2013 tells how to get them;"
        " put fer2013.csv or icml_face_data.csv into data/raw/fer2013 or beside the votes in data/raw/ferplus,"
        " then: fer-bench data prepare ferplus"
    ),
    fetch=(
        Fetch(
            kind="url",
            ref="https://raw.githubusercontent.com/microsoft/FERPlus/master/fer2013new.csv",
            files=("fer2013new.csv",),
            sha256={"fer2013new.csv": "9206e20d62f56475939f516847d61753e4860caeac9718b560129541b776fc2c"},
            licence="labels: MIT, Microsoft",
        ),
    ),
    params={
        "classes": Param("", "emotions by column of votes, with commas, where lists without header have another order"),
    },
    image="48x48 grey",
    relabels=Relabelling(
        of="fer2013",
        title="FER+",
        rule="more than half of an image's votes agree, single votes dropped",
        names={"anger": "angry", "happiness": "happy", "sadness": "sad"},
        votes={
            "neutral": "votes_neutral",
            "happy": "votes_happiness",
            "surprise": "votes_surprise",
            "sad": "votes_sadness",
            "angry": "votes_anger",
            "disgust": "votes_disgust",
            "fear": "votes_fear",
            "contempt": "votes_contempt",
            "unknown": "votes_unknown",
            "not a face": "votes_nf",
        },
    ),
)

JOINABLE = ("csv", "icml", "folders")
UNKNOWN = "no known layout"  # how the search for FER2013 ends where there is none


class Ferplus(Dataset):
    """The label is the official majority, -1 without one; both layouts keep the votes as columns.

    Columns: ``plurality`` (the other common label), ``fer2013`` (the original one, in FER2013's numbering; -1 where
    the layout does not tell it), and ``votes_neutral`` to ``votes_nf``.
    """

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise votes with their images in `source` or at most two folders below it."""
        self.names = ClassNames.of(EIGHT, self.params, first=1)
        lonely: list[Path] = []
        try:
            return find_layout(self, source, lambda where, seen: self._fits(where, Path(source or "."), seen, lonely))
        except DataError as error:
            if not lonely or not error.what.startswith(UNKNOWN):
                raise
            hint = "put fer2013.csv or icml_face_data.csv beside it, or into a folder fer2013 beside its own"
            raise DataError(
                "the votes are here, the images are not: FER+ names rows of FER2013",
                where=str(lonely[0]),
                hint=hint,
                next=error.next or "fer-bench show fer2013",  # or how to unpack what lies there
            ) from error

    def _fits(self, where: Path, source: Path, seen: list[str], lonely: list[Path]) -> list[Reading]:
        joined = []
        for path in tables_in(where, is_votes_table):
            images = self._images_for(path, source)
            if images:
                joined.append(self._joined(read_votes_table(path, tuple(self.card.counts)), *images))
            else:
                seen.append(f"{path.name} (votes without images)")
                lonely.append(path)
        if joined or where.is_file():
            return joined
        lists = label_lists(where)
        places = {role: (path, image_folder(path, source)) for role, path in lists.items()}
        lonely += [path for path, folder in places.values() if folder is None]
        whole = {role: (path, folder) for role, (path, folder) in places.items() if folder is not None}
        return [self._exported(read_export(whole, self.names.numbered))] if whole else []

    def _images_for(self, votes: Path, source: Path) -> tuple[Fer2013, Reading] | None:
        """FER2013 with its row order: with the votes, beside them, or anywhere in the source."""
        images = Fer2013(lenient=True)
        refused = None
        for place in dict.fromkeys([votes.parent, votes.parent.parent / "fer2013", source]):
            try:
                reading = images.read(place) if place.exists() else None
            except DataError as error:
                if not error.what.startswith(UNKNOWN):
                    raise
                continue
            if reading is not None and reading.layout in JOINABLE:
                return images, reading
            refused = refused or reading
        if refused is not None:
            raise DataError(
                f"FER2013 as {refused.layout} has lost the row order by which votes are joined",
                where=refused.summary,
                hint=f"needed: {', '.join(JOINABLE)}; put fer2013.csv or icml_face_data.csv beside {votes.name}",
            )
        return None

    def _joined(self, votes: Votes, images: Fer2013, reading: Reading) -> Reading:
        nameless = sum(not name for name in votes.names)
        summary = f"{votes.path} joined by row order to {reading.summary}; {nameless} rows without image name, all NF"
        if NINE_VOTES in votes.names:
            summary += f"; {NINE_VOTES} has 9 votes, as published"
        return Reading(
            layout="votes",
            summary=summary,
            files=[votes.path, *reading.files],
            chunks=lambda: joined_chunks(votes, images, reading, self.problems()),
            shape=(len(votes), 1, SIDE, SIDE),
        )

    def _exported(self, export: Export) -> Reading:
        return Reading(
            layout="microsoft",
            summary=export.summary,
            files=[*export.lists, *(file.path for file in export.files)],
            labels=self.names.by_number(),
            chunks=lambda: exported_chunks(export, self.problems()),
            shape=(len(export.files), 1, SIDE, SIDE),
        )
