"""Passwords and tokens, kept out of everything that is stored or printed. One place knows what they look like.

A tracking server's address may hold a user name and a password, a query may hold a token, and an error of a library may
repeat either. :func:`hide` and :func:`command_line` replace them by ``***``. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6  # letters of a secret that is looked for in running text: a shorter one would hide ordinary words

_SECRET = r"(?:passw(?:or)?d|pwd|pass|token|secret|credentials?|signature|sig|sas|auth|api[_-]?key|access[_-]?key)"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"`<>]+)")
_WORD = re.compile(r"(?P<before>(?:-{0,2}[\w.-]+=)?)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>.+)", re.DOTALL)
_QUERY = re.compile(rf"(?P<name>[?&;#](?:[\w.-]*[_.-])?{_SECRET})=(?P<value>[^&;#\s'\"`<>]*)", re.IGNORECASE)
_SETTING = re.compile(rf"(?P<name>\b(?:[A-Z0-9]+_)*{_SECRET.upper()}(?:_[A-Z0-9]+)*)=(?P<value>[^\s'\"`]+)")
_HEADER = re.compile(
    r"(?P<name>authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer)\s+)?)(?!basic|bearer)[\w.~+/=-]+", re.I
)
_VARIABLE = re.compile(r"(?:^|_)(?:PASSW(?:OR)?D|TOKEN|SECRET|API_?KEY|ACCESS_KEY)(?:_|$)", re.IGNORECASE)


def hide(text: str, *sources: str) -> str:
    """The text without credentials.

    Hidden are user and password of addresses, values of queries and settings whose names say that they are secret, and,
    wherever they stand, the secrets of `sources`, of this process's command line and of its environment.
    """
    for secret in sorted({*_known(sources)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URL.sub(lambda m: m["scheme"] + _without_user(m["rest"], HIDDEN + "@"), text)
    for pattern in (_QUERY, _SETTING):
        text = pattern.sub(lambda m: f"{m['name']}={HIDDEN}", text)
    return _HEADER.sub(lambda m: m["name"] + HIDDEN, text)


def public_address(uri: str) -> str:
    """An address without user name and password, and without the secrets of its query."""
    scheme, mark, rest = uri.partition("://")
    plain = scheme + mark + _without_user(rest, "") if mark else uri
    return _QUERY.sub(lambda m: f"{m['name']}={HIDDEN}", plain)


def holds_secret(uri: str) -> bool:
    """Whether an address holds credentials, so that it must not be printed whole."""
    return public_address(uri) != uri


@contextlib.contextmanager
def hiding_output(*sources: str) -> Iterator[None]:
    """Hide credentials in whatever is printed within the block, by libraries too."""
    out, err = _Hiding(sys.stdout, sources), _Hiding(sys.stderr, sources)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class _Hiding(io.TextIOBase):
    """A text stream that hands on what it is given, without credentials."""

    def __init__(self, inner: TextIO, sources: Sequence[str]):
        self.inner, self.sources = inner, sources

    def write(self, text: str) -> int:
        self.inner.write(hide(text, *self.sources))
        return len(text)

    def flush(self) -> None:
        self.inner.flush()

    def isatty(self) -> bool:
        return self.inner.isatty()


def words(argv: Iterable[str]) -> list[str]:
    """The words of a command with their credentials hidden. What is in a word belongs together, blanks included."""
    return [_word(word) for word in argv]


def command_line(argv: Sequence[str] | None = None) -> str:
    """The ``fer-bench`` command of this process (or of other words), as it may be kept: without credentials."""
    return "fer-bench " + shlex.join(words(sys.argv[1:] if argv is None else argv))


def hide_command(record: Any) -> Any:
    """A study's record with the credentials of its command hidden; a record without a command as it is."""
    command = record.get("command") if isinstance(record, Mapping) else None
    return {**record, "command": _plain_command(command)} if isinstance(command, str) else record


def _plain_command(command: str) -> str:
    try:
        typed = shlex.split(command)
    except ValueError:
        return hide(command)
    plain = words(typed)
    return command if plain == typed else shlex.join(plain)


def _word(word: str) -> str:
    if match := _WORD.fullmatch(word):
        rest = _QUERY.sub(lambda m: f"{m['name']}={HIDDEN}", _without_user(match["rest"], HIDDEN + "@"))
        return match["before"] + match["scheme"] + rest
    return _SETTING.sub(lambda m: f"{m['name']}={HIDDEN}", word)


def _without_user(rest: str, instead: str) -> str:
    """What follows ``scheme://``, the user's part replaced."""
    user = _user(rest)
    return rest if user is None else instead + rest[len(user) + 1 :]


def _user(rest: str) -> str | None:
    """The part before the last ``@``, None where no user is named; a password may hold slashes that it should not."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    if not authority or ("@" not in authority and (":" not in authority or port.isdecimal())):
        return None
    user, sign, _ = rest.partition("?")[0].rpartition("@")
    return user if sign else (authority.rpartition("@")[0] if "@" in authority else None)


def _known(sources: Iterable[str]) -> Iterator[str]:
    """Secrets of addresses among `sources`, the command line and the environment, as typed and decoded."""
    named = [v for k, v in os.environ.items() if _VARIABLE.search(k) and not os.path.exists(v)]
    for secret in [*named, *_secrets_of([*sources, *sys.argv[1:], *os.environ.values()])]:
        for form in (secret, unquote(secret)):
            if len(form) >= SHORTEST:
                yield form


def _secrets_of(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if not (match := _WORD.fullmatch(text)):
            continue
        if user := _user(match["rest"]):
            yield user.partition(":")[2] or user
        yield from (m["value"] for m in _QUERY.finditer(match["rest"]))
