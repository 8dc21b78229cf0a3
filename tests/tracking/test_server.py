"""The MLflow mirror on servers: a real one on loopback, dead ones, and passwords, which appear nowhere."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fer_bench.base.credentials import hide
from fer_bench.cli.track import track as track_command
from fer_bench.errors import TrackingError
from fer_bench.tracking.background import try_sync
from fer_bench.tracking.sync import sync
from tests.conftest import processes
from tests.tracking.conftest import (
    EPOCHS,
    black_hole,
    free_port,
    mlflow_client,
    runs_of,
    write_study,
)


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

    @pytest.mark.slow
    def test_a_silent_server_costs_its_time_limit(self, ledger):
        with black_hole() as address:
            sentence = try_sync(ledger, "first", address, timeout=1)
        assert "timed out" in sentence

    @pytest.mark.slow
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

        monkeypatch.setattr("fer_bench.tracking.server.check_server", probe)
        with pytest.raises(TrackingError, match="no answer"):
            sync(ledger, "dying", server)


PASSWORD = "s3cr3tpw"
COMMAND = f"fer-bench run rasn --tracking-uri http://alice:{PASSWORD}@127.0.0.1:9/"


def with_password(address):
    return address.replace("http://", f"http://alice:{PASSWORD}@")


def children():
    """Command lines of this process's children, as every user may read them."""
    return [command for _, parent, _, command in processes() if parent == os.getpid()]


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

    @pytest.mark.slow
    def test_the_command_line_of_the_helper_can_be_read_by_anybody(self, ledger):
        with black_hole() as address, ThreadPoolExecutor(1) as pool:
            done = pool.submit(try_sync, ledger, "first", with_password(address), timeout=600, bound=3)
            seen = []
            while not done.done():
                seen += children()
                time.sleep(0.05)
        assert any("fer_bench.tracking.background" in line for line in seen)
        assert not any(PASSWORD in line for line in seen)
        assert PASSWORD not in done.result()

    def test_a_password_with_brackets_is_a_sentence(self, ledger):
        sentence = try_sync(ledger, "first", "http://alice:s3cr[3tpw@127.0.0.1:9/")
        assert sentence.startswith("MLflow was not updated")
        assert "s3cr[" not in sentence
