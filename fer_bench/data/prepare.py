"""From source files to a prepared store: find them, recognise their layout, write the store, report each step."""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_bench.base.locks import FileLock
from fer_bench.base.names import folder_of
from fer_bench.base.quantities import human_size, plural
from fer_bench.contract.dataset import Dataset, Reading
from fer_bench.contract.sources import class_hash
from fer_bench.data import soundness
from fer_bench.data.label_order import PARAMETER, describe_mapping, suspicion
from fer_bench.data.store import Store, naming_plugins, recover, write_store
from fer_bench.errors import ChangedStoreError, DataError, FerBenchError, StoreError
from fer_bench.record.home import Home

Say = Callable[[str], object]
LARGE = 2 * 10**9  # bytes; reading this many takes seconds

RARE = 20  # at most one image in this many may count as an outlier in size


def prepare(home: Home, dataset: Dataset, source: str | Path | None, *, force: bool = False, say: Say = print) -> Store:
    """Turn source files into the store of `dataset`; a store made from the same unchanged files is reused.

    Parameters
    ----------
    source : path or None
        File or folder; None looks in ``home.raw(name)``, then at the source of the existing store.
    force : bool
        Write the store again even if nothing has changed.
    say : callable
        Receives one line of text at a time.

    Raises
    ------
    DataError
        The source is missing, of an unknown layout or malformed. An existing store is left intact.
    StoreError, FerBenchError
        A file can't be read or written, or the disk is full. An existing store is left intact.
    """
    name = dataset.card.name
    dataset.options = home.options
    try:
        with _one_at_a_time(home.data, name, say):
            recover(home.data, name)
            old = _existing(home, name, say)
            source = _source(home, dataset, source, old or _unsound(home, name))
            if source is None and not dataset.card.built_in:
                if force or old is None or old.manifest["params"] != dataset.params:
                    raise _missing(home, dataset)
                say(f"{name}: using the prepared store; its source files are no longer there")
                return old
            dataset.source = source
            reading = dataset.read(source)
            say(f"{name}: recognised {reading.layout}: {reading.summary}")
            state = _state(dataset, reading)
            if old is not None and not force and _same(old, dataset, reading, state):
                _report_labels(dataset, old, say)
                say(f"{name}: the store is up to date ({plural(len(old), 'image')}, fingerprint {old.fingerprint})")
                return old
            outliers = _outliers(dataset, reading)
            if outliers:
                say(f"{name}: WARNING: {outliers.warning}")
            _check_room(home, dataset, reading, outliers, say)
            return _write(home, dataset, reading, source, state, old, say)
    except (FerBenchError, BrokenPipeError):  # some are OSErrors too; a closed terminal is no fault of the data
        raise
    except OSError as error:
        raise StoreError(f"{error.strerror or error}", where=str(error.filename or home.data)) from error


def ensure_store(home: Home, dataset: Dataset, source: str | Path | None = None, say: Say = print) -> Store:
    """The store of `dataset` for a run: opened if it exists, prepared if the source is known.

    Built-in sets are generated, other sets are read from ``data/raw/<name>``; if the source is missing, the error says
    how to get the data. A given source is compared with the store, as :func:`prepare` does.

    Raises
    ------
    ChangedStoreError
        The existing store has been changed since it was written. It is kept, because somebody may have edited it on
        purpose; ``fer-bench data prepare`` replaces it.
    """
    store = _sound(home, dataset, say) if source is None else None
    if store is not None and store.manifest["params"] == dataset.params and not dataset.card.built_in:
        return store
    return prepare(home, dataset, source, say=say)


def _sound(home: Home, dataset: Dataset, say: Say) -> Store | None:
    """The existing store if it can be read; raises ChangedStoreError if it has been changed."""
    name, path = dataset.card.name, home.store(dataset.card.name)
    with contextlib.suppress(OSError):
        if (size := soundness.unmeasured(path)) > LARGE:
            say(f"{name}: checking {human_size(size)} of the store against its hashes (first use only)")
    try:
        return Store.open(path)
    except ChangedStoreError as error:
        raise naming_plugins(error, dataset.plugin_dirs) from None
    except StoreError:
        return None


@dataclass(frozen=True)
class _Outliers:
    """A warning about a few images much larger than all others, which decide the size of the store.

    `size` is the side length in pixels that the other images fit into.
    """

    warning: str
    size: int


def _outliers(dataset: Dataset, reading: Reading) -> _Outliers | None:
    """At most one image in :data:`RARE`, over twice as large as the largest of the others; None if there are none."""
    sizes = {tuple(map(int, text.split("x"))): n for text, n in reading.survey.get("sizes", {}).items()}
    if reading.shape is None or "size" not in dataset.params or not sizes:
        return None
    total, beyond = sum(sizes.values()), 0
    by_side = sorted(sizes, key=lambda size: (-max(size), size))
    for size in by_side:
        if beyond + sizes[size] > max(1, total // RARE):
            break
        beyond += sizes[size]
    usual, side = max(size), max(by_side[0])
    if side <= 2 * usual or reading.shape[-1] < side:
        return None
    number, channels = reading.shape[:2]
    now, then = (human_size(number * channels * s**2) for s in (side, usual))
    largest = "x".join(map(str, by_side[0]))
    images = plural(beyond, "image is", "images are")
    warning = f"{images} larger than {usual} pixels, the other {total - beyond:,} are not. The largest"
    warning += f", {reading.largest} ({largest})," if reading.largest else f" ({largest})"
    warning += f" makes every image in the store {side} pixels wide: {now} instead of {then}\n"
    warning += f"  to resize all images to {usual} pixels: {dataset.command('prepare', dataset.source, size=usual)}"
    return _Outliers(warning, usual)


def _report_labels(dataset: Dataset, store: Store, say: Say) -> None:
    """Print how the labels were read, with a warning if the class counts suggest another order."""
    name = dataset.card.name
    say(f"{name}: labels are read as {describe_mapping(store.manifest)}")
    wrong = None if dataset.card.built_in else suspicion(dataset.card, store.manifest)
    if wrong:
        lines = [f"{name}: WARNING: {wrong.title}", *wrong.lines]
        if wrong.order:
            lines.append(f"next: {dataset.command('prepare', dataset.source, **{PARAMETER: wrong.order})}")
        say("\n  ".join(lines))


def _check_room(home: Home, dataset: Dataset, reading: Reading, outliers: _Outliers | None, say: Say) -> None:
    """Print how much space the store will need; raises StoreError before any work if the disk has too little."""
    if reading.shape is None:
        return
    name, size, free = dataset.card.name, math.prod(reading.shape), shutil.disk_usage(home.data).free
    shape = "x".join(map(str, reading.shape[1:]))
    say(f"{name}: {plural(reading.shape[0], 'image')} of {shape}: {human_size(size)} on disk")
    if size * 1.05 > free:
        side = outliers.size if outliers else reading.shape[-1] // 2
        smaller = dataset.command("prepare", dataset.source, size=side) if "size" in dataset.params else None
        raise StoreError(
            f"not enough disk space for the store: it needs {human_size(size)}, {human_size(free)} are free",
            where=str(home.data),
            hint="free some space, choose another --home" + f", or store the images at {side} pixels" * bool(smaller),
            next=smaller,
        )


def _write(
    home: Home, dataset: Dataset, reading: Reading, source: Path | None, state: str, old: Store | None, say: Say
) -> Store:
    card, start = dataset.card, time.perf_counter()
    notes = {"source_state": state, "from": str(source.resolve()) if source else None}
    store = write_store(home.data, card, reading, dataset.params, notes)
    seconds = time.perf_counter() - start
    size, rate = "x".join(map(str, store.shape)), f"{len(store) / max(seconds, 1e-3):,.0f} images/s"
    count = plural(len(store), "image")
    say(f"{card.name}: {count} of {size} written to {store.path} in {seconds:.1f} s ({rate})")
    if old is not None and old.fingerprint != store.fingerprint:
        say(f"{card.name}: the data have changed: the fingerprint was {old.fingerprint}, now {store.fingerprint}")
    _report_labels(dataset, store, say)
    checks = store.manifest["checks"]
    if checks["counts"] == "match":
        say(f"{card.name}: the image counts of every split and class match its card")
    elif checks["counts"] == "differ":
        first = checks["differences"][:12]
        more = len(checks["differences"]) - len(first)
        warning = "the image counts differ from its card, so results are not comparable with published ones"
        lines = [f"{card.name}: WARNING: {warning}", *first]
        say("\n  ".join([*lines, f"... and {more} more"] if more else lines))
    return store


def _existing(home: Home, name: str, say: Say) -> Store | None:
    """The existing store; a damaged one is reported and treated as missing."""
    if not home.store(name).exists():
        return None
    try:
        return Store.open(home.store(name))
    except StoreError as error:
        say(f"{name}: the existing store can't be used: {error.what}")
        return None


def _unsound(home: Home, name: str) -> Store | None:
    """A store that can't be used, opened only to learn its source."""
    with contextlib.suppress(StoreError):
        return Store.open(home.store(name), verify=False)
    return None


def _source(home: Home, dataset: Dataset, source: str | Path | None, old: Store | None) -> Path | None:
    if source is not None:
        given = Path(source).expanduser()
        if not given.exists():
            raise DataError(
                "the source does not exist",
                where=str(given),
                hint=dataset.card.get or None,
                next=dataset.command("prepare", "PATH"),
            )
        return given
    if dataset.card.built_in:
        return None
    places = [home.raw(dataset.card.name)]
    if old is not None and old.manifest.get("from"):
        places.append(Path(old.manifest["from"]))
    return next((p for p in places if p.is_file() or (p.is_dir() and any(p.iterdir()))), None)


def _missing(home: Home, dataset: Dataset) -> DataError:
    name, raw = dataset.card.name, home.raw(dataset.card.name)
    get = f"{dataset.card.get}\n         " if dataset.card.get else ""
    return DataError(
        f"no source files for '{name}'",
        where=f"{raw} {'is empty' if raw.is_dir() else 'does not exist'}",
        hint=f"{get}put the files there, or give their location with --from",
        next=dataset.command("prepare", "PATH"),
    )


def _state(dataset: Dataset, reading: Reading) -> str:
    """Hash that changes with any source file and with the code that reads or generates the images."""
    digest = hashlib.sha256()
    for path in reading.files:
        stat = path.stat()
        digest.update(f"{path.resolve()}\n{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    digest.update(class_hash(type(dataset)).encode())
    return digest.hexdigest()


def _same(old: Store, dataset: Dataset, reading: Reading, state: str) -> bool:
    manifest = old.manifest
    return (
        manifest.get("source_state") == state
        and manifest["params"] == dataset.params
        and manifest["layout"] == reading.layout
        and manifest["classes"] == list(reading.classes or dataset.card.classes)
    )


@contextlib.contextmanager
def _one_at_a_time(root: Path, name: str, say: Say) -> Iterator[None]:
    """Hold the data set's lock, after waiting for another process if necessary."""
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f".{folder_of(name)}.lock")
    if not lock.try_acquire():
        say(f"{name}: another process is preparing it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
