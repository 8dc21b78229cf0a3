"""Writing a ledger's studies and runs to an MLflow store through its client."""

from __future__ import annotations

import getpass
import hashlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_bench.base.addresses import absolute, is_server
from fer_bench.base.credentials import hide, hide_command, holds_secret, public_address
from fer_bench.base.files import canonical_json, sha256_file
from fer_bench.errors import FerBenchError, LedgerError, TrackingError
from fer_bench.printable import printable
from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.tracking import server
from fer_bench.tracking.mlflow_database import client
from fer_bench.tracking.places import artifact_place, sync_command
from fer_bench.tracking.translate import TAG_LENGTH, kept, mirrored, spans, tags_of, text_of

METRICS_A_BATCH, ENTRIES_A_BATCH = 1000, 100  # MLflow's limits for one log_batch: metrics; parameters
Say = Callable[[str], None]


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


class Mirror:
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
                done.failed[run] = first_line(error, self.uri)
            else:
                done.written.append(run)
        with self._answers():
            self._finish_parent(parent, study, results)

    def _experiment(self, study: Mapping[str, Any]) -> str:
        name = study["protocol"] if "/" in study["protocol"] else f"{study['dataset']}/{study['protocol']}"
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            tags = {"fer_bench.dataset": study["dataset"], "fer_bench.protocol": study["protocol"]}
            place = artifact_place(self.uri, self.ledger, name)
            return self.client.create_experiment(name, artifact_location=place, tags=tags)
        if experiment.lifecycle_stage == "deleted" and self.restore:
            self.client.restore_experiment(experiment.experiment_id)
        elif experiment.lifecycle_stage == "deleted":
            command = sync_command(self.ledger, study["name"], self.uri, restore=True)
            raise TrackingError(
                f"MLflow's experiment '{name}' has been deleted", where=public_address(self.uri), next=command
            )
        return experiment.experiment_id

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
        copies: dict[str, list[tuple[str, dict[str, str]]]] = {}
        for run in self._search(experiment, f"tags.`mlflow.parentRunId` = '{parent}'"):
            copies.setdefault(run.data.tags.get("fer_bench.run_id"), []).append((run.info.run_id, run.data.tags))
        return copies

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
        why = first_line(error, self.uri)
        return TrackingError(
            f"MLflow could not be written: {why}", where=public_address(self.uri), hint=hint, next=upgrade
        )

    def _still_there(self, error: Exception) -> None:
        """Raise TrackingError if the server has gone: then the other runs needn't be tried."""
        if is_server(self.uri) and not isinstance(error, LedgerError):
            server.check_server(self.uri, self.timeout)


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


def first_line(error: BaseException, uri: str = "") -> str:
    """The first line of an error, without what must not be shown."""
    text = error.what if isinstance(error, FerBenchError) else str(error)
    return printable(hide((text.strip() or type(error).__name__).splitlines()[0], uri)[:300])
