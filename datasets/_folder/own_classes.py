"""Classes and splits as the folders of one's own images tell them, however people write both into the names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._shared.class_names import nearest_class, parts_of
from .._shared.folders import subfolders
from .._shared.tables import Labels, understand
from .._shared.tree import ImageTree, images_below, merge_classes, split_named


@dataclass(frozen=True)
class OwnClasses:
    """The classes of a tree of one's own.

    Attributes
    ----------
    classes : tuple of str
        In label order.
    by_folder : mapping of str to str
        The class of each class folder's name.
    notes : tuple of str
        How the names were understood, for people.
    """

    classes: tuple[str, ...]
    by_folder: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def position(self, name: str) -> int | None:
        """Label of a class folder; None where it is none of the classes that were given."""
        return self.classes.index(self.by_folder[name]) if name in self.by_folder else None

    def fault(self, name: str) -> str:
        """What is wrong with a class folder of an unknown name."""
        near = nearest_class(name, self.classes)
        advice = f"did you mean '{near}'? (rename the folder)" if near else f"expected {', '.join(self.classes)}"
        return f"unknown class folder: '{name}', {advice}"


def split_by_names(tree: ImageTree) -> ImageTree:
    """The tree with the split that its class folders name (``happy_train``), where all of them do and nothing else."""
    roles = {folder.name: parts_of(folder.name).role for _, folder in tree.folders}
    if tree.splits or not roles or None in roles.values():
        return tree
    return replace(
        tree,
        folders=[(roles[folder.name] or "", folder) for _, folder in tree.folders],
        images=[replace(image, split=roles[image.folder] or "") for image in tree.images],
    )


def own_classes(tree: ImageTree, given: tuple[str, ...]) -> OwnClasses:
    """The classes of a tree: those in `given`, else the folders' names, in order of name (of number, if all have one).

    Names that differ in case alone are one class. The word of a split that all names have is left out of them, and so
    is a number, where different names remain.
    """
    names = list(dict.fromkeys(folder.name for _, folder in tree.folders))
    short, notes = _shortened(tree, names)
    if given:
        labels = understand(short.values(), given)
        known = {name: labels.classes[labels.positions[text]] for name, text in short.items() if _has(labels, text)}
        return OwnClasses(labels.classes, known, (*notes, labels.summary))
    merged = merge_classes(list(dict.fromkeys(short.values())))
    order = list(dict.fromkeys(merged.values()))
    if notes and all(parts_of(name).number is not None for name in names):
        first: dict[str, int] = {}
        for name in names:
            first.setdefault(merged[short[name]], parts_of(name).number or 0)
        order.sort(key=lambda name: (first[name], name))
    return OwnClasses(tuple(order), {name: merged[short[name]] for name in names}, tuple(notes))


def _has(labels: Labels, text: str) -> bool:
    return text in labels.positions


def _shortened(tree: ImageTree, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Each folder's name without the word of its split and without its number, where all have one; and notes."""
    parts = {name: parts_of(name) for name in names}
    short, notes = {name: name for name in names}, []
    if all(p.role for p in parts.values()):
        short = {name: _without(name, role=True, number=False) for name in names}
        notes.append("the words train, val and test in the folders' names are their split")
    if all(p.number is not None and p.words for p in parts.values()):
        words = {name: _without(short[name], role=False, number=True) for name in names}
        for split in {split for split, _ in tree.folders}:
            here = [words[folder.name] for s, folder in tree.folders if s == split]
            if len(set(here)) < len(here):
                return short, notes
        short = words
        notes.append("the numbers in the folders' names are the order of the classes, not part of their names")
    return short, notes


def _without(name: str, *, role: bool, number: bool) -> str:
    """A name without the word of a split, or without the number at its beginning or end; letters stay as they are."""
    words = re.findall(r"[^\W\d_]+|\d+", name)
    if number:
        place = 0 if words[0].isdecimal() else len(words) - 1
        words.pop(place)
    if role:
        words = [word for word in words if parts_of(f"{word} x").role is None]
    return " ".join(words)


def look_alikes(tree: ImageTree, own: OwnClasses) -> list[tuple[str, str]]:
    """Pairs of classes with similar names that never occur in one split: one of them may be misspelt."""
    splits: dict[str, set[str]] = {name: set() for name in own.classes}
    for split, folder in tree.folders:
        if folder.name in own.by_folder:
            splits[own.by_folder[folder.name]].add(split)
    pairs = []
    for k, name in enumerate(own.classes):
        others = [other for other in own.classes[k + 1 :] if not splits[name] & splits[other]]
        near = nearest_class(name, others)
        if near:
            pairs.append((name, near))
    return pairs


def nested_folders(where: Path) -> list[Path]:
    """Folders in `where` that hold no images but folders of images, where nothing tells what they are."""
    folders = subfolders(where)
    if any(split_named(folder.name) for folder in folders):
        return []
    apart = [f for f in folders if not any(split_named(inner.name) for inner in subfolders(f))]
    return [f for f in apart if not next(images_below(f, 0), None) and next(images_below(f, 2), None)]
