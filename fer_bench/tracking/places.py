"""Where a mirror's files go, and the command that fills it."""

from __future__ import annotations

import shlex

from fer_bench.base.addresses import absolute, scheme_of, sqlite_path
from fer_bench.base.credentials import holds_secret
from fer_bench.base.names import folder_of
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.tracking.translate import key


def artifact_place(uri: str, ledger: Ledger, experiment: str) -> str | None:
    """Where a new experiment's files go: a server decides itself; for a database, a folder beside it or in the home."""
    if scheme_of(uri) in ("http", "https", "databricks", ""):
        return None
    file = sqlite_path(uri)
    root = file.parent if file else ledger.root.resolve().parent
    return (root / "mlflow-artifacts" / folder_of(key(*experiment.split("/")))).as_uri()


def sync_command(ledger: Ledger, study: str | None, uri: str, *, restore: bool = False) -> str:
    """The command that mirrors a study into this store, from any folder; an address with credentials is left out."""
    home = Home(ledger.root.parent.resolve())
    words = ["fer-bench", "track", "sync", study or "--all", "--home", str(home.root)]
    words += ["--tracking-uri", absolute(uri)] if uri != home.tracking_uri and not holds_secret(uri) else []
    return shlex.join(words + ["--restore"] * restore)
