"""The dataset contract: a class that turns files into chunks of images, labels and splits.

A dataset file assigns ``card = DatasetCard(...)`` and derives one class from :class:`Dataset`. Its :meth:`Dataset.read`
recognises the layout from content, then yields :class:`Chunk` objects; the harness writes them to the prepared store
(:mod:`fer_bench.data.store`). Everything that is wrong with the files is collected in :class:`Problems` and reported at
once.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.contract.cards import DatasetCard
from fer_bench.errors import DataError
from fer_bench.seal import refuse_while_sealed


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of rows, in store order.

    Attributes
    ----------
    images : uint8 [k, C, H, W]
    labels : int64 [k]
        Class positions in ``card.classes``; -1 where the source has no label.
    split : list of str
        Name of the source's own split of each row, e.g. "Training".
    source : list of str
        What identifies each row in the source (file name or row number).
    subject : list of str, optional
    extra : dict of arrays, optional
        Further columns of the table, each of length k.
    """

    images: np.ndarray
    labels: np.ndarray
    split: list[str]
    source: list[str]
    subject: list[str] | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_while_sealed("reading a data set")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A recognised source, ready to be read.

    Attributes
    ----------
    layout : str
        Key of ``card.layouts``.
    summary : str
        One line for people: what was recognised and where.
    files : list of Path
        The source files; they are guarded with the store while a test is sealed.
    chunks : callable
        Starts the iteration over :class:`Chunk` objects.
    classes : tuple of str
        Class names in label order, where the source names them; empty: those of the card.
    shape : tuple of int, optional
        (N, C, H, W) of the store to be, where it is known before reading; used to say what room is needed.
    labels : mapping of str to str
        The source's own labels (numbers, names of class folders) and the class that each is read as; empty where the
        source has none but the classes' names. A class that is not kept may stand there too.
    largest : str
        The largest image, where the images differ in size.
    survey : mapping, optional
        What the source files are like, for the doctor: {"sizes": {"48x48": n, ...}, "modes": {"L": n, ...}}.
    """

    layout: str
    summary: str
    files: list[Path]
    chunks: Callable[[], Iterator[Chunk]]
    classes: tuple[str, ...] = ()
    shape: tuple[int, int, int, int] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    largest: str = ""
    survey: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Problems:
    """Collects what is wrong with source files, and raises one error that names file, row and reason.

    Reading stops collecting after `limit` problems, so that a wrong file does not fill the screen or the memory.
    A lenient collection never raises: the faulty rows are left out, and the rest is read (the doctor works so).
    `listed` is the command that lists all of them.
    """

    def __init__(self, limit: int = 1000, *, lenient: bool = False, listed: str = ""):
        self.limit, self.lenient, self.listed = limit, lenient, listed
        self.rows: list[tuple[str, int | str | None, str]] = []

    @property
    def worth_reading(self) -> bool:
        """Whether rows are still wanted: without a problem so far, or whatever comes."""
        return self.lenient or not self.rows

    def add(self, file: str | Path, row: int | str | None, reason: str) -> None:
        """Note one problem; raises at once when there are too many to go on."""
        self.rows.append((str(file), row, reason))
        if len(self.rows) >= self.limit:
            self.raise_if_any(more=True)

    def __len__(self) -> int:
        return len(self.rows)

    def raise_if_any(self, *, more: bool = False) -> None:
        """Raise :class:`DataError` with the first rows and a count by reason."""
        if not self.rows or self.lenient:
            return
        lines = [f"{f}, row {r}: {why}" if r is not None else f"{f}: {why}" for f, r, why in self.rows[:8]]
        kinds = Counter(why.split(":")[0] for _, _, why in self.rows)
        summary = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(6))
        total = f"{len(self.rows)}{' or more' if more else ''}"
        noun = "problem" if len(self.rows) == 1 else "problems"
        raise DataError(
            f"{total} {noun} in the source files; nothing was written ({summary})",
            where="\n         ".join(lines),
            hint="\n         ".join(_helps([kind for kind, _ in kinds.most_common(3)])),
            next=self.listed or None,
        )


# what helps against the kinds of problems that readers report; a kind is what stands before the first colon
HELP = {
    "unreadable image": "unreadable images: fetch these files anew, or move them out of the source folder",
    "unknown class folder": "class folders: rename each to the class it holds, or move it out of the source folder",
    "not an image": "files that are not images: move them out of the class folders",
    "a file among the class folders": "files beside the class folders: move them out of the source folder",
    "an image among the class folders": "images beside the class folders: move each into the folder of its class",
    "a folder of images inside a class folder": "images must lie directly in their class folder: move them up"
    " (the data set `folder` also reads them where they are, with --dataset-set nested=true)",
    "a folder of images beside the split folders": "folders beside train, val and test: move them out of the source"
    " folder, or name the folder that is meant with --from",
    "two folders for one class": "move the images of each class into one folder",
    "wrong image size": "images of another size: take the original's; the data set `folder` scales images of any size",
    "wrong number of columns": "rows with too few or too many cells: a cell with a comma needs quotes around it",
    "no such image": "rows without their image: copy the images to where they were looked for, or delete the rows",
}


def _helps(kinds: Sequence[str]) -> list[str]:
    """What helps against the commonest kinds of problems."""
    helps = list(dict.fromkeys(HELP[kind] for kind in kinds if kind in HELP))
    return helps or ["correct what is named above, or take a fresh copy of the data"]


class Dataset:
    """Base of every dataset. Subclasses set `card` and implement :meth:`read`.

    Attributes
    ----------
    params : dict
        Every parameter of the card with its value.
    lenient : bool
        Read what can be read; faults are kept in `faults` instead of being raised.
    faults : Problems
        Of the reading that was started last.
    source : path or None
        What was given to be read, for messages.
    plugin_dirs, options : tuple of str
        Folders of plug-ins, and options, that every command about this set needs (``--home DIR``), for messages.
    """

    card: DatasetCard
    source: str | Path | None = None
    plugin_dirs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __init__(self, params: Mapping[str, Any] | None = None, *, lenient: bool = False):
        refuse_while_sealed(f"data set '{self.card.name}'")
        self.params = dict(self.card.resolve(params or {}))
        self.lenient = lenient
        self.faults = Problems()

    def problems(self) -> Problems:
        """A fresh collection for one reading; end the reading with its ``raise_if_any()``."""
        listed = self.command("check", self.source) if self.source is not None else ""
        self.faults = Problems(lenient=self.lenient, listed=listed)
        return self.faults

    def command(self, verb: str, source: str | Path | None = None, **params: Any) -> str:
        """``fer-bench data VERB`` for this set, to be typed as it is.

        Parameters
        ----------
        source : path or None
            What ``--from`` names.
        **params
            Parameters that replace this set's own; those at their defaults are left out.
        """
        words = ["fer-bench", "data", verb, self.card.name]
        words += ["--from", str(source)] if source is not None else []
        for name, value in {**self.params, **params}.items():
            if value != self.card.params[name].default:
                words += ["--dataset-set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        words += [word for folder in self.plugin_dirs for word in ("--plugins", folder)]
        return shlex.join([*words, *self.options])

    def face_regions(self, height: int, width: int) -> Mapping[str, np.ndarray]:
        """Where the parts of a face lie in most images, if all faces are placed alike.

        Returns
        -------
        mapping of str to bool array [height, width]
            Disjoint parts, such as "brows" and "mouth", from top to bottom. Empty by default: faces may lie anywhere.
        """
        return {}

    def read(self, source: Path | None) -> Reading:
        """Recognise the layout under `source` (a file or folder; None for a built-in set) by its content.

        Raises
        ------
        DataError
            Nothing known is found there, or two layouts fit; the error lists what was looked for.
        """
        raise DataError(
            f"data set '{self.card.name}' has no read()", hint="derive it from fer_bench.Dataset and implement read"
        )
