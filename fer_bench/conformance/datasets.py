"""All promises of data sets: the card, what is refused, what is read, and how protocols divide it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fer_bench.conformance.method_cards import check_parameters
from fer_bench.conformance.promise import Broken, DoesNotApply, NotChecked, Promise
from fer_bench.contract.cards import DatasetCard, Protocol
from fer_bench.contract.dataset import Chunk, Dataset, Reading
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.data.splits import Division, divide
from fer_bench.data.store import Store, write_store
from fer_bench.errors import DataError

PAGE = "docs/datasets.md"
FOLDS = 20  # of a protocol that are looked at


@dataclass
class Seen:
    """What one reading gave, row by row; of the pixels, only their hash is kept."""

    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    shape: tuple[int, ...] = ()
    columns: dict[str, list] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.columns.get("label", ()))


@dataclass
class DataWorld:
    """What the promises of one data set are checked in; `source` is what was given to be read."""

    plugin: Plugin[DatasetCard]
    plugins: Plugins
    folder: Path
    source: Path | None = None

    @property
    def card(self) -> DatasetCard:
        """What the plug-in says about itself."""
        return self.plugin.card

    def dataset(self) -> Dataset:
        """A fresh instance with default parameters."""
        return self.plugins.dataset(self.card.name)

    def reading(self) -> Reading:
        """The recognised source."""
        if self.source is None and not self.card.built_in:
            how = f" (to obtain them: {self.card.get})" if self.card.get else ""
            which = self.card.name if self.plugin.origin == "built in" else str(self.plugin.path)
            raise NotChecked(f"its files were not given: fer-bench check {which} --from PATH{how}")
        return self.dataset().read(self.source)

    @cached_property
    def seen(self) -> Seen:
        """A first reading, to the end; raises Broken at a chunk that is not what it should be."""
        reading = self.reading()
        seen = Seen()
        for chunk in reading.chunks():
            _take(chunk, seen, len(reading.classes or self.card.classes))
        if not seen.rows:
            raise Broken("the reading has no rows", example=reading.summary, look="read, chunks")
        return seen

    @cached_property
    def store(self) -> Store:
        """A second reading, written as ``fer-bench data prepare`` does."""
        return write_store(self.folder, self.card, self.reading(), self.dataset().params)


def _take(chunk: Chunk, seen: Seen, classes: int) -> None:
    images, at = chunk.images, seen.rows
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise Broken("the images of a chunk are not uint8 [k, C, H, W]", example=f"{what}, from row {at}")
    if seen.shape and seen.shape != images.shape[1:]:
        raise Broken("images have two shapes", example=f"{seen.shape}, and {images.shape[1:]} from row {at}")
    seen.shape = images.shape[1:]
    labels = np.asarray(chunk.labels)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise Broken("labels are not integers [k]", example=f"{labels.dtype} {labels.shape}, from row {at}")
    if len(labels) and not -1 <= labels.min() <= labels.max() < classes:
        wrong = int(np.flatnonzero((labels < -1) | (labels >= classes))[0])
        raise Broken(
            "a label is none of the classes", example=f"row {at + wrong}: {labels[wrong]} of {classes} classes"
        )
    columns = {"label": labels.tolist(), "split": chunk.split, "source": chunk.source}
    columns["subject"] = chunk.subject if chunk.subject is not None else [""] * len(labels)
    columns |= {name: np.asarray(values).tolist() for name, values in chunk.extra.items()}
    for name, values in columns.items():
        if len(values) != len(images):
            example = f"{len(values)} for {len(images)} images, from row {at}"
            raise Broken(f"the column {name} of a chunk has another length", example=example)
        if name in ("split", "source") and (odd := [v for v in values if not isinstance(v, str) or not v]):
            raise Broken(f"a {name} is not a text", example=f"{odd[0]!r}, from row {at}")
        if at and name not in seen.columns:
            raise Broken(f"the column {name} is missing in earlier chunks", example=f"it appears at row {at}")
        seen.columns.setdefault(name, []).extend(values)
    if missing := [name for name in seen.columns if name not in columns]:
        raise Broken(f"the column {missing[0]} is missing in a chunk", example=f"from row {at}")
    seen.digest.update(np.ascontiguousarray(images).data)


# -- the card --------------------------------------------------------------------------------------------------------


def check_card(world: DataWorld) -> None:
    """The card says what people need, and its parts agree with each other."""
    card = world.card
    named = bool(card.classes) and not card.built_in  # not a reader of anybody's files, which name their own classes
    for name in ("title", "protocols", "layouts") + ("get", "licence") * named:
        if not getattr(card, name):
            raise Broken(f"the card's {name} is empty", look=f"card, {name}=")
    cls: type[Dataset] = world.plugin.load()
    if cls.card != card:
        raise Broken("the imported card differs from the one that is read from the file")
    if len(set(card.classes)) != len(card.classes):
        raise Broken("a class has two places", example=", ".join(card.classes), look="card, classes=")
    if repeated := [n for n, k in Counter(p.name for p in card.protocols).items() if k > 1]:
        raise Broken(f"two protocols are called {repeated[0]}", look="card, protocols=")
    for name in ("counts", "shares"):
        for split, row in getattr(card, name).items():
            if len(row) != len(card.classes):
                example = f"{name}[{split!r}] has {len(row)} entries for {len(card.classes)} classes"
                raise Broken(f"{name} and classes disagree", example=example, look=f"card, {name}=")
    for name, order in card.orders.items():
        if sorted(order) != sorted(card.classes):
            example = f"orders[{name!r}]: {', '.join(order)}"
            raise Broken("an order has other classes", example=example, look="card, orders=")
    for name, value in card.digests.items():
        if name not in ("pixels", "labels") or not re.fullmatch("[0-9a-f]{64}", value):
            example = f"digests[{name!r}] = {value!r:.80}"
            raise Broken("a digest is not the SHA-256 of pixels or labels", example=example, look="card, digests=")
    for protocol in card.protocols:
        if card.classes and (strange := set(protocol.classes) - set(card.classes)):
            example = f"protocol {protocol.name}: {', '.join(sorted(strange))}"
            raise Broken("a protocol has classes that the card does not know", example=example, look="card, protocols=")


# -- reading ---------------------------------------------------------------------------------------------------------


def check_refuses(world: DataWorld) -> None:
    """Sources that are none of its layouts give a DataError."""
    if world.card.built_in:
        raise DoesNotApply("it is drawn, not read")
    empty, text, noise = (world.folder / name for name in ("empty", "text", "noise"))
    for folder in (empty, text, noise):
        folder.mkdir()
    (text / "readme.txt").write_text("nothing is here\n")
    (noise / "images.csv").write_bytes(bytes(range(256)) * 4)
    (noise / "picture.png").write_bytes(b"\x89PNG not a picture")
    cases: tuple[tuple[str, Path], ...] = (
        ("a path that does not exist", world.folder / "missing"),
        ("an empty folder", empty),
    )
    cases += (("a folder with a text file", text), ("a folder with files of random bytes", noise))
    cases += (("a file of random bytes", noise / "images.csv"),)
    for what, path in cases:
        try:
            rows = sum(len(chunk) for chunk in world.dataset().read(path).chunks())
        except DataError as error:
            if not error.what.strip():
                raise Broken(f"the error for {what} says nothing", look="read") from error
            continue
        except Exception as error:
            what = f"{what} gives a {type(error).__name__} in place of a DataError"
            raise Broken(what, example=f"{type(error).__name__}: {error}") from error
        raise Broken(f"{what} is read without an error", example=f"{rows} rows")


def check_layout(world: DataWorld) -> str:
    """The layout that was recognised is one of the card's, and the files that are named exist."""
    reading = world.reading()
    if reading.layout not in world.card.layouts:
        example = f"layout {reading.layout!r}; the card lists {', '.join(world.card.layouts) or 'none'}"
        raise Broken("the card does not list the layout that was recognised", example=example, look="card, layouts=")
    if not (reading.classes or world.card.classes):
        raise Broken("neither the card nor the reading names the classes", look="Reading(classes=...)")
    if gone := [f for f in reading.files if not Path(f).exists()]:
        raise Broken("a source file that is named does not exist", example=str(gone[0]), look="Reading(files=...)")
    if not reading.files and not world.card.built_in:
        raise Broken("no source files are named, so they can't be sealed", look="Reading(files=...)")
    return f"layout {reading.layout}"


def check_rows(world: DataWorld) -> str:
    """Every chunk is of the right types, and no row is lost or has the name of another."""
    seen, expected = world.seen, world.reading().shape
    if expected and expected != (seen.rows, *seen.shape):
        example = f"{expected} was said, {(seen.rows, *seen.shape)} were read"
        raise Broken("rows were lost, or the reading says another shape", example=example, look="Reading(shape=...)")
    if twice := [name for name, k in Counter(seen.columns["source"]).items() if k > 1]:
        raise Broken("two rows have one source", example=f"{twice[0]!r}", look="Chunk(source=...)")
    return f"{seen.rows} rows of {'x'.join(map(str, seen.shape))}"


def check_repeatable(world: DataWorld) -> None:
    """A second instance reads the same rows in the same order."""
    seen, store = world.seen, world.store
    if store.manifest["parts"]["pixels"] != seen.digest.hexdigest():
        raise Broken("two readings give other pixels", example=f"{seen.rows} rows, then {len(store)}")
    for name, values in store.columns("label", "split", "source").items():
        differs = [
            k for k, (a, b) in enumerate(zip(seen.columns[name], values.tolist(), strict=True)) if str(a) != str(b)
        ]
        if differs:
            k = differs[0]
            raise Broken(f"two readings give another {name}", example=f"row {k}: {seen.columns[name][k]}, {values[k]}")


def check_counts(world: DataWorld) -> None:
    """Images per split and class are those of the card."""
    if not world.card.counts:
        raise DoesNotApply("the card lists no counts")
    differences = world.store.manifest["checks"]["differences"]
    if differences:
        more = f"; {len(differences) - 1} more" if len(differences) > 1 else ""
        raise Broken("the files hold other numbers of images than the card", example=differences[0] + more)


def check_digests(world: DataWorld) -> None:
    """Pixels and labels are those of the original."""
    if not world.card.digests:
        raise DoesNotApply("the card lists no digests")
    labels = np.asarray(world.seen.columns["label"], dtype="<i8")
    found = {"pixels": world.seen.digest.hexdigest(), "labels": hashlib.sha256(labels.tobytes()).hexdigest()}
    for name, value in world.card.digests.items():
        if found[name] != value:
            raise Broken(
                f"the {name} are not those of the original", example=f"{found[name][:16]}..., not {value[:16]}..."
            )


# -- protocols -------------------------------------------------------------------------------------------------------


def check_protocols(world: DataWorld) -> str:
    """Every protocol that fits the layout gives three parts that share no row, with every class in training."""
    fits, not_here = [], []
    for protocol in world.card.protocols:
        if protocol.clean:
            continue
        try:
            division = divide(world.store, world.card, protocol)
        except DataError as error:
            not_here.append((protocol, error))
            continue
        fits.append(protocol)
        _check_parts(protocol, division)
    if not fits:
        first, why = not_here[0]
        raise Broken(f"no protocol fits: {why.what}", example=f"protocol {first.name}; {why.where}")
    note = f"{len(fits)} protocols"
    return note + (f"; {', '.join(p.name for p, _ in not_here)} does not fit this layout" if not_here else "")


def _check_parts(protocol: Protocol, division: Division) -> None:
    tested: set[int] = set()
    for number, fold in enumerate(division.folds[:FOLDS]):
        where = f"protocol {protocol.name}, fold {number}"
        pairs = [("train", "val"), ("train", "test")] + [("val", "test")] * (not protocol.val_is_test)
        for one, other in pairs:
            if len(both := np.intersect1d(fold[one], fold[other])):
                raise Broken(f"{one} and {other} share rows", example=f"{where}: row {both[0]}, {len(both)} in all")
        for role, rows in fold.items():
            if not len(rows):
                raise Broken(f"{role} has no rows", example=where)
        counts = np.bincount(division.labels[fold["train"]], minlength=len(division.classes))
        if not counts.all():
            name = division.classes[int(np.flatnonzero(counts == 0)[0])]
            raise Broken("a class has no training images", example=f"{where}: {name}")
        if protocol.scheme == "kfold" and tested & set(fold["test"].tolist()):
            raise Broken("a row is tested in two folds", example=where)
        tested |= set(fold["test"].tolist())


def check_people(world: DataWorld) -> str:
    """What a protocol says to keep together is in one part of each fold."""
    grouped = [p for p in world.card.protocols if p.group and not p.clean]
    if not grouped:
        raise DoesNotApply("no protocol keeps people or sequences together")
    checked = []
    for protocol in grouped:
        try:
            division = divide(world.store, world.card, protocol)
        except DataError:
            continue
        groups = world.store.columns(protocol.group)[protocol.group]
        for number, fold in enumerate(division.folds[:FOLDS]):
            parts = {role: set(groups[rows].tolist()) for role, rows in fold.items()}
            pairs = [("train", "test"), ("train", "val")] + [("val", "test")] * (not protocol.val_is_test)
            for one, other in pairs:
                if both := parts[one] & parts[other]:
                    example = (
                        f"protocol {protocol.name}, fold {number}: {sorted(map(str, both))[0]} in {one} and {other}"
                    )
                    raise Broken(f"a {protocol.group} is in two parts", example=example)
        checked.append(protocol.name)
    if not checked:
        raise NotChecked("no protocol that keeps people together fits this layout")
    return ", ".join(checked)


PROMISES: tuple[Promise[DataWorld], ...] = (
    Promise(
        name="card",
        says="the card is complete, and its parts agree",
        check=check_card,
        look="card",
        page=f"{PAGE}, 'The data set'",
    ),
    Promise(
        name="parameters",
        says="defaults, ends and choices are accepted, and other values refused",
        check=check_parameters,
        look="card, params",
        page=f"{PAGE}, 'Parameters'",
    ),
    Promise(
        name="refuses",
        says="files that are no such data set give a DataError",
        check=check_refuses,
        look="read",
        page=f"{PAGE}, 'What errors look like'",
        after=("card",),
    ),
    Promise(
        name="layout",
        says="what is recognised is a layout that the card lists, and its files are named",
        check=check_layout,
        look="read",
        page=f"{PAGE}, 'read and Reading'",
        after=("card",),
    ),
    Promise(
        name="rows",
        says="every chunk has the right types and lengths, and no row is lost",
        check=check_rows,
        look="chunks",
        page=f"{PAGE}, 'Chunk'",
        after=("layout",),
    ),
    Promise(
        name="repeatable",
        says="two readings give the same rows",
        check=check_repeatable,
        look="chunks: sort what the file system lists, and draw from named generators",
        page=f"{PAGE}, 'Chunk'",
        after=("rows",),
    ),
    Promise(
        name="counts",
        says="images per split and class are those of the card",
        check=check_counts,
        look="card, counts=, unlabelled=",
        page=f"{PAGE}, 'The data set'",
        after=("rows",),
    ),
    Promise(
        name="digests",
        says="pixels and labels are those of the original",
        check=check_digests,
        look="card, digests=",
        page=f"{PAGE}, 'The data set'",
        after=("rows",),
    ),
    Promise(
        name="protocols",
        says="every protocol gives three parts that share no row, and trains every class",
        check=check_protocols,
        look="card, protocols=",
        page=f"{PAGE}, 'Protocols'",
        after=("rows",),
    ),
    Promise(
        name="people",
        says="people or sequences are kept apart where a protocol says so",
        check=check_people,
        look="card, protocols=; Chunk(subject=...)",
        page=f"{PAGE}, 'Protocols'",
        after=("protocols",),
    ),
)
