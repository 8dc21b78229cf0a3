"""The MLflow mirror when something is wrong: half-made databases, refused addresses, and the commands' answers."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from fer_bench.base.addresses import check_uri
from fer_bench.base.credentials import public_address
from fer_bench.cli.track import track as track_command
from fer_bench.cli.ui import _pages
from fer_bench.errors import LedgerError, TrackingError
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.tracking.background import try_sync
from fer_bench.tracking.sync import sync
from tests.tracking.conftest import (
    CHROMIUM,
    Ui,
    mlflow_client,
    runs_of,
    wait_for,
    write_run,
    write_study,
)


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
        code = "import sys, fer_bench.tracking.background, fer_bench.cli.ui\n"
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
        assert out.endswith(f"MLflow is running at {server} (stop it with Ctrl-C)\n\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ui.port), timeout=1)

    def test_ui_points_to_a_server_that_has_its_own(self, ledger):
        command = [sys.executable, "-c", "from fer_bench.cli.ui import ui; ui()", "--tracking-uri", "http://me:pw@h:1"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.strip() == "the tracking server has its own UI: http://h:1"
