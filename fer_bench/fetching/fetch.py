"""Download the source files of a data set, if its card says that this is allowed.

Files are collected in ``data/raw/.NAME.fetch``, next to their destination, and moved into ``data/raw/NAME`` once they
are complete, checked and unpacked. Files in ``data/raw/NAME`` are therefore complete and are not downloaded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from fer_bench.base.files import disk_full, is_full, sha256_file
from fer_bench.base.locks import locked
from fer_bench.contract.cards import DatasetCard, Fetch
from fer_bench.errors import DataError, FerBenchError, missing_library
from fer_bench.fetching.archives import inner_path, stem, unpack
from fer_bench.fetching.download import Patience, Tick, check_hash, download
from fer_bench.record.home import Home

Say = Callable[[str], object]
Meter = Callable[[str], AbstractContextManager[Tick]]

WHOLE = ""  # stands for all files of a source, if the card lists none


@contextlib.contextmanager
def silent(name: str) -> Iterator[Tick]:
    """A progress meter without output."""
    yield lambda done, total: None


def fetch(
    home: Home, card: DatasetCard, *, say: Say = print, meter: Meter = silent, patience: Patience | None = None
) -> Path:
    """Download the files that `card` names into ``home.raw(name)`` and return that folder; existing files are kept.

    Parameters
    ----------
    say : callable
        Receives one line of text at a time.
    meter : callable
        Opens a progress display for the file with this name.

    Raises
    ------
    DataError
        The card names no source (the message says whom to ask and where to put the files); a source can't be reached
        or refuses; a file is not the expected one; an archive is rejected. Bytes received so far are kept.
    LockedError
        Another process is downloading the same data set.
    FerBenchError
        The disk is full.
    """
    if not card.fetch:
        raise _by_hand(home, card)
    raw = home.raw(card.name)
    aside = raw.resolve().with_name(f".{raw.name}.fetch")
    try:
        with locked(home.data / f".{raw.name}.fetch.lock", f"another process is downloading '{card.name}'"):
            for part in card.fetch:
                _Job(part=part, raw=raw, aside=aside / _key(part), say=say, meter=meter, patience=patience).complete()
            _remove_if_empty(aside)
    except OSError as error:
        if is_full(error):
            raise disk_full(raw) from error
        raise DataError(f"can't write the file: {error.strerror or error}", where=str(error.filename or raw)) from error
    say(f"{card.name}: the source files are in {raw}")
    say(f"  next:  {_prepare(home, card)}")
    return raw


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Download of one source of a card to `raw`; `aside` is this source's own folder for unfinished files."""

    part: Fetch
    raw: Path
    aside: Path
    say: Say
    meter: Meter
    patience: Patience | None

    def complete(self) -> None:
        """Download missing files, check and unpack them, and move them to their destination."""
        names = self.part.files or (_file_name(self.part.ref) if self.part.kind == "url" else WHOLE,)
        missing = [name for name in names if not self._is_there(name)]
        if not missing:
            return
        if self.part.licence:
            self.say(f"{self.part.ref}: {self.part.licence}")
        wanted = [name for name in missing if not self.waiting(name).exists()]
        if wanted:
            _SOURCES[self.part.kind](self, wanted)
        for name in missing:
            self._place(name)
        shutil.rmtree(self.ready)
        _remove_if_empty(self.aside)

    @property
    def ready(self) -> Path:
        """Folder of downloaded and checked files, each under its own name, before they are unpacked and moved."""
        return self.aside / "ready"

    def waiting(self, name: str) -> Path:
        """Path of the file `name`, or of the folder of all files, in :attr:`ready`."""
        return self.ready / inner_path(name or _end(self.part.ref))

    def _target(self, name: str) -> Path:
        path = inner_path(name or _end(self.part.ref))
        if name and self.part.unpack:
            path = path.with_name(stem(path.name) or path.name)
        return self.raw / path

    def _is_there(self, name: str) -> bool:
        target, expected = self._target(name), self.part.sha256.get(name, "").lower()
        if not target.exists():
            return False
        known = bool(expected) and target.is_file()
        if known and sha256_file(target) != expected:
            raise DataError(
                f"'{name}' already exists, but it is not the file that the card expects",
                where=str(target),
                hint="nothing was changed; move it away, or prepare the store from it as it is",
            )
        self.say(f"{target}: already exists{', and its hash is correct' if known else ''}")
        return True

    def adopt(self, name: str, source: Path, *, own: bool = True) -> None:
        """Check files downloaded by a library, and move them to :attr:`ready`; copied if they are not our own."""
        hashes = self.part.sha256 if name == WHOLE else {name: self.part.sha256.get(name, "")}
        for file, sha256 in hashes.items():
            path = source / inner_path(file) if name == WHOLE else source
            if not path.is_file():
                raise DataError(f"the source does not contain '{file}'", where=self.part.ref)
            check_hash(path, sha256, self._rejected(path), source=self.part.ref)
        waiting = self.waiting(name)
        waiting.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source if own else _copy(source, self.aside / "copy"), waiting)

    def _place(self, name: str) -> None:
        waiting, target = self.waiting(name), self._target(name)
        if not self.part.unpack:
            ready = waiting
        elif name == WHOLE:
            ready = self._unpack_all(waiting)
        else:
            ready = self._unpack(waiting)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(ready, target)
        self.say(f"{target}: downloaded")

    def _unpack_all(self, tree: Path) -> Path:
        try:
            for file in [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink()]:
                self._unpack(file)
        except DataError:
            shutil.rmtree(tree)  # incomplete without the rejected archive
            raise
        return tree

    def _unpack(self, file: Path) -> Path:
        """Unpack an archive next to itself and return the folder; any other file is returned as it is."""
        inside = stem(file.name)
        if inside is None:
            return file
        place = file.with_name(inside)
        shutil.rmtree(place, ignore_errors=True)  # left by a process that stopped before removing the archive
        try:
            unpack(file, place)
        except DataError as error:
            rejected = self._rejected(file)
            os.replace(file, rejected)
            raise DataError(error.what, where=f"{self.part.ref}, kept as {rejected}", hint=error.hint) from error
        file.unlink()
        return place

    def _rejected(self, file: Path) -> Path:
        return self.aside / f"{file.name}.rejected"


def _from_address(job: _Job, names: Sequence[str]) -> None:
    for name in names:
        target, sha256 = job.waiting(name), job.part.sha256.get(name, "")
        with job.meter(target.name) as tick:
            download(job.part.ref, target, aside=job.aside, sha256=sha256, patience=job.patience, tick=tick)


def _from_hub(job: _Job, names: Sequence[str]) -> None:
    hub = _library("huggingface_hub")
    repo, _, revision = job.part.ref.partition("@")
    page = f"https://huggingface.co/datasets/{repo}"
    login = f"accept the conditions on {page} and log in: hf auth login"
    with _explained(job.part, page, login):
        info = hub.HfApi().dataset_info(repo, revision=revision or None)
        local = job.aside / "hub" / inner_path(info.sha)  # one folder per commit, because the library reuses files
        files = [s.rfilename for s in info.siblings] if WHOLE in names else names
        for file in files:
            path = str(inner_path(file))
            hub.hf_hub_download(repo, path, repo_type="dataset", revision=info.sha, local_dir=local)
    shutil.rmtree(local / ".cache", ignore_errors=True)
    for name in names:
        job.adopt(name, local / name)
    shutil.rmtree(job.aside / "hub")


def _from_kaggle(job: _Job, names: Sequence[str]) -> None:
    kagglehub = _library("kagglehub")
    contest = job.part.kind == "kaggle_competition"
    page = f"https://www.kaggle.com/{'competitions' if contest else 'datasets'}/{job.part.ref}"
    login = (
        f"accept the conditions on {page}{'/rules' if contest else ''}, create a token at"
        " https://www.kaggle.com/settings/api, and store it in $KAGGLE_API_TOKEN or ~/.kaggle/access_token"
    )
    get = kagglehub.competition_download if contest else kagglehub.dataset_download
    cache = job.aside / "kaggle"
    with _kaggle_cache(cache), _explained(job.part, page, login, (kagglehub.exceptions.UnauthenticatedError,)):
        paths = {name: Path(get(job.part.ref, path=name or None)) for name in names}
    try:
        for name, path in paths.items():
            job.adopt(name, path, own=path.is_relative_to(cache))
    finally:
        shutil.rmtree(cache, ignore_errors=True)  # also after a rejection: the library would reuse the same file


_SOURCES: dict[str, Callable[[_Job, Sequence[str]], None]] = {
    "url": _from_address,
    "huggingface": _from_hub,
    "kaggle": _from_kaggle,
    "kaggle_competition": _from_kaggle,
}


def _copy(source: Path, copy: Path) -> Path:
    """Copy a file or folder that must stay in place, such as a notebook's read-only data."""
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(source, copy) if source.is_dir() else shutil.copyfile(source, copy))


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_library(
            f"this download needs {name}", error, install="'fer-bench[fetch]'", kind=DataError
        ) from error


@contextlib.contextmanager
def _kaggle_cache(place: Path) -> Iterator[None]:
    """Make kagglehub use `place`: its own cache would keep a second copy, possibly on another disk."""
    variable = "KAGGLEHUB_CACHE"
    before = os.environ.get(variable)
    os.environ[variable] = str(place)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextlib.contextmanager
def _explained(part: Fetch, page: str, login: str, denials: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn errors of a hub's library into errors that say what to do."""
    again = "rerun the same command to resume"
    try:
        yield
    except FerBenchError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, denials) or status in (401, 403):
            raise DataError(f"'{part.ref}' needs a login", where=page, hint=login, next=again) from error
        if status == 404:
            names = ", ".join(part.files) or part.ref
            raise DataError(f"{names} no longer exists", where=page, hint="see the page") from error
        if is_full(error):
            raise
        what = (str(error).strip() or "no reason given").splitlines()[0]
        raise DataError(f"the download failed: {type(error).__name__}: {what}", where=page, next=again) from error


def _by_hand(home: Home, card: DatasetCard) -> DataError:
    """The error for a data set that must be obtained by hand, or that needs no download."""
    if card.built_in:
        return DataError(f"'{card.name}' is built in: there is nothing to download", next=_prepare(home, card))
    about = [card.get, card.licence and f"licence: {card.licence}", card.url and f"see {card.url}"]
    forms = [f"  {name}: {form}" for name, form in card.layouts.items()]
    put = f"then put the files into {home.raw(card.name)}, or give their location with --from"
    lines = [*filter(None, about), put, *(["accepted layouts:", *forms] if forms else [])]
    return DataError(
        f"'{card.name}' can't be downloaded by this command",
        where=f"the card of '{card.name}' names no freely accessible source",
        hint="\n         ".join(lines),
        next=f"{_prepare(home, card)} --from PATH",
    )


def _prepare(home: Home, card: DatasetCard) -> str:
    return f"fer-bench data prepare {card.name} --home {shlex.quote(str(home.root))}"


def _key(part: Fetch) -> str:
    return hashlib.sha256(f"{part.kind} {part.ref}".encode()).hexdigest()[:12]


def _end(ref: str) -> str:
    """The last part of a hub's identifier, without revision and version."""
    return ref.partition("@")[0].partition("/versions/")[0].rpartition("/")[2]


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _remove_if_empty(place: Path) -> None:
    with contextlib.suppress(OSError):  # not empty, or it does not exist
        place.rmdir()
