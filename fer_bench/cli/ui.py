"""``fer-bench ui``: the MLflow UI for this project."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

import click

from fer_bench.base.addresses import check_uri, is_server, sqlite_path
from fer_bench.base.credentials import hide, public_address
from fer_bench.cli.follow_up import follow_up
from fer_bench.cli.options import home_option, number_option, tracking_option
from fer_bench.errors import FerBenchError, TrackingError
from fer_bench.record.home import Home

TRAINING = "workflowType=machine_learning"  # otherwise MLflow opens its pages for language models
START = 120.0  # seconds to wait for MLflow; creating its database alone can take ten


@click.command("ui")
@home_option
@tracking_option
@number_option("--port", int, 1, 65535, "Port to listen on.", default=5000)
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    show_default=True,
    help="Address to listen on; 0.0.0.0 accepts other machines.",
)
def ui(home: str | None, tracking_uri: str | None, port: int, host: str) -> None:
    """Serve the mirrored studies in MLflow's web UI; stop it with Ctrl-C.

    MLflow's start page is for language model traces, so the address of each experiment's runs is printed as well.
    """
    from fer_bench.tracking.places import artifact_place

    place = Home.find(home)
    uri = tracking_uri or place.tracking_uri
    check_uri(uri)
    if is_server(uri):
        click.echo(f"the tracking server has its own UI: {public_address(uri)}")
        return
    _require_free(host, port)
    files = artifact_place(uri, place.ledger, "other")
    with _opened(uri) as address:
        _serve(address, host, port, os.path.dirname(files) if files else None, place)


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[str]:
    """The address under which MLflow opens the store; creates the database first, safe from interruptions."""
    from fer_bench.cli.track import sync
    from fer_bench.tracking.mlflow_database import prepare_database, reachable

    file = sqlite_path(uri)
    if file is None:
        yield uri
        return
    exists = file.is_file() and file.stat().st_size
    if not exists:
        click.echo(f"no runs are mirrored yet; to mirror them: {follow_up('track sync', sync)}")
        click.echo("creating MLflow's database ...")
    if prepare_database(file, click.echo, writable=not exists):
        click.echo(f"to fill it from the ledger: {follow_up('track sync', sync, '--all')}")
    with reachable(file) as address:
        yield address


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            what = f"can't listen on {host}:{port}: {error.strerror or error}"
            next_port = follow_up("ui", ui, "--port", str(port % 65535 + 1), leave=["port"])
            raise TrackingError(what, next=next_port) from error


def _serve(uri: str, host: str, port: int, files: str | None, place: Home) -> None:
    """Run the server in its own session, so that Ctrl-C reaches only us and it ends quietly."""
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", files] if files else []
    quiet = {"MLFLOW_LOGGING_LEVEL": "ERROR", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # it would start workers for features that are not used here
    env = {**quiet, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}  # not as an option: it may contain a password
    env.pop("MLFLOW_TRACKING_URI", None)
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    address = f"http://{name}:{port}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            click.echo(f"starting MLflow on {address} ...")
            _await(server, address)
            for name, page in _pages(address, place):
                click.echo(f"runs on {name}: {page}")
            click.echo(f"MLflow is running at {address} (stop it with Ctrl-C)")
            server.wait()
            raise TrackingError("MLflow stopped unexpectedly", where=address)
        except TrackingError as error:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            last = hide("\n         ".join(lines[-5:]), uri)
            raise TrackingError(error.what, where=address, hint=last) from error
        except KeyboardInterrupt:
            click.echo()
        finally:
            _stop(server)


def _await(server: subprocess.Popen, address: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        if server.poll() is not None:
            raise TrackingError(f"MLflow did not start (exit code {server.returncode})")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        time.sleep(0.2)
    raise TrackingError(f"MLflow did not answer within {START:g} s")


def _pages(address: str, place: Home) -> list[tuple[str, str]]:
    """The name of each of our experiments and the address of its runs; that of the most recent study comes first.

    Empty if the server does not answer; its start page leads to the runs as well.
    """
    addresses = {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        url = f"{address}/api/2.0/mlflow/experiments/search?max_results=1000"
        with urllib.request.urlopen(url, timeout=10) as answer:
            experiments = json.load(answer).get("experiments", [])
        for experiment in experiments:
            if any(tag["key"] == "fer_bench.dataset" for tag in experiment.get("tags", [])):
                addresses[experiment["name"]] = f"{address}/#/experiments/{experiment['experiment_id']}/runs?{TRAINING}"
    last = ""
    with contextlib.suppress(FerBenchError, KeyError):
        study = place.ledger.study()
        last = study["protocol"] if "/" in study["protocol"] else f"{study['dataset']}/{study['protocol']}"
    return sorted(addresses.items(), key=lambda item: (item[0] != last, item[0]))


def _stop(server: subprocess.Popen) -> None:
    """Stop the server and its workers: first with SIGTERM, then with SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
