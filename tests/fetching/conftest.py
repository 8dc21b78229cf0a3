"""A server that cuts, lies, changes its mind, and asks for a login; data sets that come from it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fer_bench import DatasetCard
from fer_bench.contract.plugins import plugins
from fer_bench.fetching.download import Patience
from fer_bench.fetching.fetch import fetch
from fer_bench.record.home import Home

QUICK = Patience(tries=3, backoff=0.01, timeout=5.0)
DATA = bytes(range(256)) * 1200  # 307,200 bytes: four blocks and a bit
COMMIT = "c" * 40

PLUGIN = '''
"""Faces of a test."""
from fer_bench import Dataset, DatasetCard, Fetch, Protocol

card = DatasetCard(
    name="faces",
    title="faces",
    classes=("a", "b"),
    protocols=(Protocol(name="p", train=("x",), val=("y",), test=("z",)),),
    layouts={{"csv": "faces.csv with a column of pixels"}},
    url="https://faces.example",
    licence="for research, by written agreement",
    get="write to the owners of the faces",
    fetch=({fetch}),
)


class Faces(Dataset):
    card = card
'''


@dataclass
class Served:
    """A file of the server, and how it misbehaves."""

    data: bytes
    etag: str = '"v1"'
    ranges: bool = True  # understands Range
    honest: bool = True  # compares If-Range
    failures: list[int] = field(default_factory=list)  # statuses of the first answers
    cuts: list[int] = field(default_factory=list)  # bytes of the first answers, before the line goes dead
    length: int | None = None  # what it announces instead of the truth
    headers: dict[str, str] = field(default_factory=dict)
    stall: threading.Event | None = None  # after half the bytes, wait for it


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    range: str
    condition: str
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Serves the files in `files` on this machine, and notes in `asked` what was wanted."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.root = f"http://127.0.0.1:{self.server_port}"

    def add(self, path: str, data: bytes = DATA, **behaviour) -> str:
        """Serve `data` at `path`; returns the address."""
        self.files[path] = Served(data, **behaviour)
        return self.root + path

    def handle_error(self, request, client_address):
        """Clients that are killed are no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        note = Asked(self.command, self.path, self.headers.get("Range", ""), self.headers.get("If-Range", ""))
        self.server.asked.append(note)
        served = self.server.files.get(self.path.partition("?")[0])
        if served is None:
            self.send_error(404)
        elif served.failures:
            self.send_error(served.failures.pop(0))
        else:
            self.serve(served, note)

    do_HEAD = do_GET

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def serve(self, served: Served, note: Asked):
        start, total = 0, len(served.data)
        same = not served.honest or self.headers.get("If-Range") in (None, served.etag)
        if note.range and served.ranges and same:
            start = int(note.range.removeprefix("bytes=").rstrip("-"))
        if start and start >= total:
            self.send_error(416)
            return
        self.send_response(int(served.headers.get("status", 206 if start else 200)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.length != -1:
            self.send_header("Content-Length", str(served.length or total - start))
        for name, value in served.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(served, note, served.data[start:])

    def send_body(self, served: Served, note: Asked, body: bytes):
        if served.cuts:
            body = body[: served.cuts.pop(0)]
        half = len(body) // 2 if served.stall else len(body)
        self.wfile.write(body[:half])
        self.wfile.flush()
        note.sent = half
        if served.stall:
            served.stall.wait(20)
            self.wfile.write(body[half:])
            note.sent = len(body)


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def write_card(tmp_path):
    """``write_card("Fetch(...)", ...)``: write the plug-in `faces` with these sources; returns its place and card."""

    def write(*sources: str) -> DatasetCard:
        place = tmp_path / "plugins"
        place.mkdir(exist_ok=True)
        (place / "faces.py").write_text(PLUGIN.format(fetch="".join(f"{s}, " for s in sources)))
        return plugins([place]).dataset_card("faces")

    return write


@pytest.fixture
def bring(home, write_card):
    """Fetch quietly from sources given as text; returns the directory of the raw files."""
    return lambda *sources: fetch(home, write_card(*sources), say=lambda line: None, patience=QUICK)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_below(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def zip_of(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return packed.getvalue()


# --- killed, and two at once ---


def run_command(tmp_path: Path, **env: str) -> subprocess.Popen:
    program = "import sys; from fer_bench.cli import main; main(sys.argv[1:])"
    arguments = ["data", "fetch", "faces", "--plugins", str(tmp_path / "plugins"), "--home", str(tmp_path / "home")]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(happened, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return value


# --- the hubs, through their own libraries ---


@pytest.fixture
def hub(server, tmp_path):
    """The part of the Hugging Face hub's interface that is used; ``hub(files)`` serves the data set owner/faces."""
    pytest.importorskip("huggingface_hub")

    def serve(files: dict[str, bytes]) -> dict[str, str]:
        about = {"id": "owner/faces", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        headers = {"Content-Type": "application/json"}
        for path in ("/api/datasets/owner/faces", "/api/datasets/owner/faces/revision/v2"):
            server.add(path, json.dumps(about).encode(), headers=headers)
        for name, data in files.items():
            path = f"/datasets/owner/faces/resolve/{COMMIT}/{name}"
            server.add(path, data, etag=f'"{sha256(data)}"', headers={"X-Repo-Commit": COMMIT})
        return {"HF_ENDPOINT": server.root, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}

    return serve


@pytest.fixture
def kaggle(server, tmp_path, monkeypatch):
    """kagglehub turned to this machine: its one setting for that, LOCALHOST, means port 80, so the port is replaced."""
    pytest.importorskip("kagglehub")
    from kagglesdk import kaggle_env

    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.root)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)

    def serve(service: str, data: bytes, name: str, **behaviour) -> None:
        there = server.add(f"/storage/{name}", data, headers={"Accept-Ranges": "bytes"}, **behaviour)
        server.add(f"/api/v1/{service}", b"", headers={"status": "302", "Location": there})

    return serve
