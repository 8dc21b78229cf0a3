"""CK+ as files: the original sequences with their emotion labels, and class folders of single frames."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fer_bench import DataError

from .._shared.class_names import ClassNames, class_position, nearest_class, role_of
from .._shared.folders import IMAGES, entries, subfolders
from .._shared.images import Row

CLASSES = ("anger", "disgust", "fear", "happy", "sadness", "surprise", "contempt")
NEUTRAL = len(CLASSES)  # label of the eighth class, where it is asked for
ALL = (*CLASSES, "neutral")
EMOTIONS = ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")  # 0 .. 7 in label files
SPLIT = "all"

Key = tuple[str, str]  # subject and sequence, as in S010/004
Faults = list[tuple[Path | str, str]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Rows of a recognised form with labels 0 to NEUTRAL; `files` holds what is read beside the rows' own files.

    `labels` say what the source's own labels mean.
    """

    layout: str
    summary: str
    rows: list[Row]
    faults: Faults
    files: Sequence[Path] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Frame:
    """One image of a sequence."""

    subject: str
    sequence: str
    number: int
    path: Path

    def row(self, label: int) -> Row:
        """The frame as a row with this label."""
        extra = {"sequence": f"{self.subject}_{self.sequence}", "frame": self.number}
        return Row(file=self.path, name=self.path.name, label=label, split=SPLIT, subject=self.subject, extra=extra)


def frame_of(path: Path) -> Frame | None:
    """The frame a file called ``S010_004_00000017.png`` is; None for another name."""
    match = re.fullmatch(r"(S\d{3})_(\d{3})_(\d{8})", path.stem)
    return Frame(match[1], match[2], int(match[3]), path) if match and path.suffix.lower() in IMAGES else None


# --- the original: <images>/S005/001/S005_001_00000011.png, <labels>/S005/001/S005_001_00000011_emotion.txt


@dataclass(frozen=True)
class Emotion:
    """One label file: the frame in its name, and the label in this package's order."""

    peak: int
    label: int
    path: Path


def find_original(where: Path, seen: list[str]) -> tuple[Path, Path] | None:
    """The folders of images and of labels in or at most two levels below `where`; None where one of them is missing.

    Raises
    ------
    DataError
        There are several trees of images, or of labels.
    """
    outer = subfolders(where)
    places = [where, *outer, *(inner for folder in outer for inner in subfolders(folder))]
    images = [p for p in places if any(frame_of(f) for f in _sequence_files(p))]
    labels = [p for p in places if any(f.name.endswith("_emotion.txt") for f in _sequence_files(p))]
    for kind, folders in (("images", images), ("labels", labels)):
        if len(folders) > 1 and images and labels:
            listed = "\n         ".join(map(str, folders))
            raise DataError(f"{len(folders)} trees of CK+ {kind}: which one is meant?", where=listed, hint="remove one")
    if images and labels:
        return images[0], labels[0]
    if images or labels:
        missing = "no *_emotion.txt labels" if images else "no images"
        seen.append(f"{(images or labels)[0].name}/ (sequences of CK+, but {missing})")
    return None


def _sequence_files(root: Path) -> Iterator[Path]:
    return root.glob("S[0-9][0-9][0-9]/[0-9][0-9][0-9]/[!.]*")


def original(images: Path, labels: Path, last: int, neutral: bool, numbered: ClassNames) -> Candidate:
    """The last frames of each labelled sequence, and the first one of every sequence where `neutral` is asked for."""
    faults: Faults = []
    emotions = _emotions(labels, numbered, faults)
    sequences = _sequences(images, faults)
    faults += [(e.path, f"no image of the sequence {'/'.join(k)}") for k, e in emotions.items() if k not in sequences]
    rows, left, other_peak = [], 0, 0
    for key, frames in sequences.items():
        emotion = emotions.get(key)
        taken = emotion is not None and emotion.label != NEUTRAL
        needed = last * taken + neutral
        if len(frames) < needed:
            faults.append((frames[0].path.parent, f"too few frames: {len(frames)}, {needed} are needed"))
            continue
        if neutral:
            rows.append(frames[0].row(NEUTRAL))
        if taken and emotion is not None:
            rows += [frame.row(emotion.label) for frame in frames[-last:]]
            other_peak += frames[-1].number != emotion.peak
        left += not taken
    summary = (
        f"{images}: the last {last} frames of {len(sequences) - left} sequences, labelled by {labels.name}/;"
        f" {left} sequences without a label of the seven classes"
        + (" give their first frame only" if neutral else " are left out")
        + ("; of every sequence the first frame is neutral" if neutral else "")
        + (f"; in {other_peak} of them the last frame is not the one that the label names" if other_peak else "")
        + "; whole pictures: faces are neither cropped nor aligned, so results do not compare with the 48x48 form"
    )
    files = [emotion.path for emotion in emotions.values()]
    return Candidate(
        layout="original", summary=summary, rows=rows, faults=faults, files=files, labels=numbered.by_number()
    )


def _emotions(root: Path, numbered: ClassNames, faults: Faults) -> dict[Key, Emotion]:
    emotions: dict[Key, Emotion] = {}
    for path in sorted(_sequence_files(root)):
        name = re.fullmatch(r"(S\d{3})_(\d{3})_(\d{8})_emotion\.txt", path.name)
        if name is None:
            if path.suffix.lower() == ".txt":
                faults.append((path, "not a name of a label file"))
            continue
        key = (name[1], name[2])
        label = _emotion_label(path, numbered)
        if reason := _misplaced(key, path):
            faults.append((path, reason))
        elif isinstance(label, str):
            faults.append((path, label))
        elif key in emotions:
            faults.append((path, f"a second label of one sequence: also {emotions[key].path.name}"))
        else:
            emotions[key] = Emotion(int(name[3]), label, path)
    return emotions


def _emotion_label(path: Path, numbered: ClassNames) -> int | str:
    """The label a file of one number holds, or why it holds none."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        value = float(text)
    except ValueError:
        return f"the label is no number: '{text[:20]}'"
    if not math.isfinite(value) or value != int(value) or not 0 <= value < len(EMOTIONS):
        first, last = numbered.numbered[0], numbered.numbered[-1]
        return f"the label is out of range: {text[:20]}, expected 0 {first} .. {numbered.last} {last}"
    return int(numbered.positions()[int(value)])


def _sequences(root: Path, faults: Faults) -> dict[Key, list[Frame]]:
    """Frames of each sequence, in order."""
    sequences: dict[Key, list[Frame]] = {}
    frames = []
    for path in sorted(_sequence_files(root)):
        frame = frame_of(path)
        reason = _misplaced((frame.subject, frame.sequence), path) if frame else None
        if frame is None and path.suffix.lower() in IMAGES:
            reason = "not a name of a CK+ frame (S010_004_00000017.png)"
        if reason:
            faults.append((path, reason))
        elif frame:
            frames.append(frame)
    for frame in sorted(frames):
        sequences.setdefault((frame.subject, frame.sequence), []).append(frame)
    return sequences


def _misplaced(key: Key, path: Path) -> str | None:
    place = (path.parent.parent.name, path.parent.name)
    return f"the name says {'/'.join(key)} but it lies in {'/'.join(place)}/" if key != place else None


# --- class folders: <class>/S010_004_00000017.png, also below train/ and test/


def find_folders(where: Path) -> list[list[Path]]:
    """Every set of class trees that `where` is: itself, or its train, validation and test folders together."""
    parts = [f for f in subfolders(where) if role_of(f.name.lower())]
    return [
        trees for trees in ([where], [p for p in parts if _has_frames(p)]) if trees and all(map(_has_frames, trees))
    ]


def _has_frames(root: Path) -> bool:
    folders = [f for f in subfolders(root) if _label(f) is not None]
    return any(frame_of(path) for folder in folders for path in entries(folder))


def _label(folder: Path) -> int | None:
    return class_position(folder.name, ALL)


def folders(trees: Sequence[Path], neutral: bool) -> Candidate:
    """Every frame in the class folders of these trees, all in one split."""
    faults: Faults = []
    known: dict[tuple[str, str, int], Frame] = {}
    rows, dropped = [], 0
    for folder in (f for tree in trees for f in entries(tree)):
        label = _label(folder) if folder.is_dir() else None
        if label is None and (folder.is_dir() or folder.suffix.lower() in IMAGES):
            near = nearest_class(folder.name, ALL) if folder.is_dir() else None
            hint = f"did you mean '{near}'? (rename the folder)" if near else f"expected {', '.join(ALL)}"
            faults.append((folder, f"not a class folder: {hint}"))
        for path in entries(folder) if label is not None else []:
            frame = frame_of(path)
            if frame is None:
                faults.append((path, "not a name of a CK+ frame (S010_004_00000017.png)"))
                continue
            first = known.setdefault((frame.subject, frame.sequence, frame.number), frame)
            if first is not frame:
                faults.append((path, f"the frame occurs twice: also {first.path}"))
            elif label == NEUTRAL and not neutral:
                dropped += 1
            elif label is not None:
                rows.append(frame.row(label))
    where = trees[0] if len(trees) == 1 else trees[0].parent
    summary = f"{where}: class folders of frames; subjects and sequences from the file names"
    if len(trees) > 1:
        summary += f"; {', '.join(t.name for t in trees)} are put together: CK+ has no such parts"
    if dropped:
        summary += f"; {dropped} neutral images are left out (neutral=true keeps them)"
    labels = {f.name: ALL[k] for tree in trees for f in subfolders(tree) if (k := _label(f)) is not None}
    return Candidate(layout="folders48", summary=summary, rows=rows, faults=faults, labels=labels)
