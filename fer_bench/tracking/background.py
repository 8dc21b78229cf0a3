"""A sync in a process of its own, which ends in time whatever the server does, and never stops a training."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fer_bench.base.credentials import hide, holds_secret
from fer_bench.errors import FerBenchError
from fer_bench.record.ledger import Ledger
from fer_bench.tracking.mirror import first_line
from fer_bench.tracking.places import sync_command
from fer_bench.tracking.sync import Say, silent, sync


def try_sync(
    ledger: Ledger,
    study: str | None,
    uri: str,
    *,
    results: Path | None = None,
    timeout: float = 5,
    bound: float = 120,
    warn: Say = silent,
) -> str | None:
    """Mirror what can be mirrored, within `bound` seconds; never raise.

    Parameters
    ----------
    ledger, study, uri, results, timeout
        As for :func:`sync`.
    bound : float
        Seconds after which the attempt is given up, whatever it is doing; the next one completes it.
    warn : callable
        As for :func:`sync`.

    Returns
    -------
    str or None
        None when MLflow is up to date, else one sentence for the user.
    """
    request = {"ledger": str(ledger.root), "study": study, "uri": uri, "timeout": timeout}
    request["results"] = str(results) if results is not None else None
    again = sync_command(ledger, study, uri)
    # -P: the user's folder may hold a mlflow.py
    command = [sys.executable, "-P", "-m", "fer_bench.tracking.background"]
    try:  # the request goes by a pipe: a command line can be read by everybody on the machine
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=bound)
        answer = _last_line(done.stdout)
        for note in answer.get("notes", ()):
            warn(hide(note, uri))
        again = answer.get("next") or again
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"it had not ended after {bound:g} s"
    except Exception as error:  # the promise of this function
        reason = first_line(error, uri)
    secret = holds_secret(uri) and uri != os.environ.get("MLFLOW_TRACKING_URI")
    where = ", with the server's address and password in MLFLOW_TRACKING_URI" * secret
    return f"MLflow was not updated: {hide(reason, uri)}; the ledger is complete; run `{again}` later{where}"


def _last_line(output: str) -> dict[str, Any]:
    """The JSON in the last line of the process's output; MLflow may print other lines."""
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(output.splitlines()[-1])
    return {}


def main() -> int:
    """Read a request of :func:`try_sync` from standard input, carry it out, and end with a reason on standard error."""
    request = json.load(sys.stdin)
    uri = request["uri"]
    notes: list[str] = []
    results = Path(request["results"]) if request["results"] else None
    try:
        done = sync(
            Ledger(request["ledger"]), request["study"], uri, results=results, timeout=request["timeout"],
            warn=notes.append,
        )  # fmt: skip
    except FerBenchError as error:
        print(json.dumps({"notes": notes, "next": error.next}))
        print(hide(error.what + (f" ({error.hint})" if error.hint else ""), uri), file=sys.stderr)
        return 1
    print(json.dumps({**asdict(done), "notes": notes}))
    if done.failed:
        run, reason = next(iter(done.failed.items()))
        print(f"run {run}: {reason} ({len(done.failed)} failed in all)", file=sys.stderr)
    return bool(done.failed)


if __name__ == "__main__":
    sys.exit(main())
