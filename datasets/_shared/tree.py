"""Image trees of any class names: ``<split folder>/<class folder>/<image>``, or ``<class folder>/<image>`` alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .class_names import Names, misplaced
from .folders import IMAGES, ROLES, entries

SPLITS = tuple(ROLES)
NESTED = 4  # folders inside a class folder that are searched, one in the other, where that is asked for

Faults = list[tuple[Path | str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class TreeImage:
    """One image: its path, that path below the root, the split its folder names ("" without one), its class folder."""

    path: Path
    relative: str
    split: str
    folder: str


@dataclass(frozen=True)
class ImageTree:
    """A tree of class folders.

    Attributes
    ----------
    splits : mapping of split to folder
        Empty where the class folders lie in the root itself.
    folders : list of (split, class folder)
    images : list of TreeImage
    faults : list of (path, reason)
        What does not belong there.
    """

    root: Path
    splits: dict[str, Path] = field(default_factory=dict)
    folders: list[tuple[str, Path]] = field(default_factory=list)
    images: list[TreeImage] = field(default_factory=list)
    faults: Faults = field(default_factory=list)


def split_named(name: str) -> str | None:
    """The split that a folder called `name` holds (``validation`` and ``val_set`` are "val"); None for another name."""
    plain = name.strip().lower().removesuffix("_set")
    return next((split for split, names in ROLES.items() if plain in names), None)


def is_image(path: Path) -> bool:
    """Whether the name of `path` ends as an image's does."""
    return path.suffix.lower() in IMAGES


def images_below(folder: Path, depth: int) -> Iterator[Path]:
    """Images in `folder` and at most `depth` folders below it, in order of name; clutter is left out."""
    inside = entries(folder)
    yield from (p for p in inside if is_image(p) and p.is_file())
    if depth:
        for inner in inside:
            if inner.is_dir():
                yield from images_below(inner, depth - 1)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key that puts ``im9`` before ``im10``; letters are compared without case."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text.lower())
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def merge_classes(names: list[str]) -> dict[str, str]:
    """Each folder name with its class; names that differ in case alone are one class, called as the first of them.

    The classes come in order: by number where all are numbers, else by name.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.casefold(), name)
    numbers = all(re.fullmatch(r"[0-9]+", key) for key in first)
    order = sorted(first, key=lambda key: (int(key) if numbers else 0, key))
    return {name: first[key] for key in order for name in names if name.casefold() == key}


def find_image_tree(root: Path, *, nested: bool = False) -> ImageTree | None:
    """The tree of class folders in `root`, or None.

    Split folders count where class folders with images lie in them; without split folders, two folders that hold
    images make a tree. `nested` takes images from folders inside the class folders as well.
    """
    depth = NESTED if nested else 0
    folders = [f for f in entries(root) if f.is_dir()]
    if not any(split_named(f.name) for f in folders):
        holding = [f for f in folders if next(images_below(f, depth), None)]
        if len(holding) < 2:
            return None
        tree = ImageTree(root)
        _add_split(tree, "", root, depth)
        return tree
    tree = ImageTree(root)
    for folder in folders:
        split = split_named(folder.name)
        if split is None:
            if next(images_below(folder, 2), None):
                tree.faults.append((folder, f"a folder of images beside the split folders: '{folder.name}'"))
        elif split in tree.splits:
            beside = tree.splits[split].name
            tree.faults.append((folder, f"a second folder for {split}: '{folder.name}' beside '{beside}'"))
        elif any(next(images_below(f, 2), None) for f in entries(folder) if f.is_dir()):
            tree.splits[split] = folder
    for split in SPLITS:
        if split in tree.splits:
            _add_split(tree, split, tree.splits[split], depth)
    return tree if tree.splits else None


def _add_split(tree: ImageTree, split: str, folder: Path, depth: int) -> None:
    """Enter the class folders of `folder` and their images."""
    for inner in entries(folder):
        if inner.is_dir():
            images = list(_images_of(tree, split, inner, depth))
            if split or images:  # without split folders, a folder without images may be anything
                tree.folders.append((split, inner))
                tree.images.extend(images)
        elif is_image(inner):
            tree.faults.append((inner, f"an image among the class folders: '{inner.name}'"))


def _images_of(tree: ImageTree, split: str, folder: Path, depth: int) -> Iterator[TreeImage]:
    for path in entries(folder):
        if path.is_dir() and depth:
            for image in images_below(path, depth - 1):
                yield TreeImage(image, image.relative_to(tree.root).as_posix(), split, folder.name)
        elif path.is_dir():
            if next(images_below(path, 3), None):
                tree.faults.append((path, f"a folder of images inside a class folder: '{path.name}'"))
        elif is_image(path):
            yield TreeImage(path, path.relative_to(tree.root).as_posix(), split, folder.name)
        else:
            tree.faults.append((path, f"not an image: '{path.name}'"))


def labelled(tree: ImageTree, names: Names) -> tuple[list[tuple[TreeImage, int]], Faults]:
    """Each image with its label, and faults: unknown class folders, two folders for one class in one split."""
    faults = list(tree.faults)
    seen: dict[tuple[str, int], Path] = {}
    for split, folder in tree.folders:
        label = names.position(folder.name)
        if label is None:
            faults.append((folder, names.fault(folder.name)))
        elif reason := misplaced(folder.name, split):
            faults.append((folder, reason))
        elif seen.setdefault((split, label), folder) != folder:
            faults.append((folder, f"two folders for one class: {folder.name} and {seen[split, label].name}"))
    known = [(image, names.position(image.folder)) for image in tree.images]
    return [(image, label) for image, label in known if label is not None], faults


def without_repeats(
    items: Iterable[T], key: Callable[[T], Hashable], path: Callable[[T], Path], faults: Faults
) -> Iterator[T]:
    """The first item of each key; every further one is a fault that names the first."""
    seen: dict[Hashable, Path] = {}
    for item in items:
        first = seen.setdefault(key(item), path(item))
        if first == path(item):
            yield item
        else:
            faults.append((path(item), f"an image that is there twice: {path(item).name}, also {first}"))
