"""Downloading the source files of a data set, where its card says that this is allowed.

Everything is gathered in ``data/raw/.NAME.fetch``, beside the place where it belongs, and renamed into
``data/raw/NAME`` when it is whole, checked and unpacked. So whatever lies there is complete, and is not fetched again.
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

WHOLE = ""  # stands for all files of a source, where a card names none


@contextlib.contextmanager
def silent(name: str) -> Iterator[Tick]:
    """A meter that shows nothing."""
    yield lambda done, total: None


def fetch(
    home: Home, card: DatasetCard, *, say: Say = print, meter: Meter = silent, patience: Patience | None = None
) -> Path:
    """Download what `card` names into ``home.raw(name)`` and return that place; what is there already is kept.

    Parameters
    ----------
    say : callable
        Gets one line of text at a time.
    meter : callable
        Opens a progress display for the file of this name.

    Raises
    ------
    DataError
        The card names no source (the message says whom to ask, and where the files belong); a source can't be reached
        or refuses; a file is not the one that the card means; an archive is refused. What came so far is kept.
    LockedError
        Another process fetches the same data set.
    FerBenchError
        The disk is full.
    """
    if not card.fetch:
        raise _by_hand(home, card)
    raw = home.raw(card.name)
    aside = raw.resolve().with_name(f".{raw.name}.fetch")
    try:
        with locked(home.data / f".{raw.name}.fetch.lock", f"another process fetches '{card.name}'"):
            for part in card.fetch:
                _Job(part=part, raw=raw, aside=aside / _key(part), say=say, meter=meter, patience=patience).bring()
            _remove_if_empty(aside)
    except OSError as error:
        if is_full(error):
            raise disk_full(raw) from error
        raise DataError(f"can't be written: {error.strerror or error}", where=str(error.filename or raw)) from error
    say(f"{card.name}: the source files are in {raw}")
    say(f"  next:  {_prepare(home, card)}")
    return raw


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One source of a card on its way to `raw`; `aside` is a place of its own for what is unfinished."""

    part: Fetch
    raw: Path
    aside: Path
    say: Say
    meter: Meter
    patience: Patience | None

    def bring(self) -> None:
        """Fetch what is missing, check and unpack it, and put it where it belongs."""
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
        """Where downloaded and checked files wait, each under its own name, to be unpacked and placed."""
        return self.aside / "ready"

    def waiting(self, name: str) -> Path:
        """Where the file `name`, or the directory of all files, waits."""
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
                f"'{name}' is there already, but it is not the file that the card names",
                where=str(target),
                hint="nothing was changed; move it away, or prepare the store from it as it is",
            )
        self.say(f"{target}: is there already{', and its hash is right' if known else ''}")
        return True

    def adopt(self, name: str, found: Path, *, own: bool = True) -> None:
        """Check what a library has downloaded, and let it wait; what is not our own is copied."""
        hashes = self.part.sha256 if name == WHOLE else {name: self.part.sha256.get(name, "")}
        for file, sha256 in hashes.items():
            path = found / inner_path(file) if name == WHOLE else found
            if not path.is_file():
                raise DataError(f"there is no '{file}' in it", where=self.part.ref)
            check_hash(path, sha256, self._rejected(path), source=self.part.ref)
        waiting = self.waiting(name)
        waiting.parent.mkdir(parents=True, exist_ok=True)
        os.replace(found if own else _copy(found, self.aside / "copy"), waiting)

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
        self.say(f"{target}: fetched")

    def _unpack_all(self, tree: Path) -> Path:
        try:
            for file in [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink()]:
                self._unpack(file)
        except DataError:
            shutil.rmtree(tree)  # without the refused archive it is not the set that was asked for
            raise
        return tree

    def _unpack(self, file: Path) -> Path:
        """Unpack an archive beside itself; returns what it has become, or the file that is none as it is."""
        inside = stem(file.name)
        if inside is None:
            return file
        place = file.with_name(inside)
        shutil.rmtree(place, ignore_errors=True)  # of a process that was stopped before it removed the archive
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
    login = f"accept its conditions on {page}, and log in: hf auth login"
    with _explained(job.part, page, login):
        info = hub.HfApi().dataset_info(repo, revision=revision or None)
        local = job.aside / "hub" / inner_path(info.sha)  # a place for each commit: the library may reuse what it finds
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
        f"accept the conditions on {page}{'/rules' if contest else ''}, make a token on"
        " https://www.kaggle.com/settings/api, and put it into $KAGGLE_API_TOKEN or ~/.kaggle/access_token"
    )
    get = kagglehub.competition_download if contest else kagglehub.dataset_download
    cache = job.aside / "kaggle"
    with _kaggle_cache(cache), _explained(job.part, page, login, (kagglehub.exceptions.UnauthenticatedError,)):
        found = {name: Path(get(job.part.ref, path=name or None)) for name in names}
    try:
        for name, path in found.items():
            job.adopt(name, path, own=path.is_relative_to(cache))
    finally:
        shutil.rmtree(cache, ignore_errors=True)  # also after a refusal: the library would offer the same again


_SOURCES: dict[str, Callable[[_Job, Sequence[str]], None]] = {
    "url": _from_address,
    "huggingface": _from_hub,
    "kaggle": _from_kaggle,
    "kaggle_competition": _from_kaggle,
}


def _copy(found: Path, copy: Path) -> Path:
    """A copy of our own, of what lies where it may not be moved from (a notebook's read-only data)."""
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(found, copy) if found.is_dir() else shutil.copyfile(found, copy))


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise missing_library(
            f"this download needs {name}", error, install="'fer-bench[fetch]'", kind=DataError
        ) from error


@contextlib.contextmanager
def _kaggle_cache(place: Path) -> Iterator[None]:
    """Let kagglehub work in `place`: its own cache would keep a second copy, maybe on another disk."""
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
    """Turn whatever a hub's library raises into an error that says what to do about it."""
    again = "the same command again: it goes on where it stopped"
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
            raise DataError(f"there is no {names} any more", where=page, hint="look at the page") from error
        if is_full(error):
            raise
        what = (str(error).strip() or "no reason given").splitlines()[0]
        raise DataError(f"can't be downloaded: {type(error).__name__}: {what}", where=page, next=again) from error


def _by_hand(home: Home, card: DatasetCard) -> DataError:
    """The answer for a data set that a person has to obtain, or that needs no obtaining."""
    if card.built_in:
        return DataError(f"'{card.name}' is built in: there is nothing to fetch", next=_prepare(home, card))
    about = [card.get, card.licence and f"licence: {card.licence}", card.url and f"see {card.url}"]
    forms = [f"  {name}: {form}" for name, form in card.layouts.items()]
    put = f"then put the files into {home.raw(card.name)}, or name another place with --from"
    lines = [*filter(None, about), put, *(["read are:", *forms] if forms else [])]
    return DataError(
        f"'{card.name}' is not fetched by this command",
        where=f"the card of '{card.name}' names no source that anybody may download from",
        hint="\n         ".join(lines),
        next=f"{_prepare(home, card)} --from PATH",
    )


def _prepare(home: Home, card: DatasetCard) -> str:
    return f"fer-bench data prepare {card.name} --home {shlex.quote(str(home.root))}"


def _key(part: Fetch) -> str:
    return hashlib.sha256(f"{part.kind} {part.ref}".encode()).hexdigest()[:12]


def _end(ref: str) -> str:
    """The last part of a hub's handle, without revision and version."""
    return ref.partition("@")[0].partition("/versions/")[0].rpartition("/")[2]


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _remove_if_empty(place: Path) -> None:
    with contextlib.suppress(OSError):  # something was kept there, or it never was
        place.rmdir()
