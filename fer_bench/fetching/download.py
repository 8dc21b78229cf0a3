"""One file over HTTP: resumed where it stopped, whole and checked before it appears under its name.

While a download runs, its bytes lie in ``NAME.part``, and ``NAME.part.json`` holds what the server calls this version
of the file (ETag or Last-Modified). A later attempt asks for the rest of that version only (RFC 9110, If-Range), so
that halves of two versions are never joined.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from requests import exceptions

from fer_bench.base.files import read_json, sha256_file, write_json
from fer_bench.base.sizes import human_size
from fer_bench.errors import DataError

BLOCK = 1 << 16  # bytes; what a cut or a kill can cost
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may do better in a moment
RESERVE = 64 << 20  # bytes of the disk that stay free

Tick = Callable[[int, int | None], object]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits, and how often it tries again.

    Parameters
    ----------
    tries : int
        Attempts in a row that bring nothing new.
    backoff : float
        Seconds before the second attempt; doubled with each further one.
    timeout : float
        Seconds without an answer, or without a further byte.
    """

    tries: int = 6
    backoff: float = 1.0
    timeout: float = 30.0


class _Passing(Exception):
    """An attempt that failed in a way that may pass."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """What the server said of the file whose bytes lie in the part: its size (None: untold) and its validator."""

    url: str
    size: int | None
    validator: str


def download(
    url: str,
    target: Path,
    *,
    aside: Path,
    sha256: str = "",
    patience: Patience | None = None,
    tick: Tick = lambda done, total: None,
) -> None:
    """Download `url` as the file `target`.

    Parameters
    ----------
    aside : Path
        Directory, on the same disk, for the unfinished file and for one that is refused.
    sha256 : str
        Expected hash, hexadecimal; empty: unknown.
    tick : callable
        Gets the bytes that are there and the bytes there will be (None: untold), again and again.

    Raises
    ------
    DataError
        The server refuses, stays silent or cuts off again and again (what came is kept for the next time), sends less
        than it announced, or sends a file of another hash (kept as ``aside/NAME.rejected``); or the disk is too small.
    """
    part = aside / f"{target.name}.part"
    aside.mkdir(parents=True, exist_ok=True)
    if not _is_whole(part, url):
        _gather(url, part, patience or Patience(), checked=bool(sha256), tick=tick)
    check_hash(part, sha256, aside / f"{target.name}.rejected", source=url)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)
    _beside(part).unlink()


def check_hash(file: Path, sha256: str, rejected: Path, *, source: str) -> None:
    """Compare a downloaded file with the hash that is expected; an empty one is no expectation.

    Raises
    ------
    DataError
        They differ. The file lies at `rejected` now; the message names both hashes.
    """
    found = sha256_file(file) if sha256 else ""
    if found == sha256.lower():
        return
    os.replace(file, rejected)
    raise DataError(
        f"'{rejected.stem}' is not the file that was expected: its SHA-256 is {found}, the card says {sha256}",
        where=source,
        hint=f"it is kept as {rejected}; the source has changed it, or something on the way did",
    )


def _gather(url: str, part: Path, patience: Patience, *, checked: bool, tick: Tick) -> None:
    """Attempt after attempt, until the part is whole; only those that bring nothing new are counted."""
    best, fruitless = _size(part), 0
    while True:
        try:
            return _attempt(url, part, patience.timeout, checked, tick)
        except (_Passing, exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
            if isinstance(error, exceptions.SSLError):
                raise DataError(f"the encrypted connection can't be trusted: {error}", where=url) from error
            fruitless = 0 if _size(part) > best else fruitless + 1
            best = max(best, _size(part))
            if fruitless >= patience.tries:
                raise _given_up(url, part, error) from error
            time.sleep(patience.backoff * 2 ** max(0, fruitless - 1))
        except exceptions.RequestException as error:
            raise DataError(f"can't be downloaded: {error}", where=url) from error


def _attempt(url: str, part: Path, timeout: float, checked: bool, tick: Tick) -> None:
    """One request; appends to the part, or starts it anew where the server has another version or sends it whole."""
    version, done = _noted(part, url), _size(part)
    headers = {"Accept-Encoding": "identity"}
    if version is not None and version.validator and done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version.validator}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        _check_answer(answer, url, part)
        if answer.status_code == 206 and (version is None or not _continues(answer, version, done)):
            part.unlink(missing_ok=True)
            raise _Passing("the file has changed on the server")
        if answer.status_code != 206:
            done = 0
        total = _total(answer, done)
        if total is None and not checked and "chunked" not in answer.headers.get("Transfer-Encoding", ""):
            hint = "put a sha256 into the card"
            raise DataError("the server does not tell the file's size, so its end can't be known", where=url, hint=hint)
        _check_room(part, done, total)
        with open(part, "ab" if done else "wb") as file:
            if not done:  # noted once the old bytes are gone, so that they are never taken for this version's
                _note(part, url, total, _validator(answer))
            tick(done, total)
            for block in answer.iter_content(BLOCK):
                file.write(block)
                done += len(block)
                tick(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is None:
        _note(part, url, done, "")
    elif done != total:
        raise _Passing(f"{done:,} of {total:,} bytes came")


def _check_answer(answer: requests.Response, url: str, part: Path) -> None:
    status, reached = answer.status_code, [r.url for r in (*answer.history, answer)]
    if url.startswith("https:") and any(not u.startswith("https:") for u in reached):
        raise DataError("the server leads away from the encrypted connection", where=f"{url} -> {answer.url}")
    if status in BUSY:
        raise _Passing(f"the server answers {status} {answer.reason}")
    if status == 416:  # the part is as long as the file, or longer
        part.unlink(missing_ok=True)
        raise _Passing("the file has changed on the server")
    if status not in (200, 206):
        hints = {401: "it asks for a login", 403: "it forbids the download", 404: "the file is not there any more"}
        raise DataError(f"the server answers {status} {answer.reason}", where=url, hint=hints.get(status))
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DataError("the server sends the file in an encoding that was not asked for", where=url)
    page = answer.headers.get("Content-Type", "").startswith("text/html")
    if page and not part.stem.endswith((".html", ".htm")):
        raise DataError("the server sends a web page instead of the file", where=url, hint="open it in a browser")


def _continues(answer: requests.Response, version: _Version, done: int) -> bool:
    """Whether a partial answer goes on with this version where the part ends."""
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    same = _validator(answer) in ("", version.validator)
    return unit == "bytes" and start == str(done) and same and version.size in (None, _total(answer, done))


def _total(answer: requests.Response, start: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _validator(answer: requests.Response) -> str:
    """A strong ETag, else the date of the last change, else nothing."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


def _noted(part: Path, url: str) -> _Version | None:
    """Which version of `url` the part holds the beginning of, as far as that is known."""
    try:
        version = _Version(**read_json(_beside(part)))
    except (OSError, json.JSONDecodeError, TypeError):
        return None
    return version if version.url == url else None


def _is_whole(part: Path, url: str) -> bool:
    """Whether the part was whole already when the process was stopped."""
    version = _noted(part, url)
    return version is not None and version.size == _size(part) > 0


def _note(part: Path, url: str, size: int | None, validator: str) -> None:
    write_json(_beside(part), asdict(_Version(url=url, size=size, validator=validator)))


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _check_room(part: Path, done: int, total: int | None) -> None:
    free, needed = shutil.disk_usage(part.parent).free, (total or 0) - done + RESERVE
    if needed > free:
        raise DataError(
            f"the disk has no room for it: {human_size(needed)} are needed, {human_size(free)} are free",
            where=str(part.parent),
            hint="make room, or take another --home; what came so far is kept",
        )


def _given_up(url: str, part: Path, error: Exception) -> DataError:
    kept = f"{human_size(_size(part))} are kept; " if _size(part) else ""
    reason = getattr(next(iter(error.args), None), "reason", error)  # urllib3's own words, without what wraps them
    return DataError(
        f"the download does not get on: {reason}",
        where=url,
        hint=f"{kept}is the network up? Has the server gone?",
        next="the same command again: it goes on where it stopped",
    )
