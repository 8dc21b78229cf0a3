"""Fetching: from a real server on this machine, that cuts, lies, changes its mind, and asks for a login."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from fer_bench import DataError, DatasetCard, Fetch, Protocol, SpecError
from fer_bench.cli import main
from fer_bench.cli.data import data as cli
from fer_bench.contract.plugins import plugins
from fer_bench.errors import FerBenchError, LockedError, UnknownNameError
from fer_bench.fetching.download import BLOCK, Patience
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


# --- one file from an address ---


def test_a_file_arrives_whole_and_nothing_else_is_left(server, home, bring):
    raw = bring(f'Fetch(kind="url", ref="{server.add("/d/faces.csv")}")')
    assert raw == home.raw("faces")
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}


def test_the_cards_name_is_used_not_the_servers(server, bring):
    lie = {"Content-Disposition": 'attachment; filename="../../evil"'}
    url = server.add("/download", headers=lie)
    raw = bring(f'Fetch(kind="url", ref="{url}?id=3", files=("labels/faces.csv",))')
    assert files_below(raw.parent) == {"faces/labels/faces.csv": DATA}


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "a\\\\b.csv"])
def test_a_name_of_the_card_that_leaves_its_place_is_refused(server, home, bring, name):
    with pytest.raises(DataError, match="would lead outside its folder"):
        bring(f'Fetch(kind="url", ref="{server.add("/x")}", files=("{name}",))')
    assert server.asked == []


def test_a_whole_file_is_not_asked_for_again(server, bring):
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}", sha256={{"faces.csv": "{sha256(DATA)}"}})'
    bring(source)
    bring(source)
    assert len(server.asked) == 1


def test_several_sources_are_all_fetched(server, bring):
    one, two = server.add("/one.csv", b"1"), server.add("/two.csv", b"2")
    raw = bring(f'Fetch(kind="url", ref="{one}")', f'Fetch(kind="url", ref="{two}")')
    assert files_below(raw) == {"one.csv": b"1", "two.csv": b"2"}


def test_a_cut_line_is_taken_up_where_it_broke(server, bring):
    """However often, as long as something comes: more often than attempts without any gain are borne."""
    url = server.add("/faces.csv", cuts=[100_000] * 4)
    assert QUICK.tries < 4
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert [a.range for a in server.asked] == ["", *(f"bytes={k * BLOCK}-" for k in (1, 2, 3, 4))]
    assert [a.condition for a in server.asked] == ["", *['"v1"'] * 4]


def test_a_server_without_ranges_starts_again_cleanly(server, bring):
    url = server.add("/faces.csv", cuts=[100_000], ranges=False)
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={BLOCK}-"


@pytest.mark.parametrize("honest", [True, False])
def test_halves_of_two_versions_are_never_joined(server, bring, honest):
    """The second server does not know If-Range and sends the rest of the new version."""
    url = server.add("/faces.csv", cuts=[100_000] * 3)
    source = f'Fetch(kind="url", ref="{url}")'
    server.files["/faces.csv"].cuts += [0] * 9
    with pytest.raises(DataError):
        bring(source)
    changed = DATA[::-1]
    server.add("/faces.csv", changed, etag='"v2"', honest=honest)
    assert files_below(bring(source)) == {"faces.csv": changed}


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_the_download_starts_again(server, bring, etag):
    url = server.add("/faces.csv", cuts=[100_000], etag=etag)
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert [a.range for a in server.asked] == ["", ""]


def test_the_date_of_the_last_change_serves_as_well(server, bring):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    url = server.add("/faces.csv", cuts=[100_000], etag="", honest=False, headers={"Last-Modified": date})
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={BLOCK}-"


def test_a_busy_server_is_asked_again(server, bring):
    url = server.add("/faces.csv", failures=[503, 503])
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_given_up(server, home, bring):
    with pytest.raises(DataError, match="makes no progress: the server answered 503") as error:
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", failures=[503] * 9)}")')
    assert len(server.asked) == QUICK.tries
    assert "rerun the same command" in str(error.value)
    assert not home.raw("faces").exists()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once(server, bring, status):
    with pytest.raises(DataError, match=f"the server answered {status}"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", failures=[status] * 9)}")')
    assert len(server.asked) == 1


def test_nobody_at_the_address_is_an_error_of_ours(bring):
    with pytest.raises(DataError, match="makes no progress"):
        bring('Fetch(kind="url", ref="http://127.0.0.1:9/faces.csv")')


def test_a_connection_that_can_not_be_trusted_is_not_tried_again(server, bring):
    url = server.add("/faces.csv").replace("http:", "https:")
    with pytest.raises(DataError, match="certificate can't be verified"):
        bring(f'Fetch(kind="url", ref="{url}")')


def test_an_address_of_another_kind_is_an_error_of_ours(bring):
    with pytest.raises(DataError, match="the download failed"):
        bring('Fetch(kind="url", ref="file:///etc/passwd")')


def test_less_than_announced_is_never_taken_for_the_file(server, home, bring):
    with pytest.raises(DataError, match="makes no progress"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", length=len(DATA) + 5)}")')
    assert not home.raw("faces").exists()


def test_a_short_answer_is_noticed_also_where_the_library_does_not(bring, monkeypatch):
    import requests

    def short(url, **options):
        answer = requests.Response()
        answer.status_code, answer.url, answer.raw = 200, url, io.BytesIO(DATA[:100])
        answer.headers["Content-Length"] = "200"
        return answer

    monkeypatch.setattr(requests, "get", short)
    with pytest.raises(DataError, match="100 of 200 bytes arrived"):
        bring('Fetch(kind="url", ref="https://faces.example/faces.csv")')


def test_a_file_whose_end_is_not_told_needs_a_hash(server, home, bring):
    url = server.add("/faces.csv", length=-1)
    with pytest.raises(DataError, match="it can't be checked"):
        bring(f'Fetch(kind="url", ref="{url}")')
    assert not home.raw("faces").exists()
    raw = bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{sha256(DATA)}"}})')
    assert files_below(raw) == {"faces.csv": DATA}


def test_a_wrong_file_is_kept_aside_and_both_hashes_are_told(server, home, bring):
    url, expected = server.add("/faces.csv", b"another file"), sha256(DATA)
    with pytest.raises(DataError) as error:
        bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{expected}"}})')
    assert expected in str(error.value)
    assert sha256(b"another file") in str(error.value)
    (kept,) = [p for p in home.data.rglob("*") if p.name == "faces.csv.rejected"]
    assert str(kept) in str(error.value)
    assert kept.read_bytes() == b"another file"
    assert not home.raw("faces").exists()
    server.add("/faces.csv")
    assert files_below(bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{expected}"}})')) == {
        "faces.csv": DATA
    }
    assert kept.read_bytes() == b"another file"


def test_a_file_of_ones_own_under_the_name_is_left_alone(server, home, bring):
    home.raw("faces").mkdir(parents=True)
    (home.raw("faces") / "faces.csv").write_bytes(b"mine")
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}", sha256={{"faces.csv": "{sha256(DATA)}"}})'
    with pytest.raises(DataError, match="not the file that the card expects"):
        bring(source)
    assert files_below(home.raw("faces")) == {"faces.csv": b"mine"}
    assert server.asked == []


def test_a_web_page_is_not_taken_for_the_file(server, bring):
    page = server.add("/faces.csv", b"<html>log in", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DataError, match="web page instead of the file"):
        bring(f'Fetch(kind="url", ref="{page}")')


def test_a_compressed_answer_is_not_taken_for_the_file(server, bring):
    url = server.add("/faces.csv", headers={"Content-Encoding": "gzip"})
    with pytest.raises(DataError, match="encoding that was not requested"):
        bring(f'Fetch(kind="url", ref="{url}")')


def test_a_redirect_away_from_encryption_is_refused(bring, monkeypatch):
    """An encrypted server would need a certificate here; so the answer that it leads to is given instead."""
    import requests

    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://faces.example/faces.csv", io.BytesIO(DATA)
    monkeypatch.setattr(requests, "get", lambda url, **options: answer)
    with pytest.raises(DataError, match="to an unencrypted connection"):
        bring('Fetch(kind="url", ref="https://faces.example/faces.csv")')


def test_a_redirect_is_followed(server, bring):
    there = server.add("/there.csv")
    here = server.add("/faces.csv", b"", headers={"status": "302", "Location": there})
    assert files_below(bring(f'Fetch(kind="url", ref="{here}")')) == {"faces.csv": DATA}


def test_too_small_a_disk_is_told_before_anything_comes(server, home, bring, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="not enough disk space"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv")}")')
    assert not [p for p in home.data.rglob("*.part") if p.stat().st_size]


def test_a_disk_that_fills_up_is_told_and_the_part_is_kept(server, bring, home, monkeypatch):
    flushed = []

    def full(descriptor):
        flushed.append(descriptor)
        if len(flushed) == 2:  # the note beside the part is flushed first
            raise OSError(28, "No space left on device")

    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}")'
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FerBenchError, match="disk is full"):
            bring(source)
    assert not home.raw("faces").exists()
    assert files_below(bring(source)) == {"faces.csv": DATA}
    assert len(server.asked) == 1


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


def test_a_killed_download_asks_for_the_rest_only(server, tmp_path, home, write_card):
    url = server.add("/faces.csv", stall=threading.Event())
    write_card(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{sha256(DATA)}"}})')
    process = run_command(tmp_path)
    (part,) = wait_for(lambda: [p for p in home.data.rglob("*.part") if p.stat().st_size >= 2 * BLOCK])
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert not home.raw("faces").exists()

    server.files["/faces.csv"].stall.set()
    assert run_command(tmp_path).wait() == 0
    assert files_below(home.raw("faces")) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={had}-"
    assert server.asked[1].sent == len(DATA) - had
    assert had >= len(DATA) // 3


def test_a_download_killed_just_before_its_end_asks_for_nothing(server, home, bring, monkeypatch):
    from fer_bench.fetching import download

    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}")'
    with monkeypatch.context() as patch:
        patch.setattr(download, "check_hash", lambda *args, **kwargs: pytest.fail("the kill"))
        with pytest.raises(pytest.fail.Exception):
            bring(source)
    assert files_below(bring(source)) == {"faces.csv": DATA}
    assert len(server.asked) == 1


def test_two_at_once_do_not_meet(server, home, bring):
    stall = threading.Event()
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv", stall=stall)}")'
    first = threading.Thread(target=bring, args=(source,))
    first.start()
    wait_for(lambda: server.asked)
    with pytest.raises(LockedError, match="another process is downloading 'faces'"):
        bring(source)
    stall.set()
    first.join()
    assert files_below(home.raw("faces")) == {"faces.csv": DATA}


# --- archives ---


def test_an_archive_is_unpacked_and_not_fetched_again(server, bring):
    packed = zip_of({"faces-main/a.png": b"a", "faces-main/sub/b.png": b"b"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces/a.png": b"a", "faces/faces/sub/b.png": b"b"}
    bring(source)
    assert len(server.asked) == 1


@pytest.mark.parametrize("after", [False, True])
def test_an_unpacking_that_was_killed_is_done_again_without_the_server(server, bring, monkeypatch, after):
    from fer_bench.fetching import fetch as module

    def killed(archive, target):
        if after:
            unpack(archive, target)
        raise KeyboardInterrupt

    unpack, packed = module.unpack, zip_of({"a.png": b"a"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    with monkeypatch.context() as patch:
        patch.setattr(module, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            bring(source)
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces/a.png": b"a"}
    assert len(server.asked) == 1


def test_a_refused_archive_puts_nothing_in_place(server, home, bring):
    packed = zip_of({"a.png": b"a", "../evil": b"b"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    with pytest.raises(DataError, match="the archive was rejected"):
        bring(source)
    assert not home.raw("faces").exists()
    assert [p.name for p in home.data.rglob("*") if p.is_file()] == [".faces.fetch.lock", "faces.zip.rejected"]
    server.add("/faces.zip", zip_of({"a.png": b"mended"}))
    assert files_below(bring(source)) == {"faces/a.png": b"mended"}


# --- what a person reads ---


def test_the_command_tells_licence_place_and_what_to_type_next(server, tmp_path, home, write_card):
    write_card(f'Fetch(kind="url", ref="{server.add("/faces.csv")}", licence="MIT by its authors")')
    done = CliRunner().invoke(cli, ["fetch", "faces", "--plugins", str(tmp_path / "plugins"), "--home", str(home.root)])
    assert done.exit_code == 0, done.output
    assert "MIT by its authors" in done.output
    assert f"the source files are in {home.raw('faces')}" in done.output
    assert f"fer-bench data prepare faces --home {home.root}" in done.output


def test_a_set_that_nobody_may_hand_on_says_whom_to_ask(tmp_path, home, write_card, capsys):
    write_card()
    with pytest.raises(SystemExit) as left:
        main(["data", "fetch", "faces", "--plugins", str(tmp_path / "plugins"), "--home", str(home.root)])
    output = capsys.readouterr().err
    assert left.value.code == 1
    for part in (
        "write to the owners of the faces",
        "for research, by written agreement",
        "https://faces.example",
        str(home.raw("faces")),
        "faces.csv with a column of pixels",
        f"fer-bench data prepare faces --home {home.root} --from PATH",
    ):
        assert part in output


def test_a_built_in_set_needs_no_fetching(home):
    protocol = Protocol(name="p", train=("x",), val=("y",), test=("z",))
    card = DatasetCard(name="drawn", title="", classes=("a",), protocols=(protocol,), built_in=True)
    with pytest.raises(DataError, match="built in") as error:
        fetch(home, card)
    assert "fer-bench data prepare drawn" in str(error.value)


def test_an_unknown_set_is_answered_with_the_nearest(tmp_path, write_card):
    write_card()
    with pytest.raises(UnknownNameError, match="did you mean 'faces'"):
        CliRunner().invoke(cli, ["fetch", "facs", "--plugins", str(tmp_path / "plugins")], catch_exceptions=False)


def test_a_card_that_makes_no_sense_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'kaggle'"):
        Fetch(kind="kagle", ref="x")
    with pytest.raises(SpecError, match="one file"):
        Fetch(kind="url", ref="x", files=("a", "b"))
    with pytest.raises(UnknownNameError, match=r"did you mean 'a\.csv'"):
        Fetch(kind="url", ref="x", files=("a.csv",), sha256={"b.csv": "0"})


@pytest.mark.parametrize(("kind", "library"), [("huggingface", "huggingface_hub"), ("kaggle", "kagglehub")])
def test_a_missing_library_says_how_to_get_it(bring, monkeypatch, kind, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError) as error:
        bring(f'Fetch(kind="{kind}", ref="owner/faces")')
    assert library in str(error.value)
    assert "pip install 'fer-bench[fetch]'" in str(error.value)


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


def test_files_of_a_hub_are_fetched_by_name_and_revision(server, tmp_path, home, hub, write_card):
    env = hub({"data/train.parquet": b"train", "data/big.parquet": b"not wanted"})
    write_card('Fetch(kind="huggingface", ref="owner/faces@v2", files=("data/train.parquet",))')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert files_below(home.data / "raw") == {"faces/data/train.parquet": b"train"}
    assert "/api/datasets/owner/faces/revision/v2" in [a.path.partition("?")[0] for a in server.asked]
    assert not [a for a in server.asked if "big" in a.path]


def test_a_whole_set_of_a_hub_lands_in_a_directory_of_its_name(tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"a", "sub/faces.zip": zip_of({"x.png": b"x"})})
    write_card('Fetch(kind="huggingface", ref="owner/faces", unpack=True)')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert files_below(home.data / "raw") == {"faces/faces/a.csv": b"a", "faces/faces/sub/faces/x.png": b"x"}


def test_a_closed_set_of_a_hub_says_how_to_log_in(server, tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"a"})
    server.files["/api/datasets/owner/faces"].failures = [401] * 9
    write_card('Fetch(kind="huggingface", ref="owner/faces")')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "'owner/faces' needs a login" in output
    assert "https://huggingface.co/datasets/owner/faces" in output
    assert "hf auth login" in output
    assert "Traceback" not in output
    assert not home.raw("faces").exists()


def test_a_hash_of_a_hubs_file_is_checked(tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"changed"})
    write_card(f'Fetch(kind="huggingface", ref="owner/faces", files=("a.csv",), sha256={{"a.csv": "{sha256(b"a")}"}})')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 1
    assert sha256(b"changed") in output
    assert not home.raw("faces").exists()


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


def test_a_file_of_a_competition_is_fetched(server, kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    kaggle("competitions.CompetitionApiService/DownloadDataFile", DATA, "faces.csv")
    source = 'Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))'
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}
    bring(source)
    assert [a.method for a in server.asked] == ["POST", "GET"]


def test_a_competitions_file_that_comes_zipped_is_a_file_again(kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    kaggle("competitions.CompetitionApiService/DownloadDataFile", zip_of({"faces.csv": DATA}), "faces.csv.zip")
    raw = bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}


def test_a_broken_kaggle_download_goes_on(server, kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    data = DATA * 8
    kaggle("competitions.CompetitionApiService/DownloadDataFile", data, "faces.csv", cuts=[1_500_000])
    source = 'Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))'
    with pytest.raises(DataError, match="the download failed"):
        bring(source)
    assert files_below(bring(source)) == {"faces.csv": data}
    assert server.asked[-1].range == "bytes=1048576-"


def test_a_kaggle_data_set_is_fetched_whole(server, kaggle, bring):
    about = json.dumps({"ref": "owner/faces", "currentVersionNumber": 3}).encode()
    server.add("/api/v1/datasets.DatasetApiService/GetDataset", about, headers={"Content-Type": "application/json"})
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of({"a/b.png": b"b", "c.csv": b"c"}), "archive.zip")
    raw = bring('Fetch(kind="kaggle", ref="owner/faces")')
    assert files_below(raw.parent) == {"faces/faces/a/b.png": b"b", "faces/faces/c.csv": b"c"}


@pytest.mark.parametrize("fault", ["hash", "archive", "missing"])
def test_a_whole_set_with_one_refused_file_is_refused_whole(server, kaggle, home, bring, fault):
    """And asked for again the next time: what is left of it is not the set."""
    about = json.dumps({"ref": "owner/faces", "currentVersionNumber": 3}).encode()
    server.add("/api/v1/datasets.DatasetApiService/GetDataset", about, headers={"Content-Type": "application/json"})
    good = {"a.csv": b"a", "b.zip": zip_of({"x.png": b"x"})}
    bad = {"hash": {"a.csv": b"changed"}, "archive": {"b.zip": b"broken"}, "missing": {"a.csv": None}}[fault]
    faulty = {name: data for name, data in {**good, **bad}.items() if data is not None}
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of(faulty), "archive.zip")
    source = f'Fetch(kind="kaggle", ref="owner/faces", unpack=True, sha256={{"a.csv": "{sha256(b"a")}"}})'
    with pytest.raises(DataError):
        bring(source)
    assert not home.raw("faces").exists()
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of(good), "archive.zip")
    assert files_below(bring(source)) == {"faces/a.csv": b"a", "faces/b/x.png": b"x"}


def test_what_a_notebook_offers_read_only_is_copied(home, bring, tmp_path, monkeypatch):
    """There the library answers with a place outside its cache, which must stay as it is."""
    kagglehub = pytest.importorskip("kagglehub")
    offered = tmp_path / "input" / "faces"
    offered.mkdir(parents=True)
    (offered / "a.csv").write_bytes(b"a")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda ref, path: str(offered))
    assert files_below(bring('Fetch(kind="kaggle", ref="owner/faces")').parent) == {"faces/faces/a.csv": b"a"}
    assert files_below(offered) == {"a.csv": b"a"}


def test_a_home_that_can_not_be_written_is_an_error_of_ours(tmp_path, write_card):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write the file"):
        fetch(Home(tmp_path / "file"), write_card('Fetch(kind="url", ref="http://127.0.0.1:9/x")'))


def test_without_a_kaggle_login_the_way_to_one_is_told(kaggle, bring):
    with pytest.raises(DataError) as error:
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert "https://www.kaggle.com/competitions/faces-challenge/rules" in str(error.value)
    assert "KAGGLE_API_TOKEN" in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_rules_that_were_not_accepted_are_linked(server, kaggle, home, bring, monkeypatch, status):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    url = "/api/v1/competitions.CompetitionApiService/DownloadDataFile"
    server.add(url, failures=[status])
    with pytest.raises(DataError, match="needs a login") as error:
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert "https://www.kaggle.com/competitions/faces-challenge/rules" in str(error.value)
    assert not home.raw("faces").exists()


def test_a_missing_kaggle_file_is_named(kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    with pytest.raises(DataError, match=r"faces\.csv no longer exists"):
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
