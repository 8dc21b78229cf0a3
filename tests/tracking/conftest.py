"""A ledger with a study, an empty MLflow store, and a real server on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from fer_bench.record.ledger import Ledger

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
