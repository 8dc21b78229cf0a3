"""Reader of image trees ``<split folder>/<class folder>/<image>``, with the names people give such folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_bench import ImageFit, Problems, UnreadableImage, decode_image, image_header

from .class_names import ROLES as ROLES  # several readers take it from here
from .class_names import ClassNames, misplaced, role_of
from .images import mapped

JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif")
IMAGES = (".png", *JPEGS, ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".pbm")  # in any case
CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True)
class ImageFile:
    """One image: its path, that path below the root, role of its split folder, class position, number in its name."""

    path: Path
    relative: str
    role: str
    label: int
    number: int  # the digits that end the stem; -1 without


@dataclass(frozen=True)
class ClassTree:
    """A recognised tree. `strange` holds what does not belong there, with the reason; `labels` what folders mean."""

    root: Path
    roles: dict[str, Path]
    files: list[ImageFile]
    strange: list[tuple[Path, str]]
    labels: dict[str, str]

    @property
    def jpeg(self) -> bool:
        """Whether any image went through JPEG, so that its pixels may differ from the original's."""
        return any(f.path.suffix.lower() in JPEGS for f in self.files)


def find_tree(root: Path, names: ClassNames) -> ClassTree | None:
    """The class tree in `root`, or None where no training folder with class folders lies there.

    Class folders may be numbered, from `names.first` on or from 0 or 1, whichever fits them all.
    """
    roles: dict[str, Path] = {}
    strange: list[tuple[Path, str]] = []
    for folder in entries(root):
        role = role_of(folder.name.lower())
        if role is None or not folder.is_dir():
            continue
        inner = [f.name for f in entries(folder) if f.is_dir()]
        if not inner or (role == "train" and not any(names.position(name) is not None for name in inner)):
            continue
        if role in roles:
            strange.append((folder, f"a second folder for the role {role}: beside {roles[role].name}"))
        roles.setdefault(role, folder)
    if "train" not in roles:
        return None
    inside = [f.name for folder in roles.values() for f in entries(folder) if f.is_dir()]
    names = names.counted_as(inside)
    files: list[ImageFile] = []
    for role, folder in roles.items():
        files += _images(root, role, folder, names, strange)
    return ClassTree(root, roles, files, strange, names.read_as(inside))


def _images(root: Path, role: str, folder: Path, names: ClassNames, strange: list) -> Iterator[ImageFile]:
    seen: dict[int, Path] = {}
    for inner in entries(folder):
        label = names.position(inner.name) if inner.is_dir() else None
        reason = misplaced(inner.name, role)
        if label is None or reason:
            beside = f"a file among the class folders: '{inner.name}'"
            strange.append((inner, reason or (names.fault(inner.name) if inner.is_dir() else beside)))
            continue
        if label in seen:
            strange.append((inner, f"two folders for one class: {inner.name} and {seen[label].name}"))
        seen[label] = inner
        for path in entries(inner):
            if path.suffix.lower() not in IMAGES:
                strange.append((path, f"not an image: '{path.name}'"))
                continue
            digits = re.search(r"(\d+)$", path.stem)
            number = int(digits[1]) if digits else -1
            yield ImageFile(path, path.relative_to(root).as_posix(), role, label, number)


def entries(folder: Path) -> list[Path]:
    """Files and folders directly in `folder`, in order of name, hidden ones and clutter left out."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in CLUTTER)


def subfolders(folder: Path, limit: int = 100) -> list[Path]:
    """Folders directly in `folder`, in order of name, hidden ones and clutter left out."""
    return [p for p in entries(folder) if p.is_dir()][:limit]


def load_grey(path: Path, side: int) -> np.ndarray | str:
    """The grey image at `path` as uint8 [side, side], or the reason why there is none.

    An image of 16 bits is one of 8 bits that was widened: by its values, or by leaving them as they were.
    """
    try:
        head = image_header(path)
        if (head.width, head.height) != (side, side):
            return f"wrong image size: {head.width}x{head.height}, expected {side}x{side}"
        pixels = decode_image(path, ImageFit(3, side, side, bits=8 if head.bits == 8 else 16))
    except UnreadableImage as reason:
        return str(reason)
    if (pixels != pixels[:1]).any():
        return "a colour image: its channels differ, grey was expected"
    return np.ascontiguousarray(pixels[0])


def load_blocks(
    files: Iterable[ImageFile], side: int, problems: Problems, block: int = 512
) -> Iterator[tuple[list[ImageFile], np.ndarray]]:
    """Load images in order, `block` at a time: (files, uint8 [k, 1, side, side]); faulty ones are left out."""
    batch: list[ImageFile] = []
    images: list[np.ndarray] = []
    for file, image in mapped(lambda file: (file, load_grey(file.path, side)), files, ahead=block):
        if isinstance(image, str):
            problems.add(file.path, None, image)
            continue
        batch.append(file)
        images.append(image)
        if len(batch) == block:
            yield batch, np.stack(images)[:, None]
            batch, images = [], []
    if batch:
        yield batch, np.stack(images)[:, None]
