"""Addresses of MLflow stores: which can be one, and how a path and its address turn into each other.

A ``?``, ``#`` or ``%41`` in a path means something else in an address, so none is made by putting words together.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

from fer_bench.base.credentials import public_address
from fer_bench.errors import TrackingError

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
SQLITE = "sqlite:///"


def sqlite_uri(path: str | Path) -> str:
    """The address of a SQLite file; whatever its path holds, :func:`sqlite_path` gives it back."""
    return SQLITE + quote(os.fsencode(os.path.abspath(path)), safe="/:@!$&'()*+,;=~")


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address; None for another kind of store, and for an address with options of its own."""
    if not uri.startswith(SQLITE) or "?" in uri:
        return None
    path = os.fsdecode(unquote_to_bytes(uri.removeprefix(SQLITE)))
    return None if path in ("", ":memory:") else Path(os.path.abspath(path))


def scheme_of(uri: str) -> str:
    """What stands before the colon, without the name of a driver; empty where there is none."""
    return uri.partition(":")[0].partition("+")[0] if ":" in uri else ""


def is_server(uri: str) -> bool:
    """Whether it is the address of a tracking server."""
    return scheme_of(uri) in ("http", "https")


def absolute(uri: str) -> str:
    """The same store for whoever types it in another folder."""
    path = sqlite_path(uri)
    return uri if path is None or os.path.isabs(unquote(uri.removeprefix(SQLITE))) else sqlite_uri(path)


def check_uri(uri: str) -> None:
    """Refuse an address that MLflow can't use, before its import is paid for; raises TrackingError."""
    scheme = scheme_of(uri)
    if scheme == "sqlite" and "?" in uri and "=" not in uri.partition("?")[2]:
        raise TrackingError(
            "a question mark in the path of a database cuts its address off", where=uri, hint="write %3F for it"
        )
    if scheme in SCHEMES or uri == "databricks":
        return
    if scheme in ("", "file") or len(scheme) == 1:
        folder = Path(unquote(uri.removeprefix("file:").removeprefix("//")) or ".").resolve()
        raise TrackingError(
            "MLflow no longer writes to plain folders", where=uri, hint=f"use {sqlite_uri(folder / 'mlflow.db')}"
        )
    raise TrackingError(
        f"'{scheme}' is not an address that MLflow accepts",
        where=public_address(uri),
        hint="known: " + ", ".join(SCHEMES),
    )
