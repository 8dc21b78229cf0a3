"""FER2013 as class folders: which split each image belongs to, and the original row order where names tell it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fer_bench import DataError

from .._shared.folders import ClassTree, ImageFile

ROLE_SPLITS = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


@dataclass(frozen=True)
class Placed:
    """A tree whose images have a split and an order.

    `faults` are reported when it is read; `labels` say what its class folders mean.
    """

    layout: str
    summary: str
    images: list[tuple[str, ImageFile]]
    faults: list[tuple[Path, str]] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)


def place(tree: ClassTree, counts: Mapping[str, tuple]) -> Placed:
    """Give each image of `tree` its split, by name prefix, by folder, or by order within the class.

    Raises
    ------
    DataError
        The test images can't be told apart into PublicTest and PrivateTest.
    """
    by_prefix = {file.relative: _prefix(file, counts) for file in tree.files}
    if any(by_prefix.values()):
        placed = _by_prefix(tree, by_prefix, counts)
    elif "val" in tree.roles:
        placed = _by_folder(tree)
    else:
        placed = _by_number(tree, counts)
    summary = placed.summary
    if tree.jpeg:
        summary += "; JPEG copies: their pixels are not the original's, so results do not compare exactly"
    return Placed(placed.layout, summary, placed.images, tree.strange + placed.faults, tree.labels)


def _prefix(file: ImageFile, splits: Mapping[str, tuple]) -> str | None:
    match = re.fullmatch(r"([A-Za-z]+)_\d+", file.path.stem)
    return next((s for s in splits if match and s.lower() == match[1].lower()), None)


def _by_prefix(tree: ClassTree, prefixes: Mapping[str, str | None], counts: Mapping[str, tuple]) -> Placed:
    faults, images = [], []
    for file in tree.files:
        split = prefixes[file.relative]
        if split is None:
            faults.append((file.path, f"the name has no prefix {'_, '.join(counts)}_: {file.path.name}"))
        elif (split == "Training") != (file.role == "train"):
            faults.append((file.path, f"the name says {split} but it lies in {file.relative.split('/')[0]}/"))
        else:
            images.append((split, file))
    order = list(counts)
    images.sort(key=lambda i: (order.index(i[0]), i[1].number, i[1].relative))
    if all(f.number < sum(map(sum, counts.values())) for _, f in images):  # row numbers, not ids of a re-export
        faults += _twice(images, lambda split, f: f.number)
        summary = "row order restored from the numbers in the file names"
    else:
        summary = "ordered by split and by the ids in the file names, which are no row numbers"
    return Placed("folders", f"{tree.root}: class folders, split by file name prefix; {summary}", images, faults)


def _by_folder(tree: ClassTree) -> Placed:
    order = list(ROLE_SPLITS)
    files = sorted(tree.files, key=lambda f: (order.index(f.role), f.label, f.number, f.relative))
    names = ", ".join(folder.name for folder in tree.roles.values())
    summary = f"{tree.root}: class folders {names}; validation is taken as PublicTest"
    if "test" not in tree.roles:
        summary += "; there are NO PrivateTest images, so the official protocol can't be scored with it"
    return Placed("folders_validation", summary, [(ROLE_SPLITS[f.role], f) for f in files])


def _by_number(tree: ClassTree, counts: Mapping[str, tuple]) -> Placed:
    counted = Counter(f.label for f in tree.files if f.role == "test")
    public, private = counts["PublicTest"], counts["PrivateTest"]
    expected = [a + b for a, b in zip(public, private, strict=True)]
    per_class = [counted[k] for k in range(len(expected))]
    nameless = [f.relative for f in tree.files if f.number < 0]
    if per_class != expected or nameless:
        raise DataError(
            "PublicTest and PrivateTest can't be told apart: file names have no PublicTest_ or PrivateTest_ prefix, "
            + (f"and {len(nameless)} have no number" if nameless else "and test/ has not the known counts"),
            where=f"{tree.root}: {nameless[0] if nameless else f'per class in test/: {per_class}'}",
            hint=f"expected per class {expected} (PublicTest images first, numbered), or a validation/ folder",
        )
    files = sorted(tree.files, key=lambda f: (f.role != "train", f.label, f.number, f.relative))
    images: list[tuple[str, ImageFile]] = []
    rank: Counter[int] = Counter()
    for file in files:
        split = "Training"
        if file.role == "test":
            split = "PublicTest" if rank[file.label] < public[file.label] else "PrivateTest"
            rank[file.label] += 1
        images.append((split, file))
    images.sort(key=lambda i: list(counts).index(i[0]))
    faults = _twice(images, lambda split, f: (f.role, f.label, f.number))
    summary = f"{tree.root}: numbered class folders; in test/ the first images of each class are PublicTest"
    return Placed("folders_numbered", summary, images, faults)


def _twice(images: list[tuple[str, ImageFile]], key: Callable[[str, ImageFile], Hashable]) -> list[tuple[Path, str]]:
    seen: dict = {}
    faults = []
    for split, file in images:
        first = seen.setdefault(key(split, file), file)
        if first is not file:
            faults.append((file.path, f"number {file.number} occurs twice: also {first.relative}"))
    return faults
