"""Download one file over HTTP: resumable, and complete and checked before it appears under its name.

During a download the bytes are in ``NAME.part``, and ``NAME.part.json`` holds the server's identifier of this version
of the file (ETag or Last-Modified). A later attempt requests only the rest of that version (RFC 9110, If-Range), so
parts of different versions are never joined.
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
from fer_bench.base.quantities import human_size
from fer_bench.errors import DataError

BLOCK = 1 << 16  # bytes; the most that an interruption can lose
BUSY = (408, 425, 429, 500, 502, 503, 504)  # status codes after which a retry may succeed
RESERVE = 64 << 20  # bytes of the disk to leave free

Tick = Callable[[int, int | None], object]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits, and how often it retries.

    Parameters
    ----------
    tries : int
        Consecutive attempts without any new bytes before giving up.
    backoff : float
        Seconds before the second attempt; doubled for each further one.
    timeout : float
        Seconds to wait for an answer, or for further bytes.
    """

    tries: int = 6
    backoff: float = 1.0
    timeout: float = 30.0


class _Passing(Exception):
    """A failure that a retry may overcome."""


@dataclass(frozen=True, kw_only=True)
class _Version:
    """The server's information about the partly downloaded file: its size (None: unknown) and its validator."""

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
        Folder, on the same disk, for the unfinished file and for a rejected one.
    sha256 : str
        Expected SHA-256, hexadecimal; empty: unknown.
    tick : callable
        Called repeatedly with the number of bytes received and the total (None: unknown).

    Raises
    ------
    DataError
        The server refuses, does not answer or keeps breaking off (received bytes are kept for the next attempt), sends
        less than announced, or sends a file with a different hash (kept as ``aside/NAME.rejected``); or the disk is
        full.
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
    """Check a downloaded file against the expected hash; an empty hash accepts any file.

    Raises
    ------
    DataError
        They differ. The file has been moved to `rejected`; the message contains both hashes.
    """
    actual = sha256_file(file) if sha256 else ""
    if actual == sha256.lower():
        return
    os.replace(file, rejected)
    raise DataError(
        f"'{rejected.stem}' is not the expected file: its SHA-256 is {actual}, the card has {sha256}",
        where=source,
        hint=f"the file was changed at the source or in transit; it is kept as {rejected}",
    )


def _gather(url: str, part: Path, patience: Patience, *, checked: bool, tick: Tick) -> None:
    """Retry until the file is complete; only attempts without new bytes are counted."""
    best, fruitless = _size(part), 0
    while True:
        try:
            return _attempt(url, part, patience.timeout, checked, tick)
        except (_Passing, exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
            if isinstance(error, exceptions.SSLError):
                raise DataError(f"the server's certificate can't be verified: {error}", where=url) from error
            fruitless = 0 if _size(part) > best else fruitless + 1
            best = max(best, _size(part))
            if fruitless >= patience.tries:
                raise _given_up(url, part, error) from error
            time.sleep(patience.backoff * 2 ** max(0, fruitless - 1))
        except exceptions.RequestException as error:
            raise DataError(f"the download failed: {error}", where=url) from error


def _attempt(url: str, part: Path, timeout: float, checked: bool, tick: Tick) -> None:
    """One request; continues the part, or restarts it if the server has another version or sends the whole file."""
    version, done = _recorded(part, url), _size(part)
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
            hint = "add a sha256 to the card"
            raise DataError("the server does not state the file's size, so it can't be checked", where=url, hint=hint)
        _check_room(part, done, total)
        with open(part, "ab" if done else "wb") as file:
            if not done:  # recorded only after the old bytes are gone, so that they are never taken for this version
                _record(part, url, total, _validator(answer))
            tick(done, total)
            for block in answer.iter_content(BLOCK):
                file.write(block)
                done += len(block)
                tick(done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is None:
        _record(part, url, done, "")
    elif done != total:
        raise _Passing(f"only {done:,} of {total:,} bytes arrived")


def _check_answer(answer: requests.Response, url: str, part: Path) -> None:
    status, reached = answer.status_code, [r.url for r in (*answer.history, answer)]
    if url.startswith("https:") and any(not u.startswith("https:") for u in reached):
        raise DataError("the server redirects to an unencrypted connection", where=f"{url} -> {answer.url}")
    if status in BUSY:
        raise _Passing(f"the server answered {status} {answer.reason}")
    if status == 416:  # the part is as long as the file, or longer
        part.unlink(missing_ok=True)
        raise _Passing("the file has changed on the server")
    if status not in (200, 206):
        hints = {401: "a login is required", 403: "the download is forbidden", 404: "the file is no longer there"}
        raise DataError(f"the server answered {status} {answer.reason}", where=url, hint=hints.get(status))
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DataError("the server sent the file in an encoding that was not requested", where=url)
    page = answer.headers.get("Content-Type", "").startswith("text/html")
    if page and not part.stem.endswith((".html", ".htm")):
        raise DataError("the server sent a web page instead of the file", where=url, hint="open it in a browser")


def _continues(answer: requests.Response, version: _Version, done: int) -> bool:
    """Whether a partial answer continues this version exactly where the part ends."""
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    same = _validator(answer) in ("", version.validator)
    return unit == "bytes" and start == str(done) and same and version.size in (None, _total(answer, done))


def _total(answer: requests.Response, start: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdecimal() else None


def _validator(answer: requests.Response) -> str:
    """A strong ETag, else the date of the last change, else an empty string."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")


def _recorded(part: Path, url: str) -> _Version | None:
    """The version of `url` that the part belongs to, if known."""
    try:
        version = _Version(**read_json(_beside(part)))
    except (OSError, json.JSONDecodeError, TypeError):
        return None
    return version if version.url == url else None


def _is_whole(part: Path, url: str) -> bool:
    """Whether the part was already complete when the process was stopped."""
    version = _recorded(part, url)
    return version is not None and version.size == _size(part) > 0


def _record(part: Path, url: str, size: int | None, validator: str) -> None:
    write_json(_beside(part), asdict(_Version(url=url, size=size, validator=validator)))


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _check_room(part: Path, done: int, total: int | None) -> None:
    free, needed = shutil.disk_usage(part.parent).free, (total or 0) - done + RESERVE
    if needed > free:
        raise DataError(
            f"not enough disk space: {human_size(needed)} needed, {human_size(free)} free",
            where=str(part.parent),
            hint="free some space or choose another --home; the bytes received so far are kept",
        )


def _given_up(url: str, part: Path, error: Exception) -> DataError:
    kept = f"the {human_size(_size(part))} received so far are kept; " if _size(part) else ""
    reason = getattr(next(iter(error.args), None), "reason", error)  # urllib3's own message, without its wrappers
    return DataError(
        f"the download makes no progress: {reason}",
        where=url,
        hint=f"{kept}check the network connection, and whether the server is up",
        next="rerun the same command to resume",
    )
