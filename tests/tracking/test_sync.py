"""The MLflow mirror: a real SQLite store, a real server on loopback, dead servers, interrupted mirrors."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.base.credentials import hide
from fer_bench.cli.track import track as track_command
from fer_bench.cli.ui import _pages
from fer_bench.errors import LedgerError, TrackingError
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.tracking.sync import check_uri, public_address, sync, try_sync
from fer_bench.tracking.translate import class_keys, key, mirrored

CLASSES = ["angry", "disgust", "happy"]
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 2, 1, 2, 2, 2])  # recall 3/4, 1/2, 1: mean 0.75; accuracy 6/8
EPOCHS = 3
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STARTED, FINISHED = "2026-01-02T03:04:05+00:00", "2026-01-02T03:05:05+00:00"


def history(epochs):
    entry = {"stage": "main", "lr": 0.1, "train_loss": 1.5, "train_accuracy": 0.25, "val_loss": 1.0}
    entry |= {"val_accuracy": 0.5, "val_mean_recall": 0.5, "val_macro_f1": 0.5, "val_recall": [0.5, None, 1.0]}
    return [{**entry, "epoch": e, "train_loss": 1.5 - 0.1 * e} for e in range(epochs)]


def write_run(ledger, run, *, seed=0, status="finished", epochs=EPOCHS, params=None, watermark="", done=True):
    """One record as the harness writes it."""
    writer = ledger.writer(run)
    writer.start()
    params = {"share.source": "ema", "gamma": 2.0} if params is None else params
    spec = {"method": "rasn", "params": params, "dataset": "toy", "dataset_params": {}, "protocol": "official"}
    spec |= {"fold": None, "profile": "exp:50", "backbone": "resnet18", "pretrained": False, "seed": seed}
    spec |= {"selection": {"rule": "best", "metric": "mean_recall"}, "recipe": {"epochs": epochs, "lr": 0.1}}
    label = "rasn[share.source=ema]"
    writer.put("spec", {"run_id": run, "label": label, "spec": spec, "fingerprint": "f" * 64, "source": "abc"})
    counts = {"train": [4, 1, 3], "val": [4, 2, 2], "test": [4, 2, 2]}
    protocol = {"name": "official", "watermark": watermark}
    data = {"dataset": "toy", "classes": CLASSES, "fingerprint": "f" * 64, "layout": "csv"}
    writer.put("data", data | {"protocol": protocol, "counts": counts})
    writer.put("method", {"name": "rasn", "title": "RASN", "transductive": True})
    writer.put("history", history(epochs))
    timing = {"started": STARTED, "finished": FINISHED, "epoch_seconds": [10.0] * epochs, "total_seconds": 60.0}
    writer.put("timing", timing | {"images_per_second": [100.0] * epochs, "device": "cpu"})
    writer.put("environment", {"python": "3.11"})
    if status == "finished":
        writer.put("selection", {"rule": "best", "metric": "mean_recall", "epoch": 1, "value": 0.5, "candidates": []})
        writer.put("seal", {"count": 1, "openings": [], "blocked": 0})
        checks = [{"name": "alone", "max_difference": 0.125, "flipped": 3}]
        writer.put("probe", {"transductive": True, "checks": checks})
        for role in ("val", "test"):
            writer.put(f"{role}_labels", LABELS)
            writer.put(f"{role}_logits", np.eye(3, dtype=np.float32)[PREDICTED])
        (writer.path / "model.pt").write_bytes(b"weights")
    if done:
        writer.finish(status)
    return run


def write_study(ledger, name, runs, **more):
    study = {"name": name, "command": f"fer-bench run rasn --name {name}", "dataset": "toy", "protocol": "official"}
    study |= {"runs": runs, "methods": ["rasn[share.source=ema]"], "reference": None, "kind": "run"}
    ledger.put_study(name, study | more)


@pytest.fixture
def ledger(tmp_path):
    """A home with one study of two finished runs."""
    ledger = Ledger(tmp_path / "home" / "ledger")
    write_study(ledger, "first", [write_run(ledger, "a" * 16), write_run(ledger, "b" * 16, seed=1)])
    return ledger


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    """An empty MLflow database; creating one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(schema, tmp_path):
    """A fresh SQLite store."""
    shutil.copy(schema, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Ui:
    """``fer-bench ui`` on a free port of the loopback interface: a real MLflow server, started when first needed."""

    def __init__(self, home):
        self.home, self.process = home, None

    @property
    def address(self):
        if self.process is None:
            self.port = free_port()
            self.process = subprocess.Popen(self.command(), stdout=-1, stderr=-1, text=True, env=self.environment())
            wait_for(f"http://127.0.0.1:{self.port}/health")
        return f"http://127.0.0.1:{self.port}"

    def command(self):
        code = "from fer_bench.cli.ui import ui; ui()"
        return [sys.executable, "-c", code, "--home", str(self.home), "--port", str(self.port)]

    def environment(self):
        return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}

    def ctrl_c(self):
        """Exit code, output and errors of the command, interrupted once it has said where it listens."""
        process, self.process = self.process, None
        said = next(line for line in process.stdout if "Ctrl-C" in line)
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=300), said + process.stdout.read(), process.stderr.read()


@pytest.fixture(scope="module")
def ui(schema, tmp_path_factory):
    """The project's own MLflow server."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(schema, home / "mlflow.db")
    ui = Ui(home)
    yield ui
    if ui.process is not None:
        ui.ctrl_c()


@pytest.fixture
def server(ui):
    """Address of a running MLflow server."""
    return ui.address


def mlflow_client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=2).read()
        time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def runs_of(uri, role, study=None, experiment="toy/official"):
    """Active mirrored runs of one role, by ledger id or study name."""
    client = mlflow_client(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    found = [r for r in found if r.data.tags["fer_bench.role"] == role]
    name = "fer_bench.run_id" if role == "run" else "fer_bench.study"
    return {r.data.tags[name]: r for r in found if study in (None, r.data.tags["fer_bench.study"])}


@contextlib.contextmanager
def black_hole():
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class TestContent:
    def test_a_run_carries_the_parameters_of_its_spec(self, ledger, uri):
        sync(ledger, "first", uri)
        params = runs_of(uri, "run")["b" * 16].data.params
        assert params["method"] == "rasn"
        assert params["method.share.source"] == "ema"
        assert params["method.gamma"] == "2.0"
        assert params["recipe.epochs"] == "3"
        assert params["selection.metric"] == "mean_recall"
        assert (params["seed"], params["profile"], params["pretrained"]) == ("1", "exp:50", "false")

    def test_test_scores_are_computed_from_the_logits(self, ledger, uri):
        sync(ledger, "first", uri)
        metrics = runs_of(uri, "run")["a" * 16].data.metrics
        assert metrics["test_accuracy"] == 6 / 8
        assert metrics["test_mean_recall"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
        assert [metrics[f"test_recall/{c}"] for c in CLASSES] == [3 / 4, 1 / 2, 1.0]
        f1 = [2 * 3 / (4 + 3), 2 * 1 / (2 + 1), 2 * 2 / (2 + 4)]
        assert metrics["test_macro_f1"] == pytest.approx(sum(f1) / 3)
        assert (metrics["selected_epoch"], metrics["selected_value"]) == (2, 0.5)
        assert (metrics["probe/alone/max_difference"], metrics["probe/alone/flipped"]) == (0.125, 3)

    def test_the_history_becomes_curves_with_the_times_of_the_run(self, ledger, uri):
        sync(ledger, "first", uri)
        run = runs_of(uri, "run")["a" * 16]
        curve = mlflow_client(uri).get_metric_history(run.info.run_id, "train_loss")
        start = int(1000 * datetime.fromisoformat(STARTED).timestamp())
        assert [(m.step, m.value) for m in curve] == [(1, 1.5), (2, 1.4), (3, 1.3)]
        assert [m.timestamp - start for m in curve] == [10_000, 20_000, 30_000]
        assert (run.info.start_time - start, run.info.end_time - start) == (0, 60_000)
        assert run.data.metrics["val_recall/happy"] == 1.0
        assert "val_recall/disgust" not in run.data.metrics, "a class without images has no recall"

    def test_long_histories_exceed_no_limit_of_a_batch(self, ledger, uri):
        run = write_run(ledger, "c" * 16, epochs=300, params={f"p{i:03}": i for i in range(150)} | {"long": "x" * 9000})
        write_study(ledger, "long", [run])
        assert sync(ledger, "long", uri).failed == {}
        found = runs_of(uri, "run")[run]
        assert len(mlflow_client(uri).get_metric_history(found.info.run_id, "lr")) == 300
        assert found.data.params["method.p149"] == "149"
        assert len(found.data.params["method.long"]) == 6000

    def test_records_weights_and_report_are_artifacts(self, ledger, uri, tmp_path):
        report = tmp_path / "home" / "results" / "first"
        (report / "figures").mkdir(parents=True)
        (report / "report.md").write_text("# Report")
        (report / "figures" / "recall.png").write_bytes(b"png")
        sync(ledger, "first", uri)
        client = mlflow_client(uri)
        child, parent = runs_of(uri, "run")["a" * 16], runs_of(uri, "study")["first"]
        names = {f.path for f in client.list_artifacts(child.info.run_id)}
        assert names >= {"spec.json", "selection.json", "probe.json", "history.json", "model.pt"}
        assert Path(client.download_artifacts(child.info.run_id, "model.pt")).read_bytes() == b"weights"
        assert Path(client.download_artifacts(parent.info.run_id, "report/report.md")).read_text() == "# Report"
        assert [f.path for f in client.list_artifacts(parent.info.run_id, "report/figures")] == [
            "report/figures/recall.png"
        ]
        assert Path(child.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path), (
            "not in the current folder"
        )

    def test_a_transductive_run_under_a_leaky_protocol_says_so(self, ledger, uri):
        write_study(ledger, "leaky", [write_run(ledger, "d" * 16, watermark="the epoch is selected on the test set")])
        sync(ledger, "leaky", uri)
        run = runs_of(uri, "run")["d" * 16]
        assert run.info.run_name.startswith("⚠ ")
        assert run.data.tags["fer_bench.transductive"] == "true"
        assert "selected on the test set" in run.data.tags["mlflow.note.content"]
        assert run.inputs.dataset_inputs[0].dataset.name == "toy"

    def test_a_pruned_trial_shows_its_curves_and_no_test(self, ledger, uri):
        write_study(ledger, "tuning", [write_run(ledger, "e" * 16, status="pruned")], kind="tune")
        assert sync(ledger, "tuning", uri).written == ["e" * 16]
        run = runs_of(uri, "run")["e" * 16]
        assert run.info.status == "KILLED"
        assert run.data.metrics["val_mean_recall"] == 0.5
        assert not [m for m in run.data.metrics if m.startswith("test")]

    @pytest.mark.parametrize("name", ["wütend", "a/b", "..", "", "50%", "x" * 300])
    def test_odd_class_names_become_names_that_mlflow_accepts(self, name):
        from mlflow.utils.validation import _validate_metric_name, _validate_param_name

        for made in (key("val_recall", name), *class_keys("val_recall", [name, name])):
            _validate_metric_name(made)
            _validate_param_name(made)
        assert len(set(class_keys("val_recall", ["a%", "a&"]))) == 2

    def test_a_record_without_times_uses_its_age(self, ledger):
        record = ledger.run("a" * 16)
        (record.path / "timing.json").unlink()
        at = int(1000 * (record.path / "done.json").stat().st_mtime)
        assert mirrored(record).span == (at, at)


class TestIdempotence:
    def test_a_second_sync_writes_nothing(self, ledger, uri, tmp_path):
        first = sync(ledger, "first", uri)
        before = (tmp_path / "mlflow.db").read_bytes()
        second = sync(ledger, "first", uri)
        assert (first.written, second.written) == (["a" * 16, "b" * 16], [])
        assert second.skipped == first.written
        assert (tmp_path / "mlflow.db").read_bytes() == before

    def test_a_later_report_reaches_the_parent_alone(self, ledger, uri, tmp_path):
        sync(ledger, "first", uri)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "report.md").write_text("late")
        assert sync(ledger, "first", uri, results=tmp_path / "elsewhere").written == []
        parent = runs_of(uri, "study")["first"].info.run_id
        assert [f.path for f in mlflow_client(uri).list_artifacts(parent, "report")] == ["report/report.md"]

    @pytest.mark.parametrize("step", ["log_batch", "log_artifact", "set_terminated", "set_tag"])
    def test_an_interrupted_mirror_is_completed(self, ledger, uri, monkeypatch, step):
        from mlflow import MlflowClient

        def die(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, die)
            with pytest.raises(KeyboardInterrupt):
                sync(ledger, "first", uri)
        assert sync(ledger, "first", uri).written == ["a" * 16, "b" * 16]
        client = mlflow_client(uri)
        experiment = client.get_experiment_by_name("toy/official").experiment_id
        found = runs_of(uri, "run")
        assert len(client.search_runs([experiment])) == 3, "one parent, two children, no half-written copy"
        assert {r.info.status for r in found.values()} == {"FINISHED"}
        assert all(r.data.metrics["test_accuracy"] == 0.75 for r in found.values())

    def test_a_run_of_two_studies_appears_under_each(self, ledger, uri):
        write_study(ledger, "second", ["a" * 16])
        sync(ledger, None, uri)
        parents = runs_of(uri, "study")
        for study in ("first", "second"):
            child = runs_of(uri, "run", study)["a" * 16]
            assert child.data.tags["mlflow.parentRunId"] == parents[study].info.run_id

    def test_a_study_runs_until_its_last_run_is_mirrored(self, ledger, uri):
        write_study(ledger, "growing", ["a" * 16, write_run(ledger, "c" * 16, done=False)])
        assert sync(ledger, "growing", uri).unfinished == ["c" * 16]
        assert runs_of(uri, "study")["growing"].info.status == "RUNNING"
        ledger.writer("c" * 16).finish()
        assert sync(ledger, "growing", uri).written == ["c" * 16]
        assert runs_of(uri, "study")["growing"].info.status == "FINISHED"

    def test_a_run_trained_anew_replaces_its_copy(self, ledger, uri):
        sync(ledger, "first", uri)
        shutil.rmtree(ledger.root / ("a" * 16))
        write_run(ledger, "a" * 16, epochs=5)
        assert sync(ledger, "first", uri).written == ["a" * 16]
        assert runs_of(uri, "run")["a" * 16].data.params["recipe.epochs"] == "5"

    def test_a_damaged_record_fails_alone(self, ledger, uri):
        (ledger.root / ("a" * 16) / "test_logits.npy").write_bytes(b"torn")
        done = sync(ledger, "first", uri)
        assert done.written == ["b" * 16]
        assert "test_logits.npy" in done.failed["a" * 16]
        assert set(runs_of(uri, "run")) == {"b" * 16}

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("timing.json", '{"started": [], "finished": 3, "epoch_seconds": "long"}'),
            ("timing.json", "[]"),
            ("spec.json", '{"spec": [], "label": 3}'),
            ("data.json", '{"classes": 3}'),
            ("history.json", '[{"epoch": "last"}]'),
            ("done.json", "{"),
        ],
    )
    def test_a_record_of_other_types_fails_alone(self, ledger, uri, name, content):
        (ledger.root / ("a" * 16) / name).write_text(content)
        done = sync(ledger, "first", uri)
        assert done.written == ["b" * 16]
        assert set(done.failed) == {"a" * 16}

    def test_a_study_that_can_not_be_read_fails_alone(self, ledger, uri):
        (ledger.root / "studies" / "bad.json").write_text("")
        (ledger.root / "studies" / "odd.json").write_text('{"runs": []}')
        done = sync(ledger, None, uri)
        assert done.written == ["a" * 16, "b" * 16]
        assert done.failed == {
            "study bad": "the record of study 'bad' is damaged: it is empty",
            "study odd": "study 'odd' names no dataset and no protocol",
        }
        with pytest.raises(LedgerError, match="the record of study 'bad' is damaged"):
            sync(ledger, "bad", uri)
        said = CliRunner().invoke(
            track_command, ["sync", "--all", "--home", str(ledger.root.parent), "--tracking-uri", uri]
        )
        assert "2 already there, 2 failed" in said.output
        assert "2 studies were not mirrored" in str(said.exception)

    def test_what_is_half_written_or_hidden_is_no_artifact(self, ledger, uri, tmp_path):
        report = tmp_path / "home" / "results" / "first"
        for name in ("report.md", ".report-x.held/report.md", ".fer-bench-report.json", "figures/.recall.png.1.part"):
            (report / name).parent.mkdir(parents=True, exist_ok=True)
            (report / name).write_text("text")
        (report / "figures" / "recall.png").write_bytes(b"png")
        sync(ledger, "first", uri)
        client, parent = mlflow_client(uri), runs_of(uri, "study")["first"].info.run_id
        assert [f.path for f in client.list_artifacts(parent, "report")] == ["report/figures", "report/report.md"]
        assert [f.path for f in client.list_artifacts(parent, "report/figures")] == ["report/figures/recall.png"]

    def test_mirrors_that_start_together_share_one_parent(self, ledger, uri):
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: sync(ledger, "first", uri).written, range(3)))
        assert sorted(done) == [[], [], ["a" * 16, "b" * 16]]
        client = mlflow_client(uri)
        assert len(client.search_runs([client.get_experiment_by_name("toy/official").experiment_id])) == 3


class TestServer:
    def test_a_real_server_receives_everything(self, ledger, server):
        assert try_sync(ledger, "first", server) is None
        run = runs_of(server, "run", "first")["a" * 16]
        client = mlflow_client(server)
        assert run.data.metrics["test_accuracy"] == 0.75
        assert len(client.get_metric_history(run.info.run_id, "lr")) == EPOCHS
        assert Path(client.download_artifacts(run.info.run_id, "model.pt")).read_bytes() == b"weights"
        assert sync(ledger, "first", server).written == []

    def test_a_refused_connection_is_a_sentence_and_a_later_sync_fills_it(self, ledger, server):
        write_study(ledger, "later", ["a" * 16])
        dead = f"http://127.0.0.1:{free_port()}"
        sentence = try_sync(ledger, "later", dead)
        assert "refused" in sentence
        again = f"fer-bench track sync later --home {ledger.root.parent} --tracking-uri {dead}"
        assert f"the ledger is complete; run `{again}` later" in sentence
        assert "\n" not in sentence
        assert sync(ledger, "later", server).written == ["a" * 16]

    def test_a_silent_server_costs_its_time_limit(self, ledger):
        with black_hole() as address:
            sentence = try_sync(ledger, "first", address, timeout=1)
        assert "timed out" in sentence

    def test_no_server_can_hold_the_caller_beyond_the_bound(self, ledger):
        start = time.monotonic()
        with black_hole() as address:
            sentence = try_sync(ledger, "first", address, timeout=600, bound=2)
        assert time.monotonic() - start < 300  # half of what the server was given
        assert "had not ended after 2 s" in sentence

    def test_a_server_that_dies_in_between_ends_the_sync(self, ledger, server, monkeypatch):
        write_study(ledger, "dying", ["a" * 16, "b" * 16])

        def reset(*args, **kwargs):
            raise OSError("connection reset")

        monkeypatch.setattr("mlflow.MlflowClient.log_batch", reset)
        assert set(sync(ledger, "dying", server).failed) == {"a" * 16, "b" * 16}, "the server still answers: go on"
        probes = iter([None, TrackingError("no answer")])

        def probe(uri, timeout):
            if error := next(probes):
                raise error

        monkeypatch.setattr("fer_bench.tracking.sync._probe", probe)
        with pytest.raises(TrackingError, match="no answer"):
            sync(ledger, "dying", server)


PASSWORD = "s3cr3tpw"
COMMAND = f"fer-bench run rasn --tracking-uri http://alice:{PASSWORD}@127.0.0.1:9/"


def with_password(address):
    return address.replace("http://", f"http://alice:{PASSWORD}@")


def children():
    """Command lines of this process's children, as every user may read them."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_text())
    return found


class TestSecrets:
    def test_what_an_earlier_version_has_kept_is_hidden_on_its_way_to_mlflow(self, ledger, uri, tmp_path):
        home = tmp_path / "home"
        study = json.loads((ledger.root / "studies" / "first.json").read_text())
        (ledger.root / "studies" / "first.json").write_text(json.dumps(study | {"command": COMMAND}))
        (ledger.root / ("a" * 16) / "environment.json").write_text(json.dumps({"command": COMMAND.split()}))
        (home / "results" / "first" / "tables").mkdir(parents=True)
        (home / "results" / "first" / "report.md").write_text(f"# Report\n\n    {COMMAND}\n")
        (home / "results" / "first" / "tables" / "main.tex").write_text(f"% {COMMAND}\n")
        assert sync(ledger, "first", uri).failed == {}
        stored = [p for p in tmp_path.rglob("*") if p.is_file() and home not in p.parents]
        assert {"environment.json", "report.md", "main.tex"} <= {p.name for p in stored}
        assert [p for p in stored if PASSWORD.encode() in p.read_bytes()] == []
        parent = runs_of(uri, "study")["first"]
        assert parent.data.tags["fer_bench.command"] == "fer-bench run rasn --tracking-uri 'http://***@127.0.0.1:9/'"

    def test_a_report_without_credentials_is_mirrored_as_it_is(self):
        committed = Path(__file__).parents[2] / "docs" / "results"
        for page in committed.rglob("report.*"):
            assert hide(page.read_text()) == page.read_text(), page

    @pytest.mark.parametrize("suppressed", ["true", "false"])
    def test_mlflow_prints_no_password_to_the_terminal(self, ledger, server, monkeypatch, capfd, suppressed):
        monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", suppressed)
        write_study(ledger, f"printed-{suppressed}", ["a" * 16])
        words = ["sync", f"printed-{suppressed}", "--home", str(ledger.root.parent)]
        track_command([*words, "--tracking-uri", with_password(server)], standalone_mode=False)
        out, err = capfd.readouterr()
        assert "1 written" in out
        assert ("View run" in out) == (suppressed == "false"), "else this test shows nothing"
        assert PASSWORD not in out + err

    def test_a_refused_address_is_told_without_its_password_and_with_a_command_that_works(self, ledger):
        sentence = try_sync(ledger, "first", with_password(f"http://127.0.0.1:{free_port()}"))
        assert "refused" in sentence
        assert PASSWORD not in sentence
        again = f"run `fer-bench track sync first --home {ledger.root.parent}` later"
        assert f"{again}, with the server's address and password in MLFLOW_TRACKING_URI" in sentence

    def test_the_command_line_of_the_helper_can_be_read_by_anybody(self, ledger):
        with black_hole() as address, ThreadPoolExecutor(1) as pool:
            done = pool.submit(try_sync, ledger, "first", with_password(address), timeout=600, bound=3)
            seen = []
            while not done.done():
                seen += children()
                time.sleep(0.05)
        assert any("fer_bench.tracking.sync" in line for line in seen)
        assert not any(PASSWORD in line for line in seen)
        assert PASSWORD not in done.result()

    def test_a_password_with_brackets_is_a_sentence(self, ledger):
        sentence = try_sync(ledger, "first", "http://alice:s3cr[3tpw@127.0.0.1:9/")
        assert sentence.startswith("MLflow was not updated")
        assert "s3cr[" not in sentence


class TestMending:
    def test_after_a_half_made_database_all_studies_are_mirrored_and_it_is_said(self, ledger, schema, tmp_path):
        write_study(ledger, "second", [write_run(ledger, "c" * 16)])
        database = tmp_path / "home" / "mlflow.db"
        with (
            contextlib.closing(sqlite3.connect(database)) as half,
            contextlib.closing(sqlite3.connect(schema)) as whole,
        ):
            for (sql,) in whole.execute(
                "SELECT sql FROM sqlite_master WHERE name IN ('experiments', 'runs')"
            ).fetchall():
                half.execute(sql)
        os.utime(database, (time.time() - 60,) * 2)
        told = []
        assert try_sync(ledger, "first", f"sqlite:///{database}", warn=told.append) is None
        assert len(told) == 1
        assert "half made" in told[0]
        assert set(runs_of(f"sqlite:///{database}", "run")) == {"a" * 16, "b" * 16, "c" * 16}

    def test_a_deleted_experiment_is_brought_back_by_the_command_that_is_printed(self, ledger, uri, tmp_path):
        sync(ledger, "first", uri)
        client = mlflow_client(uri)
        client.delete_experiment(client.get_experiment_by_name("toy/official").experiment_id)
        sentence = try_sync(ledger, "first", uri)
        command = sentence.partition("run `")[2].partition("`")[0]
        assert command == f"fer-bench track sync first --home {ledger.root.parent} --tracking-uri {uri} --restore"
        write_study(ledger, "first", ["a" * 16, "b" * 16, write_run(ledger, "c" * 16)])
        done = CliRunner().invoke(track_command, shlex.split(command)[2:])
        assert "1 written, 2 already there" in done.output
        assert len(runs_of(uri, "run")) == 3

    def test_the_database_of_an_older_mlflow_is_kept_and_the_command_that_upgrades_it_named(
        self, ledger, uri, tmp_path
    ):
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            database.execute("UPDATE alembic_version SET version_num = '0a8213491aaa'")
            database.commit()
        os.utime(tmp_path / "mlflow.db", (time.time() - 60,) * 2)
        with pytest.raises(TrackingError, match="out-of-date") as caught:
            sync(ledger, "first", uri)
        assert caught.value.next == f"mlflow db upgrade {uri}"
        assert not list(tmp_path.glob("*half-made*"))

    def test_a_home_with_a_question_mark_holds_its_store_and_the_ui_shows_it(self, schema, tmp_path):
        home = tmp_path / "h?x %41 ü#"
        ledger = Ledger(home / "ledger")
        write_study(ledger, "first", [write_run(ledger, "a" * 16)])
        shutil.copy(schema, home / "mlflow.db")
        assert try_sync(ledger, "first", Home(home).tracking_uri) is None
        assert sorted(os.listdir(home)) == ["ledger", "mlflow-artifacts", "mlflow.db"]
        assert os.listdir(tmp_path) == [home.name]
        ui = Ui(home)
        try:
            run = runs_of(ui.address, "run", "first")["a" * 16].info.run_id
            assert wait_for(f"{ui.address}/get-artifact?path=model.pt&run_uuid={run}") == b"weights"
        finally:
            assert ui.ctrl_c()[0] == 0
        assert os.listdir(tmp_path) == [home.name]

    def test_leftovers_and_links_are_not_uploaded(self, ledger, uri, tmp_path):
        report = tmp_path / "home" / "results" / "first"
        (report / ".report-x1").mkdir(parents=True)
        (report / ".report-x1" / "report.html").write_text("half")
        (report / ".table.csv.123.part").write_text("half")
        (report / "report.md").write_text("whole")
        (tmp_path / "private").write_text("private")
        (report / "notes.md").symlink_to(tmp_path / "private")
        (ledger.root / ("a" * 16) / "probe.json").unlink()
        (ledger.root / ("a" * 16) / "method.json").unlink()
        (ledger.root / ("a" * 16) / "model.pt").unlink()
        (ledger.root / ("a" * 16) / "model.pt").symlink_to(tmp_path / "private")
        assert sync(ledger, "first", uri).failed == {}
        stored = [p for p in (tmp_path / "mlflow-artifacts").rglob("*") if p.is_file()]
        assert [p.name for p in stored if "report" in p.parts] == ["report.md"]
        assert not [p for p in stored if p.read_bytes() == b"private"]


class TestRefusals:
    @pytest.mark.parametrize("uri", ["file:/tmp/mlruns", "file:///tmp/mlruns", "./mlruns", ""])
    def test_a_folder_is_refused_and_sqlite_named(self, ledger, uri):
        with pytest.raises(TrackingError, match="sqlite:///"):
            sync(ledger, "first", uri)
        assert "sqlite:///" in try_sync(ledger, "first", uri)

    def test_an_unknown_scheme_is_refused(self):
        with pytest.raises(TrackingError, match="known: sqlite"):
            check_uri("ftp://host/store")

    def test_passwords_are_not_shown(self):
        assert public_address("postgresql://me:secret@host/db") == "postgresql://host/db"

    def test_without_mlflow_there_is_a_sentence(self, ledger, uri, tmp_path, monkeypatch):
        (tmp_path / "mlflow.py").write_text("raise ImportError('No module named mlflow')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert "mlflow can't be imported" in try_sync(ledger, "first", uri)

    def test_a_file_that_is_no_database_is_an_error_not_a_traceback(self, ledger, tmp_path):
        (tmp_path / "bad.db").write_text("this is not a database" * 100)
        with pytest.raises(TrackingError):
            sync(ledger, "first", f"sqlite:///{tmp_path / 'bad.db'}")

    def test_an_unknown_study_is_named(self, ledger, uri):
        with pytest.raises(LedgerError, match="known: first"):
            sync(ledger, "frist", uri)

    def test_importing_the_mirror_imports_no_mlflow(self):
        code = "import sys, fer_bench.tracking.sync, fer_bench.cli.ui\n"
        code += "sys.exit(bool({'mlflow', 'torch'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestCommands:
    def test_track_sync_takes_the_study_written_last(self, ledger, uri):
        arguments = ["sync", "--home", str(ledger.root.parent), "--tracking-uri", uri]
        assert "2 written" in CliRunner().invoke(track_command, arguments).output
        again = CliRunner().invoke(track_command, [*arguments, "--all"])
        assert "0 written, 2 already there" in again.output

    def test_ui_shows_the_page_the_experiment_and_the_files(self, ledger, server):
        write_study(ledger, "seen", ["a" * 16])
        sync(ledger, "seen", server)
        assert b"<title>MLflow" in wait_for(server)
        url = f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=toy/official"
        assert json.loads(wait_for(url))["experiment"]["name"] == "toy/official"
        run = runs_of(server, "run", "seen")["a" * 16].info.run_id
        assert wait_for(f"{server}/get-artifact?path=model.pt&run_uuid={run}") == b"weights"

    def test_ui_tells_where_the_runs_of_each_experiment_are(self, ledger, server):
        other = "toy/before"
        write_study(ledger, "old", ["a" * 16], protocol=other)
        sync(ledger, "old", server)
        write_study(ledger, "seen", ["a" * 16])
        sync(ledger, "seen", server)
        mlflow_client(server).create_experiment("of somebody else")
        (name, page), *rest = _pages(server, Home(ledger.root.parent))
        assert name == "toy/official", "of the study written last"
        assert other in [name for name, _ in rest]
        assert "of somebody else" not in [name for name, _ in rest]
        assert [name for name, _ in rest] == sorted(name for name, _ in rest)
        experiment = mlflow_client(server).get_experiment_by_name("toy/official").experiment_id
        assert page == f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        assert _pages("http://127.0.0.1:9", Home(ledger.root.parent)) == []

    @pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
    def test_the_address_shows_the_runs_in_a_browser(self, ledger, server, tmp_path):
        write_study(ledger, "seen-in-a-browser", ["a" * 16])
        sync(ledger, "seen-in-a-browser", server)
        _, page = _pages(server, Home(ledger.root.parent))[0]
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
        command = [CHROMIUM, *options, "--virtual-time-budget=30000", page]
        for _ in range(3):  # a busy machine may not have drawn the page within the browser's own time
            dom = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
            if "seen-in-a-browser" in dom:
                break
        assert "seen-in-a-browser" in dom
        assert "matching run" in dom

    def test_ui_shows_files_that_were_mirrored_into_its_store_directly(self, ledger, ui):
        write_study(ledger, "direct", ["a" * 16], protocol="other")
        sync(ledger, "direct", f"sqlite:///{ui.home / 'mlflow.db'}")
        run = runs_of(ui.address, "run", "direct", "toy/other")["a" * 16].info.run_id
        assert wait_for(f"{ui.address}/get-artifact?path=model.pt&run_uuid={run}") == b"weights"

    def test_ui_names_a_port_in_use(self, ui, server):
        second = subprocess.run(ui.command(), capture_output=True, text=True, env=ui.environment())
        assert second.returncode == 1
        assert f"can't listen on 127.0.0.1:{ui.port}: Address already in use" in second.stderr

    def test_ui_ends_quietly_on_ctrl_c(self, ui, server):
        code, out, err = ui.ctrl_c()
        assert (code, err) == (0, "")
        assert out.endswith(f"MLflow is at {server} (Ctrl-C ends it)\n\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ui.port), timeout=1)

    def test_ui_points_to_a_server_that_has_its_own(self, ledger):
        command = [sys.executable, "-c", "from fer_bench.cli.ui import ui; ui()", "--tracking-uri", "http://me:pw@h:1"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.strip() == "the tracking server shows its own UI: http://h:1"
