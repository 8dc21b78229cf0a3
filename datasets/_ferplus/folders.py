"""FER+ as its own scripts export it: ``FER2013Train|Valid|Test/fer%07d.png``, each folder with a ``label.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._fer2013.folders import ROLE_SPLITS
from .._shared.folders import IMAGES, ImageFile, entries, subfolders
from .._shared.tables import split_in, split_rank
from .._shared.text import tables_in
from .votes import is_label_list, overwritten, read_label_list


@dataclass(frozen=True, kw_only=True)
class Export:
    """A recognised export.

    Attributes
    ----------
    summary : str
    lists : list of Path
        The label lists.
    files : list of ImageFile
        In the order of the splits and of the lists; ``number`` is the row of `counts`.
    counts : int64 [n, 10]
    faults : list of (Path, line or None, reason)
    """

    summary: str
    lists: list[Path]
    files: list[ImageFile]
    counts: np.ndarray
    faults: list[tuple[Path, int | None, str]]


def label_lists(where: Path) -> dict[str, Path]:
    """The label list of each split folder in `where`, by "train", "val" and "test"."""
    first = {}
    for folder in subfolders(where):
        role = split_in(folder.name)
        lists = tables_in(folder, is_label_list)
        if role and lists:
            first[role] = lists[0]
    return dict(sorted(first.items(), key=lambda item: split_rank(item[0])))


def image_folder(label_list: Path, root: Path) -> Path | None:
    """Where the images of a list lie: beside it, or in the folder of the same name in a tree beside its own."""
    folder = label_list.parent
    places = [folder]
    if folder.parent != root:
        places += [tree / folder.name for tree in subfolders(folder.parent.parent)]
    return next((p for p in places if p.is_dir() and any(_images(p))), None)


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in entries(folder) if path.suffix.lower() in IMAGES)


def read_export(places: dict[str, tuple[Path, Path]], emotions: Sequence[str]) -> Export:
    """Join lists and images by name; `places` gives the list and the image folder of each role.

    `emotions` is the order of the lists' columns of votes.
    """
    files: list[ImageFile] = []
    counts: list[np.ndarray] = []
    faults: list[tuple[Path, int | None, str]] = []
    lost = 0
    for role, (label_list, folder) in places.items():
        votes = read_label_list(label_list, emotions)
        faults += [(label_list, line, reason) for line, reason in votes.unread]
        faults += [(label_list, votes.lines[k], reason) for k, reason in votes.faults.items()]
        present = {path.name: path for path in _images(folder)}
        gone = overwritten(votes.names)
        lost += len(gone)
        for k, name in enumerate(votes.names):
            if name in present and k not in votes.faults and k not in gone:
                files.append(ImageFile(present[name], f"{folder.name}/{name}", role, -1, len(files)))
                counts.append(votes.counts[k])
            elif name not in present and k not in votes.faults:
                faults.append((label_list, votes.lines[k], f"no such image in {folder.name}: '{name[:40]}'"))
        faults += [
            (present[name], None, "no row in its label list") for name in sorted(set(present) - set(votes.names))
        ]
    names = ", ".join(str(folder) for _, folder in places.values())
    summary = f"{names}: votes joined by image name within each folder; images without a name are not in this form"
    if lost:
        summary += f"; {lost} rows left out whose image was overwritten by a later one of the same name"
    missing = [split for role, split in ROLE_SPLITS.items() if role not in places]
    if missing:
        summary += f"; there are NO {' and no '.join(missing)} images"
    stacked = np.stack(counts) if counts else np.zeros((0, 10), dtype=np.int64)
    return Export(summary=summary, lists=[p for p, _ in places.values()], files=files, counts=stacked, faults=faults)
