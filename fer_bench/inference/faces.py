"""Pictures to predict: files and folders, or pictures in memory, read one batch at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fer_bench.base.quantities import plural
from fer_bench.data.image_files import ImageFit, decode_image
from fer_bench.data.pictures import Source, UnreadableImage
from fer_bench.errors import DataError, SpecError
from fer_bench.reports.render.page_folder import is_of_page

if TYPE_CHECKING:
    from PIL import Image

Given: TypeAlias = "str | Path | np.ndarray | Image.Image"
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Face:
    """A picture and the name under which its prediction is listed: its path, or "image 0" for one in memory."""

    name: str
    source: Source


@dataclass
class Faces:
    """Everything that was asked for, and what was left out.

    Attributes
    ----------
    faces : list of Face
        In the order given; those of a folder in order of their paths.
    skipped : list of (name, reason)
        Pictures that can't be read; filled while they are read.
    passed : int
        Files in folders whose names do not end as an image's does.
    drawn : int
        Pictures that fer-bench wrote itself, such as those of an explanation.
    """

    faces: list[Face] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    passed: int = 0
    drawn: int = 0
    _lists: dict[Path, Collection[str]] = field(default_factory=dict, repr=False)

    @property
    def left_out(self) -> list[str]:
        """What was passed over, in words."""
        files = f"{plural(self.passed, 'file')} in folders, not called like an image" if self.passed else ""
        drawn = f"{plural(self.drawn, 'picture')} that fer-bench wrote for a page" if self.drawn else ""
        return [f"passed over {text}" for text in (files, drawn) if text]

    def batches(
        self, fit: ImageFit, size: int, told: Callable[[int], object] = lambda done: None
    ) -> Iterator[tuple[list[Face], np.ndarray]]:
        """Faces and their pixels, uint8 [n, C, H, W], with n at most `size`; only one batch is in memory.

        `told` is given how many pictures have been read.

        Raises
        ------
        DataError
            Not one picture can be read.
        """
        read = 0
        for start in range(0, len(self.faces), size):
            block = self.faces[start : start + size]
            with ThreadPoolExecutor(THREADS) as pool:
                results = list(pool.map(lambda face: _pixels_or_reason(face.source, fit), block))
            self.skipped += [(f.name, r) for f, r in zip(block, results, strict=True) if isinstance(r, str)]
            kept = [(f, r) for f, r in zip(block, results, strict=True) if not isinstance(r, str)]
            told(start + len(block))
            read += len(kept)
            if kept:
                yield [face for face, _ in kept], np.stack([pixels for _, pixels in kept])
        if not read:
            lines = [f"{name}: {reason}" for name, reason in self.skipped[:8]]
            raise DataError(
                "not one of the images can be read" if lines else "there is no image",
                where="\n         ".join(lines) or None,
                hint="; ".join(self.left_out) or None,
            )


def faces_in(images: Given | Iterable[Given]) -> Faces:
    """Every picture that `images` names.

    Parameters
    ----------
    images : path, picture or sequence of these
        A file; a folder, of which every image at any depth is taken; a PIL image; or uint8 pixels [H, W] or [H, W, 3].

    Raises
    ------
    DataError
        A path does not exist.
    SpecError
        Something is neither a path nor a picture.
    """
    single = isinstance(images, (str, Path, np.ndarray)) or hasattr(images, "getexif")
    found = Faces()
    for k, item in enumerate([images] if single else images):  # type: ignore[arg-type, list-item]
        if isinstance(item, (str, Path)):
            _add_path(found, Path(item).expanduser())
        else:
            found.faces.append(Face(f"image {k}", _picture(item, k)))
    return found


def _add_path(found: Faces, path: Path) -> None:
    if path.is_dir():
        known = _endings()
        for file in _files_below(path):
            if file.suffix.lower() in known:
                _add_file(found, file)
            else:
                found.passed += 1
    elif path.is_file():
        _add_file(found, path)
    else:
        raise DataError("no such image or folder", where=str(path))


def _add_file(found: Faces, path: Path) -> None:
    if is_of_page(path.absolute(), found._lists):
        found.drawn += 1
    else:
        found.faces.append(Face(str(path), path))


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and below it in order of path, hidden ones left out; links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _endings() -> set[str]:
    """Endings of the file names of all formats that Pillow reads."""
    from PIL import Image

    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _picture(item: Any, k: int) -> Image.Image:
    from PIL import Image

    if isinstance(item, Image.Image):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8 and (item.ndim == 2 or item.shape[2:] == (3,)):
        return Image.fromarray(np.ascontiguousarray(item))
    kind = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
    raise SpecError(
        f"image {k} is neither a path nor a picture: {kind}",
        hint="give a path, a PIL image, or a uint8 array of shape [H, W] or [H, W, 3]",
    )


def _pixels_or_reason(source: Source, fit: ImageFit) -> np.ndarray | str:
    try:
        return decode_image(source, fit)
    except UnreadableImage as reason:
        return str(reason)
