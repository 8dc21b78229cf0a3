"""The MLflow mirror of the ledger: filled after each run, or later, and never a reason for a training to stop.

The ledger stays the truth; everything here can be thrown away and written again by ``fer-bench track sync``::

    experiment DATASET/PROTOCOL
      run STUDY                     command, report folder
        run METHOD · seed 0         parameters, curves, test scores, records, model.pt
        run METHOD · seed 1

A mirrored run carries the tag ``fer_bench.digest`` (a hash of the ledger's ``done.json``), written last. A run without
it was interrupted and is replaced; a run with the same digest is left alone, so that a second sync writes nothing.

:func:`sync` works in this process and raises. :func:`try_sync` is for the executor: it works in a process of its own,
which ends in time whatever the server does, and answers with a sentence instead of raising.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import http.client
import json
import math
import os
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fer_bench.base.addresses import absolute, check_uri, is_server, scheme_of, sqlite_path
from fer_bench.base.credentials import hide, hide_command, holds_secret, public_address
from fer_bench.base.files import canonical_json, sha256_file
from fer_bench.base.names import folder_of
from fer_bench.errors import FerBenchError, LedgerError, TrackingError
from fer_bench.printable import printable
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.tracking.mlflow_database import client, prepare_database, reachable
from fer_bench.tracking.translate import TAG_LENGTH, kept, key, mirrored, spans, studies_of, tags_of, text_of

METRICS_A_BATCH, ENTRIES_A_BATCH = 1000, 100  # MLflow's limits for one log_batch: metrics; parameters
LOCK_WAIT = 60.0  # seconds to wait for another process that mirrors the same ledger
Say = Callable[[str], None]


def silent(line: str) -> None:
    """Take a line and tell nobody."""


@dataclass(frozen=True)
class SyncResult:
    """What a sync did, as run ids; `failed` maps a run id to the reason."""

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = {"written": self.written, "already there": self.skipped, "unfinished": self.unfinished}
        parts = [f"{len(ids)} {what}" for what, ids in counts.items() if ids or what == "written"]
        return ", ".join(parts + ([f"{len(self.failed)} failed"] if self.failed else []))


# Writing it -----------------------------------------------------------------------------------------------------------


def sync(
    ledger: Ledger,
    study: str | None,
    uri: str,
    *,
    results: Path | None = None,
    timeout: float = 10,
    restore: bool = False,
    say: Say = silent,
    warn: Say = silent,
) -> SyncResult:
    """Bring MLflow up to date with a study of the ledger, or with all of them for None.

    Where the database had to be made anew, all studies are mirrored.

    Parameters
    ----------
    ledger : Ledger
    study : str or None
    uri : str
        Tracking URI: ``sqlite:///file.db``, a database, or the address of a server.
    results : Path, optional
        The study's report folder; by default where :class:`~fer_bench.record.home.Home` puts it.
    timeout : float
        Seconds that a server may stay silent.
    restore : bool
        Bring back experiments that were deleted in MLflow.
    say : callable
        Is told of every run written.
    warn : callable
        Is told of a database that had to be made anew.

    Raises
    ------
    TrackingError
        MLflow is missing, the URI can't be one, or the store does not answer. What was written so far is kept.
    LedgerError
        There is no such study.
    """
    check_uri(uri)
    studies_of(ledger, study, {})
    if is_server(uri):
        try:
            _probe(uri, timeout)
        except TrackingError as error:
            error.next = sync_command(ledger, study, uri)
            raise
    done = SyncResult()
    with _http_limits(timeout), _lock(ledger), _opened(uri, warn) as (address, rebuilt):
        mirror = _Mirror(ledger, uri, address, timeout, restore, say)
        for name, content in studies_of(ledger, None if rebuilt else study, done.failed).items():
            folder = results if results is not None and name == study else Home(ledger.root.parent).results(name)
            mirror.study(content, folder, done)
    return done


@contextmanager
def _opened(uri: str, warn: Say) -> Iterator[tuple[str, bool]]:
    """The address that MLflow shall open for `uri`, and whether its database has been made anew."""
    path = sqlite_path(uri)
    if path is None:
        yield uri, False
        return
    rebuilt = prepare_database(path, warn)
    with reachable(path) as address:
        yield address, rebuilt


class _Mirror:
    """One ledger being written to one MLflow store; `address` is the one to open, `uri` the one to show."""

    def __init__(self, ledger: Ledger, uri: str, address: str, timeout: float, restore: bool, say: Say):
        self.ledger, self.uri, self.timeout, self.restore, self.say = ledger, uri, timeout, restore, say
        with self._answers():
            self.client = client(address)

    def study(self, study: Mapping[str, Any], results: Path, done: SyncResult) -> None:
        """Mirror the runs of one study, then its parent run."""
        with self._answers():
            experiment = self._experiment(study)
            parent = self._parent(experiment, study)
            there = self._children(experiment, parent)
        for run in study["runs"]:
            record = self.ledger.run(run)
            if not record.has("done.json"):
                done.unfinished.append(run)
                continue
            try:
                digest = sha256_file(record.path / "done.json")
                copies = there.get(run, [])
                if any(tags.get("fer_bench.digest") == digest for _, tags in copies):
                    done.skipped.append(run)
                    continue
                self._replace(experiment, parent, study["name"], record, digest, [i for i, _ in copies])
            except Exception as error:  # MLflow, its stores and its HTTP client raise whatever they like
                self._still_there(error)
                done.failed[run] = _first_line(error, self.uri)
            else:
                done.written.append(run)
        with self._answers():
            self._finish_parent(parent, study, results)

    def _experiment(self, study: Mapping[str, Any]) -> str:
        name = study["protocol"] if "/" in study["protocol"] else f"{study['dataset']}/{study['protocol']}"
        found = self.client.get_experiment_by_name(name)
        if found is None:
            tags = {"fer_bench.dataset": study["dataset"], "fer_bench.protocol": study["protocol"]}
            place = artifact_place(self.uri, self.ledger, name)
            return self.client.create_experiment(name, artifact_location=place, tags=tags)
        if found.lifecycle_stage == "deleted" and self.restore:
            self.client.restore_experiment(found.experiment_id)
        elif found.lifecycle_stage == "deleted":
            command = sync_command(self.ledger, study["name"], self.uri, restore=True)
            raise TrackingError(
                f"MLflow's experiment '{name}' has been deleted", where=public_address(self.uri), next=command
            )
        return found.experiment_id

    def _search(self, experiment: str, query: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs([experiment], query, order_by=["attributes.start_time"], page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _parent(self, experiment: str, study: Mapping[str, Any]) -> str:
        for run in self._search(experiment, "tags.`fer_bench.role` = 'study'"):
            if run.data.tags.get("fer_bench.study") == study["name"]:
                return run.info.run_id
        tags = tags_of({"role": "study", "study": study["name"]}, **_author())
        start = min((begin for begin, _ in spans(map(self.ledger.run, study["runs"]))), default=int(1000 * time.time()))
        return self.client.create_run(experiment, start_time=start, tags=tags, run_name=study["name"]).info.run_id

    def _children(self, experiment: str, parent: str) -> dict[str, list[tuple[str, dict[str, str]]]]:
        """Ledger run id -> its mirrored runs, as (MLflow's id, tags)."""
        found: dict[str, list[tuple[str, dict[str, str]]]] = {}
        for run in self._search(experiment, f"tags.`mlflow.parentRunId` = '{parent}'"):
            found.setdefault(run.data.tags.get("fer_bench.run_id"), []).append((run.info.run_id, run.data.tags))
        return found

    def _replace(
        self, experiment: str, parent: str, study: str, record: RunRecord, digest: str, old: Sequence[str]
    ) -> None:
        from mlflow.entities import Metric, Param

        content = mirrored(record)
        for run in old:
            self.client.delete_run(run)
        more = {"mlflow.parentRunId": parent, "fer_bench.role": "run", "fer_bench.study": study}
        tags = content.tags | _author() | more
        run = self.client.create_run(experiment, content.span[0], tags=tags, run_name=content.name).info.run_id
        params = [Param(k, v) for k, v in content.params.items()]
        for part in _chunks(params, ENTRIES_A_BATCH):
            self.client.log_batch(run, params=part)
        for part in _chunks([Metric(k, v, at, step) for k, v, step, at in content.metrics], METRICS_A_BATCH):
            self.client.log_batch(run, metrics=part)
        self.client.log_inputs(run, datasets=[_dataset_input(record)])
        for file in content.files:
            self._log_file(run, file)
        self.client.set_terminated(run, content.status, content.span[1])
        self.client.set_tag(run, "fer_bench.digest", digest)
        self.say(printable(f"mirrored {content.name}"))

    def _finish_parent(self, parent: str, study: Mapping[str, Any], results: Path) -> None:
        """Tags, report and status of the study's own run, where they changed."""
        study = hide_command(study)
        records = [r for r in map(self.ledger.run, study["runs"]) if r.has("done.json")]
        report = kept(results)
        files = {str(p.relative_to(results)): sha256_file(p) for p in report}
        state = canonical_json([study, [r.id for r in records], files])
        digest = hashlib.sha256(state.encode()).hexdigest()
        if self.client.get_run(parent).data.tags.get("fer_bench.digest") == digest:
            return
        tags = {k: str(study.get(k) or "") for k in ("kind", "command", "dataset", "protocol", "reference")}
        note = f"```\n{study.get('command', '')}\n```"
        for name, value in tags_of(tags, **{"mlflow.note.content": note[:TAG_LENGTH]}).items():
            self.client.set_tag(parent, name, value)
        for file in report:
            self._log_file(parent, file, str(Path("report", file.relative_to(results).parent)))
        end = max((end for _, end in spans(map(self.ledger.run, study["runs"]))), default=None)
        complete = len(records) == len(study["runs"])
        if complete:
            self.client.set_terminated(parent, "FINISHED", end)
        else:
            self.client.update_run(parent, "RUNNING")
        self.client.set_tag(parent, "fer_bench.digest", digest)
        self.say(f"mirrored study {study['name']}" + (" with its report" if report else ""))

    def _log_file(self, run: str, file: Path, folder: str = "") -> None:
        """Upload a file; the credentials in a text that an earlier version wrote are hidden in the copy."""
        text = text_of(file)
        if text is not None and hide(text, self.uri) != text:
            self.client.log_text(run, hide(text, self.uri), str(Path(folder, file.name)))
        else:
            self.client.log_artifact(run, str(file), folder or None)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except FerBenchError:
            raise
        except Exception as error:  # as above
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> TrackingError:
        upgrade = hint = None
        if "schema" in str(error) and holds_secret(self.uri):
            upgrade = 'mlflow db upgrade "$MLFLOW_TRACKING_URI"'
            hint = "put the address with its password into MLFLOW_TRACKING_URI first"
        elif "schema" in str(error):
            upgrade = shlex.join(["mlflow", "db", "upgrade", absolute(self.uri)])
        why = _first_line(error, self.uri)
        return TrackingError(
            f"MLflow could not be written: {why}", where=public_address(self.uri), hint=hint, next=upgrade
        )

    def _still_there(self, error: Exception) -> None:
        """Raise TrackingError if the server has gone: then the other runs needn't be tried."""
        if is_server(self.uri) and not isinstance(error, LedgerError):
            _probe(self.uri, self.timeout)


def _dataset_input(record: RunRecord) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = record.data
    profile = canonical_json({"classes": data["classes"], "counts": data.get("counts", {})})
    source = canonical_json({"layout": data.get("layout", "")})
    kind = "fer-bench store"
    dataset = Dataset(data["dataset"], data["fingerprint"][:36], kind, source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _author() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user id has no name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": "fer-bench", "mlflow.source.type": "LOCAL"}


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _first_line(error: BaseException, uri: str = "") -> str:
    text = error.what if isinstance(error, FerBenchError) else str(error)
    return printable(hide((text.strip() or type(error).__name__).splitlines()[0], uri)[:300])


# Addresses, time limits, locks ----------------------------------------------------------------------------------------


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


def _probe(uri: str, timeout: float) -> None:
    """Raise TrackingError unless something answers at `uri`; any answer will do, for MLflow reports the rest."""
    try:
        parts = urlsplit(uri)
        health = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/health")
        urllib.request.urlopen(urlunsplit(health._replace(query="", fragment="")), timeout=timeout).close()
    except urllib.error.HTTPError:
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # MLflow has its own settings for certificates
            return
        what = f"no answer from {public_address(uri)} ({hide(str(reason), uri)})"
        raise TrackingError(what, hint="start the server, or correct its address") from None


@contextmanager
def _http_limits(timeout: float) -> Iterator[None]:
    """MLflow waits for 2 minutes and tries 7 times; here it may not, unless the user has said so."""
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password with it
    }
    added = {k: v for k, v in limits.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _lock(ledger: Ledger) -> Iterator[None]:
    """One mirror at a time, or two processes that finish together would both create the study's run."""
    try:
        file = os.open(ledger.root / ".mlflow.lock", os.O_RDWR | os.O_CREAT)
    except OSError:  # a ledger that can only be read
        yield
        return
    end = time.monotonic() + LOCK_WAIT
    try:
        while not _locked(file):
            if time.monotonic() > end:
                raise TrackingError("another process is mirroring this ledger", where=str(ledger.root))
            time.sleep(0.1)
        yield
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# In a process of its own ----------------------------------------------------------------------------------------------


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
    command = [sys.executable, "-P", "-m", "fer_bench.tracking.sync"]  # -P: the user's folder may hold a mlflow.py
    try:  # the request goes by a pipe: a command line can be read by everybody on the machine
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=bound)
        told = _answer(done.stdout)
        for note in told.get("notes", ()):
            warn(hide(note, uri))
        again = told.get("next") or again
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"it had not ended after {bound:g} s"
    except Exception as error:  # the promise of this function
        reason = _first_line(error, uri)
    secret = holds_secret(uri) and uri != os.environ.get("MLFLOW_TRACKING_URI")
    where = ", with the server's address and password in MLFLOW_TRACKING_URI" * secret
    return f"MLflow was not updated: {hide(reason, uri)}; the ledger is complete; run `{again}` later{where}"


def _answer(output: str) -> dict[str, Any]:
    """What the helper tells in the last line of its output: MLflow may print others."""
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
